//! An open spare: commits changes, checkpoints, and declares a failing mirror dead.

use super::block::{Header, Kind, LIMIT};
use super::checkpoint;
use super::device::Disk;
use super::error::CommitError;
use super::layout::{COPIES, Geometry};
use super::record::{Bounds, entry_count, write_entries};
use super::superblock::{Checkpoint, Superblock};
use crate::table::{Change, Table};
use crate::units::Slot;

/// Failed writes in a row after which a mirror is declared dead.
const STRIKES: u32 = 2;
/// Tries at a superblock before the store gives up.
const TRIES: u32 = 3;
/// A change makes at most this many entries: itself, the rest of what it cuts, what it retires.
const GROWTH: usize = 4;

/// Proof that a commit, and all before it, survive a crash: what installs a mapping is made from
/// it, and only this module makes one (I1).
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Durable {
    sequence: u64,
}

impl Durable {
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// One writer, which holds the spare exclusively. The table it keeps is what has been committed.
pub struct Store<D> {
    pub(super) disk: D,
    pub(super) superblock: Superblock,
    /// Copies that hold `superblock`.
    current: [bool; 5],
    table: Table,
    sequence: u64,
    /// The position of the next log block.
    pub(super) head: u64,
    pending: Option<Vec<Change>>,
    strikes: [u32; 2],
    flush_failures: u64,
    dead: Option<String>,
}

impl<D: Disk> Store<D> {
    pub(super) fn new(
        disk: D,
        superblock: Superblock,
        current: [bool; 5],
        recovered: super::recover::Recovered,
    ) -> Store<D> {
        let super::recover::Recovered { table, sequence, head } = recovered;
        Store {
            disk,
            superblock,
            current,
            table,
            sequence,
            head,
            pending: None,
            strikes: [0; 2],
            flush_failures: 0,
            dead: None,
        }
    }

    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    pub fn geometry(&self) -> &Geometry {
        &self.superblock.geometry
    }

    /// What is committed: never ahead of the spare.
    pub fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn durable(&self) -> Durable {
        Durable { sequence: self.sequence }
    }

    /// Failed flushes of the spare: each voids the places since the last good flush.
    pub fn flush_failures(&self) -> u64 {
        self.flush_failures
    }

    /// Superblock copies that hold the newest one.
    pub fn current_copies(&self) -> usize {
        self.current.iter().filter(|&&current| current).count()
    }

    pub fn max_changes(&self) -> usize {
        self.geometry().per_block()
    }

    /// Half of the log is used. A checkpoint should be made when nothing is urgent.
    pub fn wants_checkpoint(&self) -> bool {
        2 * self.used() > self.geometry().log_blocks.into()
    }

    fn used(&self) -> u64 {
        self.head - self.superblock.checkpoint.position
    }

    fn room(&self) -> u64 {
        u64::from(self.geometry().log_blocks) - self.used()
    }

    /// Log blocks that only a restated commit may use.
    fn reserve(&self) -> u64 {
        u64::from(self.geometry().log_blocks) / 4
    }

    pub fn into_disk(self) -> D {
        self.disk
    }

    fn writable(&self) -> Result<(), CommitError> {
        let bits = self.superblock.read_only & !super::superblock::READ_ONLY;
        if bits != 0 {
            return Err(CommitError::ReadOnly { bits });
        }
        match (&self.dead, &self.pending) {
            (Some(why), _) => Err(CommitError::Dead(why.clone())),
            (None, Some(_)) => Err(self.unknown("it has not been restated yet".into())),
            (None, None) => Ok(()),
        }
    }

    fn unknown(&self, why: String) -> CommitError {
        CommitError::Unknown { sequence: self.sequence + 1, why }
    }

    fn die(&mut self, why: String) -> CommitError {
        self.dead = Some(why.clone());
        CommitError::Dead(why)
    }

    /// Makes the changes durable together. At most `max_changes`; those of one slice are in order.
    pub fn commit(&mut self, changes: &[Change]) -> Result<Durable, CommitError> {
        self.writable()?;
        if changes.len() > self.max_changes() {
            let max = self.max_changes();
            return Err(CommitError::Invalid(format!(
                "{} changes, at most {max} fit",
                changes.len()
            )));
        }
        let bounds = Bounds::of(&self.superblock);
        changes.iter().try_for_each(|change| bounds.admit(change)).map_err(CommitError::Invalid)?;
        if entry_count(&self.table) + GROWTH * changes.len() > self.geometry().max_entries() {
            return Err(CommitError::Full("no room for more extents"));
        }
        if self.room() <= self.reserve() {
            return Err(CommitError::Full("the log"));
        }
        self.append(changes.to_vec())
    }

    /// Writes the commit that is unknown once more: same sequence, same payload, next block.
    pub fn restate(&mut self) -> Result<Durable, CommitError> {
        match (&self.dead, self.pending.take()) {
            (Some(why), _) => Err(CommitError::Dead(why.clone())),
            (None, Some(changes)) => self.append(changes),
            (None, None) => Err(CommitError::Invalid("no commit is unknown".into())),
        }
    }

