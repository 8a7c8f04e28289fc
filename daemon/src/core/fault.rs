//! One fault as the daemon sees it.

use std::time::Duration;

use serde::Serialize;

use super::breaker::Control;
use super::control::Places;
use super::event::{Flags, Listed, Piece, ReadId, Span, Status};
use super::search::{Part, Search};
use crate::table::{Change, Extent, Kind, Table};
use crate::units::{Sector, Sectors};

/// How far a fault has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Its next listing decides.
    New,
    /// Tried or read piece by piece.
    Searching,
    /// Places elsewhere are read.
    Controlling,
    /// Places elsewhere on the spare are read.
    ControllingSpare,
    Placing,
    /// In its slots, to be flushed.
    Placed,
    Flushing,
    /// Flushed; a listing must show that no other flush of the spare has failed.
    Checking,
    /// To be committed.
    Ready,
    /// In the commit under way, which may be unknown.
    Committing,
    /// To be installed.
    Durable,
    /// To be released or failed.
    Ending,
}

/// A request about the fault that the kernel has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Try,
    Place,
    Install,
    Release,
    Fail,
}

#[derive(Debug)]
pub(super) struct Fault {
    pub start: Sector,
    pub len: Sectors,
    pub flags: Flags,
    /// Of the held bio.
    pub deadline: Option<Duration>,
    pub step: Step,
    pub asked: Option<Verdict>,
    pub reading: Option<ReadId>,
    /// Of each disk that is controlled.
    pub places: Vec<Places>,
    /// What the data disk has shown, while the spare is still to be read.
    pub control: Option<Control>,
    pub search: Search,
    /// Of the last PLACE.
    pub pieces: Vec<Piece>,
    /// Failed flushes of the spare before the last PLACE was sent: one more makes it void.
    pub flush_fails: u64,
    /// Number of the first listing that was sent after the flush had ended.
    pub check_from: u64,
    /// Places that failed.
    pub attempts: u32,
    /// What the last of them leaves: pieces that stay where they are, and parts that need another slot.
    pub failed: Option<(Vec<Piece>, Vec<Part>)>,
    /// A part that was to stay where it is has failed: it is more than a heal.
    pub rest_failed: bool,
    /// A former owner's commit that names it is durable in part.
    pub named: bool,
}

impl Fault {
    pub fn new(listed: &Listed) -> Fault {
        Fault {
            start: listed.start,
            len: listed.len,
            flags: listed.flags,
            deadline: None,
            step: Step::New,
            asked: None,
            reading: None,
            places: Vec::new(),
            control: None,
            search: Search::default(),
            pieces: Vec::new(),
            flush_fails: 0,
            check_from: 0,
            attempts: 0,
            failed: None,
            rest_failed: false,
            named: false,
        }
    }

    /// A commit that names it may be durable: it ends by an install only.
    pub fn is_committed(&self) -> bool {
        self.named || matches!(self.step, Step::Committing | Step::Durable)
    }

    /// A request failed: the next listing decides again, but an error that was decided stays.
    pub fn restart(&mut self, verdict: Verdict) {
        if !self.is_committed() && verdict != Verdict::Fail {
            self.step = Step::New;
        }
    }

    pub fn control_spans(&self) -> Vec<Span> {
        self.places.iter().flat_map(|places| places.spans.clone()).collect()
    }

    /// What the results show of the disk that answers least, and those of what was read besides.
    pub fn judge<'a>(&self, mut results: &'a [Status]) -> (Control, &'a [Status]) {
        let mut worst = Control::Proved;
        for places in &self.places {
            let (mine, others) = results.split_at(places.spans.len().min(results.len()));
            worst = worst.max(places.judge(mine));
            results = others;
        }
        (worst, results)
    }

    pub fn writes_slots(&self) -> bool {
        self.pieces.iter().any(|p| matches!(p.kind, Some(Kind::Mapped(_))))
    }

    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        self.pieces.iter().map(|p| {
            let start = self.start + p.offset;
            match p.kind {
                Some(kind) => Change::Set(Extent { start, len: p.len, kind }),
                None => Change::Clear { start, len: p.len },
            }
        })
    }
}

/// Does the table hold exactly what the pieces say?
pub(super) fn in_table(table: &Table, start: Sector, piece: &Piece) -> bool {
    let from = start + piece.offset;
    let Some(kind) = piece.kind else {
        return table.overlapping(from, piece.len).next().is_none();
    };
    let mut at = from;
    for extent in table.overlapping(from, piece.len) {
        if extent.start != at || extent.kind != advance(kind, at - from) {
            return false;
        }
        at = extent.end();
    }
    at == from + piece.len
}

fn advance(kind: Kind, skip: Sectors) -> Kind {
    match kind {
        Kind::Mapped(slot) => Kind::Mapped(slot + skip),
        Kind::PoisonSlot(slot) => Kind::PoisonSlot(slot + skip),
        Kind::PoisonData => Kind::PoisonData,
    }
}

/// A part of the fault at `start`, cut where the table changes, with what the table has there.
pub(super) fn segments(table: &Table, start: Sector, part: Part) -> Vec<(Part, Option<Kind>)> {
    let mut out = Vec::new();
    let mut at = part.offset;
    for extent in table.overlapping(start + part.offset, part.len) {
        let offset = extent.start - start;
        if at < offset {
            out.push((Part { offset: at, len: offset - at }, None));
        }
        out.push((Part { offset, len: extent.len }, Some(extent.kind)));
        at = offset + extent.len;
    }
    if at < part.end() {
        out.push((Part { offset: at, len: part.end() - at }, None));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Change, Extent};

    #[test]
    fn segments_are_cut_where_extents_begin_and_end() {
        let mut table = Table::default();
        let kind = Kind::PoisonData;
        for start in [10, 20].map(Sector) {
            table.apply(&Change::Set(Extent { start, len: Sectors(2), kind }));
        }
        let part = |offset, len| Part { offset: Sectors(offset), len: Sectors(len) };
        let cut = segments(&table, Sector(8), part(1, 15));
        let wanted = [(part(1, 1), None), (part(2, 2), Some(kind)), (part(4, 8), None)];
        assert_eq!(cut[..3], wanted);
        assert_eq!(cut[3..], [(part(12, 2), Some(kind)), (part(14, 2), None)]);
    }
}
