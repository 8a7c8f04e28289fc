//! From damage to a place that outlives a power cut: slots, PLACE, flush, check.

use super::device::Device;
use super::event::{Action, Alarm, FaultId, Listed, Piece, Status};
use super::fault::{Fault, Step, Verdict, segments};
use super::search::{Part, Search};
use super::snapshot::Happening;
use crate::table::{Change, Kind};
use crate::units::Sectors;

impl Device {
    /// Decides what the bad parts become: slots for a write, poison for a read.
    pub(super) fn place(&mut self, id: FaultId) {
        let Some(fault) = self.faults.get_mut(&id) else { return };
        let failed = fault.failed.take();
        let bad = fault.search.bad();
        if fault.flags.write {
            let (kept, parts) = failed.unwrap_or_else(|| (Vec::new(), bad.to_vec()));
            return self.place_in_slots(id, kept, &parts);
        }
        let poison = |(part, kind): (Part, Option<Kind>)| Piece {
            offset: part.offset,
            len: part.len,
            kind: Some(match kind.and_then(Kind::slot) {
                Some(slot) => Kind::PoisonSlot(slot),
                None => Kind::PoisonData,
            }),
        };
        let pieces = bad.iter().flat_map(|&p| segments(&self.table, fault.start, p)).map(poison);
        let pieces = pieces.collect();
        self.send_place(id, pieces);
    }

    /// `kept` pieces stay where they are.
    fn place_in_slots(&mut self, id: FaultId, kept: Vec<Piece>, parts: &[Part]) {
        let lens: Vec<Sectors> = parts.iter().map(|part| part.len).collect();
        let Some(slots) = self.spare.allocate(&lens) else {
            self.spare_is_full();
            return self.fail(id, "the spare is full");
        };
        let mut pieces = kept;
        for (part, runs) in parts.iter().zip(slots) {
            let mut offset = part.offset;
            for (slot, len) in runs {
                pieces.push(Piece { offset, len, kind: Some(Kind::Mapped(slot)) });
                offset = offset + len;
            }
        }
        pieces.sort_by_key(|piece| piece.offset);
        self.spare_news();
        self.send_place(id, pieces);
    }

    fn spare_is_full(&mut self) {
        let text = "the spare is full: new bad sectors are errors from now on";
        self.alarm(Alarm::SpareFull, text.into());
    }

    /// A restart finds the spare as it is, and so do new limits.
    pub(super) fn spare_news(&mut self) {
        let usage = self.spare.usage();
        let free = usage.free_percent();
        if free >= u64::from(self.policy.spare_low_percent) {
            self.alarms.remove(&Alarm::SpareLow);
        } else {
            self.alarm(Alarm::SpareLow, format!("{free} % of the spare is left"));
        }
        if usage.used == usage.total {
            self.spare_is_full();
        }
    }

    fn send_place(&mut self, id: FaultId, pieces: Vec<Piece>) {
        let flush_fails = self.flush_fails();
        let Some(fault) = self.faults.get_mut(&id) else { return };
        fault.step = Step::Placing;
        fault.asked = Some(Verdict::Place);
        fault.flush_fails = flush_fails;
        fault.pieces.clone_from(&pieces);
        self.out.push(Action::Place { fault: id, pieces });
    }

    /// The kernel knows a slot as used that the table does not: it is not ours to hand out.
    pub(super) fn place_elsewhere(&mut self, id: FaultId) {
        if self.another_attempt(id) {
            self.place(id);
        }
    }

    /// Counts a place that did not last; too many end the fault.
    fn another_attempt(&mut self, id: FaultId) -> bool {
        let Some(fault) = self.faults.get_mut(&id) else { return false };
        fault.attempts += 1;
        let again = fault.attempts < self.policy.place_attempts && fault.flags.held;
        if !again {
            self.fail(id, "it could not be placed");
        }
        again
    }

    /// PLACE has ended without success: a slot failed, or a part that stays where it is.
    pub(super) fn place_failed(&mut self, listed: Listed) {
        let id = listed.id;
        let unit = self.area.unit;
        let (mut kept, mut failed) = (Vec::new(), Vec::new());
        for (piece, status) in &listed.pieces {
            match (piece.kind, status) {
                (_, Status::Ok) => kept.push(*piece),
                (Some(Kind::Mapped(slot)), _) => {
                    let len = piece.len.round_up(unit);
                    self.counters.slots_retired += 1;
                    self.notes.add(self.now, Happening::SlotRetired { slot, len });
                    self.retire.push(Change::Retire { slot, len });
                    failed.push(Part { offset: piece.offset, len: piece.len });
                }
                _ => {}
            }
        }
        let gone = listed.pieces.iter().any(|&(_, status)| status == Status::Other);
        if gone {
            return self.is_away(id);
        }
        if !self.another_attempt(id) {
            return;
        }
        let Some(fault) = self.faults.get_mut(&id) else { return };
        if !failed.is_empty() {
            // A spare that is away would have one slot after another retired.
            fault.failed = Some((kept, failed));
            return self.control_spare(id);
        }
        fault.rest_failed = true;
        fault.search = rest(fault);
        self.search(id);
    }

