//! An open spare: commits changes, checkpoints, and declares a failing mirror dead.

use super::block::{Header, Kind, LIMIT};
use super::checkpoint;
use super::device::Disk;
use super::error::CommitError;
use super::layout::{COPIES, Geometry};
use super::record::{Bounds, entry_count, write_entries};
use super::shared::Doubt;
use super::superblock::{Checkpoint, Superblock};
use crate::table::{Change, Table};
use crate::units::Slot;

/// Failed writes in a row after which a mirror is declared dead.
pub(super) const STRIKES: u32 = 2;
/// Tries at a superblock in one attempt.
const TRIES: u32 = 3;
/// Entries of a checkpoint that only changes which give extents up may use.
const KEPT_ENTRIES: usize = 128;

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
    /// Copies that hold `superblock` durably.
    current: [bool; 5],
    table: Table,
    sequence: u64,
    /// Changes in a record, at most.
    per_record: usize,
    /// The position of the next log block.
    pub(super) head: u64,
    pending: Option<Vec<Change>>,
    /// A superblock that may be found or not: before it is in force nothing else is written.
    owed: Option<Superblock>,
    /// Commits that failed for it.
    attempts: u64,
    strikes: [u32; 2],
    flush_failures: u64,
    dead: Option<String>,
}

impl<D: Disk> Store<D> {
    pub(super) fn new(
        disk: D,
        superblock: Superblock,
        numbers: [Option<u64>; 5],
        recovered: super::recover::Recovered,
    ) -> Store<D> {
        let super::recover::Recovered { table, sequence, head } = recovered;
        Store {
            per_record: superblock.geometry.per_block(),
            disk,
            current: numbers.map(|number| number == Some(superblock.number)),
            superblock,
            table,
            sequence,
            head,
            pending: None,
            owed: None,
            attempts: 0,
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

    /// Flushes of ours that the spare failed: each voids the places since the last good flush.
    pub fn flush_failures(&self) -> u64 {
        self.flush_failures
    }

    /// Superblock copies that hold the newest one.
    pub fn current_copies(&self) -> usize {
        self.current.iter().filter(|&&current| current).count()
    }

    pub fn max_changes(&self) -> usize {
        self.per_record
    }

    /// With fewer changes in a record than would fit, so that a small commit takes several.
    #[must_use]
    pub fn with_records_of(self, changes: usize) -> Store<D> {
        Store { per_record: changes.clamp(1, self.per_record), ..self }
    }

    /// Half of the log is used. A checkpoint should be made when nothing is urgent; one whose superblock is owed
    /// has been.
    pub fn wants_checkpoint(&self) -> bool {
        self.owed.is_none() && 2 * self.used() > self.geometry().log_blocks.into()
    }

    fn used(&self) -> u64 {
        self.head - self.superblock.checkpoint.position
    }

    fn room(&self) -> u64 {
        u64::from(self.geometry().log_blocks) - self.used()
    }

    /// Log blocks that only a restated commit may use, and times that one may fail for a superblock.
    fn reserve(&self) -> u64 {
        u64::from(self.geometry().log_blocks) / 4
    }

    pub fn into_disk(self) -> D {
        self.disk
    }

    fn permitted(&self) -> Result<(), CommitError> {
        let bits = self.superblock.read_only & !super::superblock::READ_ONLY;
        match &self.dead {
            _ if bits != 0 => Err(CommitError::ReadOnly { bits }),
            Some(why) => Err(CommitError::Dead(why.clone())),
            None => Ok(()),
        }
    }

    fn writable(&self) -> Result<(), CommitError> {
        self.permitted()?;
        match &self.pending {
            Some(_) => Err(self.unknown("it has not been restated yet".into())),
            None => Ok(()),
        }
    }

    fn unknown(&self, why: String) -> CommitError {
        CommitError::Unknown { sequence: self.sequence + 1, why }
    }

    fn die(&mut self, why: String) -> CommitError {
        self.dead = Some(why.clone());
        CommitError::Dead(why)
    }

    /// Whether records for all of the changes could be written, pending ones aside.
    pub fn admit(&self, changes: &[Change]) -> Result<(), CommitError> {
        self.permitted()?;
        let bounds = Bounds::of(&self.superblock);
        changes.iter().try_for_each(|change| bounds.admit(change)).map_err(CommitError::Invalid)?;
        let most = self.geometry().max_entries();
        let sets = changes.iter().filter(|change| matches!(change, Change::Set(_))).count();
        // A set adds itself, the rest of what it cuts and two ends to retire; others cut or join.
        let grown = entry_count(&self.table) + 3 * sets + changes.len();
        if grown > if sets > 0 { most - KEPT_ENTRIES } else { most } {
            return Err(CommitError::Full("no room for more extents"));
        }
        let records = changes.len().div_ceil(self.max_changes()).max(1) as u64;
        if self.room() < self.reserve() + records {
            return Err(CommitError::Full("the log"));
        }
        Ok(())
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
        self.admit(changes)?;
        self.commit_admitted(changes)
    }

    /// A part of changes that were admitted together, each part at most `max_changes`.
    pub fn commit_admitted(&mut self, changes: &[Change]) -> Result<Durable, CommitError> {
        self.writable()?;
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
            match self.settle() {
                Ok(()) => self.attempts = 0,
                Err(CommitError::Superblock(why)) if self.attempts == self.reserve() => {
                    return Err(self.die(format!("no superblock could be written ({why})")));
                }
                Err(e) => {
                    self.attempts += 1;
                    self.pending = Some(changes);
                    return Err(self.unknown(e.to_string()));
                }
            }
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
            let survives = (0..2).any(|m| live[m] && failed[m].is_none());
            // What fails in both is no fault of either: the spare is away.
            if survives {
                for (strikes, failed) in self.strikes.iter_mut().zip(&failed) {
                    *strikes = failed.as_ref().map_or(0, |_| *strikes + 1);
                }
            }
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
                    self.owe(next)?;
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

    /// What was written to the spare before, slots included, is durable, unless a flush failed since.
    pub fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.disk.flush();
        flushed.inspect_err(|error| self.flush_failures += u64::from(!Doubt::is(error)))
    }

    pub(super) fn successor(&self) -> Superblock {
        let number = self.superblock.number + 1;
        Superblock { number, sequence: self.sequence, ..self.superblock.clone() }
    }

    /// Makes a superblock the one in force.
    pub(super) fn publish(&mut self, next: Superblock) -> Result<(), CommitError> {
        self.owe(next)?;
        self.settle()
    }

    fn owe(&mut self, next: Superblock) -> Result<(), CommitError> {
        // Nobody would read it, and it would replace what can be read.
        if [next.number, next.epoch, next.checkpoint.number].into_iter().any(|n| n >= LIMIT) {
            return Err(self.die("its numbers are used up".into()));
        }
        self.owed = Some(next);
        Ok(())
    }

    /// Puts the superblock that is owed in force.
    fn settle(&mut self) -> Result<(), CommitError> {
        let Some(next) = self.owed.take() else { return Ok(()) };
        let mut why = String::new();
        for _ in 0..TRIES {
            match self.put_all_copies(&next) {
                Ok(true) => {
                    self.tell_of_lost_mirrors(&next);
                    self.superblock = next;
                    return Ok(());
                }
                Ok(false) => why = "no copy takes a write".into(),
                Err(e) => why = format!("flush: {e}"),
            }
        }
        self.owed = Some(next);
        Err(CommitError::Superblock(why))
    }

    /// A cut takes what is being written, so one copy known to be whole is kept until another holds the new one
    /// durably; where none is known, they are written one at a time.
    fn put_all_copies(&mut self, next: &Superblock) -> std::io::Result<bool> {
        let all = 0..COPIES.len();
        let rounds = match self.current.iter().position(|&current| current) {
            Some(kept) => vec![all.filter(|&copy| copy != kept).collect(), vec![kept]],
            None => all.map(|copy| vec![copy]).collect(),
        };
        let mut written = false;
        for copies in rounds {
            match self.put_copies(next, &copies) {
                Ok(any) => written |= any,
                Err(e) if !written => return Err(e),
                Err(_) => {}
            }
        }
        Ok(written)
    }

    fn tell_of_lost_mirrors(&self, next: &Superblock) {
        let uuid = next.label.uuid;
        for mirror in (0..2).filter(|&m| self.superblock.live[m] && !next.live[m]) {
            tracing::error!(
                "spare {uuid}: metadata mirror {mirror} takes no writes, and is given up; \
                `dmremap-policyd repair` takes it back"
            );
        }
    }

    /// Makes the superblock that was found durable, wherever it was read from: a cache, perhaps. A cut
    /// takes the copy that is being written, so they are written one at a time: those that hold none
    /// first, and a copy that stands alone, with the newest or an older one, after the others.
    pub(super) fn anchor(&mut self, numbers: [Option<u64>; 5]) -> Result<(), CommitError> {
        let found = self.superblock.clone();
        let alone = self.current_copies() == 1;
        let mut copies = [0, 1, 2, 3, 4];
        copies.sort_by_key(|&copy| (numbers[copy].is_some(), self.current[copy] == alone));
        for copy in copies {
            let mut done = self.put_copies(&found, &[copy]);
            for _ in 1..TRIES {
                done = done.or_else(|_| self.put_copies(&found, &[copy]));
            }
            done.map_err(|e| self.die(format!("flush: {e}")))?;
        }
        match (self.current.contains(&true), self.current.contains(&false)) {
            (true, false) => Ok(()),
            // A copy that takes no write may hold the next number, of an owner that was cut off, and
            // show it again some day.
            (true, true) => self.publish(Superblock { number: found.number + 2, ..found }),
            (false, _) => Err(self.die("no superblock copy takes a write".into())),
        }
    }

    /// Writes some copies and flushes. Whether any of them could be written.
    fn put_copies(&mut self, superblock: &Superblock, copies: &[usize]) -> std::io::Result<bool> {
        let mut written = Vec::new();
        for &copy in copies {
            self.current[copy] = false;
            let sector = COPIES[copy];
            if self.disk.write(sector, &superblock.encode(sector)).is_ok() {
                written.push(copy);
            }
        }
        self.flush()?;
        written.iter().for_each(|&copy| self.current[copy] = true);
        Ok(!written.is_empty())
    }

    /// Writes the whole table aside and puts it in force, which frees the log. Takes time in
    /// proportion to the table. A mirror that it cannot be written to is dead from then on.
    pub fn checkpoint(&mut self) -> Result<(), CommitError> {
        self.writable()?;
        self.settle()?;
        self.checkpoint_under(self.successor())
    }

    /// `next` is the superblock that puts it in force, complete but for the checkpoint.
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

    /// Marks the spare as left in order: another machine may take it without `--take-over`. Nothing may
    /// be written after it.
    pub fn leave(&mut self) -> Result<(), CommitError> {
        self.writable()?;
        self.settle()?;
        let next = Superblock { clean: true, ..self.successor() };
        self.publish(next)
    }

    pub fn close(mut self) -> Result<D, CommitError> {
        self.leave()?;
        Ok(self.disk)
    }
}

fn at_sector(at: Slot, e: &std::io::Error) -> String {
    format!("sector {at}: {e}")
}