    fn append(&mut self, changes: Vec<Change>) -> Result<Durable, CommitError> {
        loop {
            if self.room() == 0 {
                return Err(self.die("the log is full of failed writes".into()));
            }
            if self.sequence + 1 >= LIMIT || self.head >= LIMIT - 1 {
                return Err(self.die("its sequences are used up".into()));
            }
            let (position, live) = (self.head, self.superblock.live);
            self.head += 1;
            let mut failed = [None, None];
            for mirror in (0..2).filter(|&m| live[m]) {
                let written = self.write_record(mirror, position, &changes);
                failed[mirror] = written.err();
            }
            for (strikes, failed) in self.strikes.iter_mut().zip(&failed) {
                *strikes = failed.as_ref().map_or(0, |_| *strikes + 1);
            }
            let survives = (0..2).any(|m| live[m] && failed[m].is_none());
            let flushed = if survives { self.flush() } else { Ok(()) };
            let first = failed.iter().flatten().next().map(ToString::to_string);
            match (first, flushed) {
                (None, Ok(())) => {
                    self.sequence += 1;
                    changes.iter().for_each(|change| self.table.apply(change));
                    return Ok(self.durable());
                }
                (Some(_), Ok(())) if survives && self.strikes.iter().any(|&n| n >= STRIKES) => {
                    let mut next = self.successor();
                    for mirror in 0..2 {
                        next.live[mirror] &= self.strikes[mirror] < STRIKES;
                    }
                    self.publish(next)?;
                }
                (why, flushed) => {
                    let why = why.or(flushed.err().map(|e| e.to_string())).unwrap_or_default();
                    self.pending = Some(changes);
                    return Err(self.unknown(why));
                }
            }
        }
    }

    fn write_record(
        &mut self,
        mirror: usize,
        position: u64,
        changes: &[Change],
    ) -> std::io::Result<()> {
        let geometry = self.superblock.geometry;
        let sector = geometry.log_block(mirror, position);
        let mut block = vec![0; geometry.unit.bytes() as usize];
        write_entries(changes, &mut block);
        let header = Header {
            kind: Kind::Record,
            label: self.superblock.label,
            epoch: self.superblock.epoch,
            sequence: self.sequence + 1,
            superblock: self.superblock.number,
            sector,
            count: changes.len() as u32,
            ordinal: position,
        };
        header.seal(&mut block);
        self.disk.write(sector, &block)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.disk.flush().inspect_err(|_| self.flush_failures += 1)
    }

    pub(super) fn successor(&self) -> Superblock {
        let number = self.superblock.number + 1;
        Superblock { number, sequence: self.sequence, ..self.superblock.clone() }
    }

    /// Makes a superblock the one in force. One copy that holds the old one is kept until another
    /// that holds the new one is durable.
    pub(super) fn publish(&mut self, next: Superblock) -> Result<(), CommitError> {
        let mut why = String::new();
        for _ in 0..TRIES {
            let keep = self.current.iter().position(|&current| current).unwrap_or(0);
            let mut written = [false; 5];
            for step in [Step::Others, Step::Kept] {
                for (copy, sector) in COPIES.into_iter().enumerate() {
                    if (copy == keep) == (step == Step::Kept) {
                        let done = self.disk.write(sector, &next.encode(sector));
                        written[copy] = done.inspect_err(|e| why = e.to_string()).is_ok();
                    }
                }
                if let Err(e) = self.flush() {
                    why = format!("flush: {e}");
                    written = [false; 5];
                    break;
                }
            }
            if written.contains(&true) {
                self.superblock = next;
                self.current = written;
                return Ok(());
            }
        }
        Err(self.die(format!("no superblock could be written ({why})")))
    }

    /// Writes the whole table aside and puts it in force, which frees the log. Takes time in
    /// proportion to the table. A mirror that it cannot be written to is dead from then on.
    pub fn checkpoint(&mut self) -> Result<Durable, CommitError> {
        self.writable()?;
        self.checkpoint_under(self.successor())?;
        self.name_superblock()
    }

    /// A record without changes. It makes the log name the superblock, so that older ones are
    /// refused if all that knew of this one are lost.
    pub(super) fn name_superblock(&mut self) -> Result<Durable, CommitError> {
        self.append(Vec::new())
    }

    /// As `checkpoint`, but for the record that names the superblock.
    pub(super) fn checkpoint_under(&mut self, mut next: Superblock) -> Result<(), CommitError> {
        let entries = entry_count(&self.table);
        next.checkpoint = Checkpoint {
            number: next.checkpoint.number + 1,
            sequence: self.sequence,
            position: self.head,
            area: 1 - next.checkpoint.area,
            blocks: entries.div_ceil(self.geometry().per_block()).max(1) as u32,
            entries: entries as u32,
            digest: 0,
        };
        let mut why = String::new();
        for mirror in 0..2 {
            if next.live[mirror] {
                match checkpoint::write(&mut self.disk, &next, mirror, &self.table) {
                    Ok(digest) => next.checkpoint.digest = digest,
                    Err((at, e)) => {
                        why = at_sector(at, &e);
                        next.live[mirror] = false;
                    }
                }
            }
        }
        if !next.live.contains(&true) {
            return Err(CommitError::Checkpoint(why));
        }
        self.flush().map_err(|e| CommitError::Checkpoint(format!("flush: {e}")))?;
        self.strikes = [0; 2];
        self.publish(next)
    }

    /// Marks the spare as left in order: another machine may take it without `--take-over`.
    pub fn close(mut self) -> Result<D, CommitError> {
        self.writable()?;
        let next = Superblock { clean: true, ..self.successor() };
        self.publish(next)?;
        Ok(self.disk)
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Step {
    Others,
    Kept,
}

fn at_sector(at: Slot, e: &std::io::Error) -> String {
    format!("sector {at}: {e}")
}