    /// PLACE has ended well.
    pub(super) fn placed(&mut self, listed: Listed) {
        let Some(fault) = self.faults.get_mut(&listed.id) else { return };
        if !fault.pieces.iter().eq(listed.pieces.iter().map(|(piece, _)| piece)) {
            return self.release(listed.id);
        }
        if fault.writes_slots() {
            fault.step = Step::Placed;
            self.void_if_lost(listed.id);
        } else if fault.pieces.is_empty() {
            // The disk took every piece: nothing to commit.
            fault.step = Step::Durable;
        } else {
            fault.step = Step::Ready;
        }
    }

    /// A flush covers the places reported before it was sent.
    pub(super) fn flush(&mut self) {
        if self.flushing {
            return;
        }
        for fault in self.faults.values_mut().filter(|f| f.step == Step::Placed) {
            fault.step = Step::Flushing;
            self.flushing = true;
        }
        if self.flushing {
            self.out.push(Action::FlushSpare);
        }
    }

    pub(super) fn flush_done(&mut self, ok: bool) {
        self.flushing = false;
        if ok {
            self.restate_soon();
        }
        for id in self.with(Step::Flushing) {
            if !ok {
                self.void(id);
            } else if let Some(fault) = self.faults.get_mut(&id) {
                fault.step = Step::Checking;
                fault.check_from = self.lists + 1;
                self.list_wanted = true;
            }
        }
    }

    /// One of our own, of placed data or of metadata; the kernel has been told.
    pub(super) fn flush_failed(&mut self) {
        // How many the kernel has counted must be known before anything is placed again.
        self.list_wanted = true;
        self.alarm(Alarm::SpareFlush, "the spare fails its flushes".into());
    }

    pub(super) fn check(&mut self, id: FaultId) {
        let Some(fault) = self.faults.get_mut(&id) else { return };
        if self.lists >= fault.check_from {
            fault.step = Step::Ready;
            self.void_if_lost(id);
        }
    }

    /// Whoever sent them: a failed one may lose what it was never meant to cover.
    fn flush_fails(&self) -> u64 {
        self.instance.map_or(0, |instance| instance.spare_flush_fails)
    }

    /// Has a flush of the spare failed since the place was sent?
    fn void_if_lost(&mut self, id: FaultId) {
        let fails = self.flush_fails();
        if self.faults.get(&id).is_some_and(|fault| fault.flush_fails != fails) {
            self.void(id);
        }
    }

    /// A failed flush may have lost what was placed: it is written to the same slots once more.
    fn void(&mut self, id: FaultId) {
        self.counters.places_voided += 1;
        if self.another_attempt(id) {
            let pieces = self.faults.get(&id).map(|f| f.pieces.clone()).unwrap_or_default();
            self.send_place(id, pieces);
        }
    }
}

/// Everything but the pieces is to be tried.
fn rest(fault: &Fault) -> Search {
    let (mut suspects, mut bad) = (Vec::new(), Vec::new());
    let mut at = Sectors(0);
    for piece in &fault.pieces {
        if at < piece.offset {
            suspects.push(Part { offset: at, len: piece.offset - at });
        }
        bad.push(Part { offset: piece.offset, len: piece.len });
        at = piece.offset + piece.len;
    }
    if at < fault.len {
        suspects.push(Part { offset: at, len: fault.len - at });
    }
    Search::new(suspects, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{FaultId, Flags, Listed, State, Status};
    use crate::units::Sector;

    #[test]
    fn the_rest_is_what_no_piece_covers() {
        let listed = Listed {
            id: FaultId(1),
            start: Sector(1000),
            len: Sectors(8),
            state: State::Open,
            flags: Flags::default(),
            status: Status::Medium,
            deadline: None,
            pieces: Vec::new(),
        };
        let part = |(offset, len)| Part { offset: Sectors(offset), len: Sectors(len) };
        let parts = |list: &[(u64, u64)]| list.iter().copied().map(part).collect::<Vec<_>>();
        let block = Sectors(8);
        for (pieces, others) in [
            (&[][..], &[(0, 8)][..]),
            (&[(0, 8)], &[]),
            (&[(0, 3)], &[(3, 5)]),
            (&[(7, 1)], &[(0, 7)]),
            (&[(1, 1), (4, 2)], &[(0, 1), (2, 2), (6, 2)]),
            (&[(0, 1), (7, 1)], &[(1, 6)]),
        ] {
            let mut fault = Fault::new(&listed);
            let piece = |p: Part| Piece { offset: p.offset, len: p.len, kind: None };
            fault.pieces = parts(pieces).into_iter().map(piece).collect();
            let mut search = rest(&fault);
            assert_eq!(search.round(block), parts(others), "{pieces:?}");
            assert_eq!(search.bad(), parts(pieces));
        }
    }
}
