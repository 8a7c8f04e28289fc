use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Faults, Medium};
use crate::SECTOR;

/// What a disk was asked, and how often it refused.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub reads: u64,
    pub writes: u64,
    /// Writes, counted in `writes` too, that asked to be durable.
    pub fua: u64,
    pub flushes: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub flush_errors: u64,
}

/// One disk. Each sector has its durable content in the medium and every version written since, oldest first.
///
/// Requests are whole sectors ([`io::ErrorKind::InvalidInput`] otherwise). A fault that was asked for is EIO.
pub struct VolatileStore<M> {
    medium: M,
    sectors: u64,
    unflushed: BTreeMap<u64, Vec<Box<[u8]>>>,
    pub faults: Faults,
    counters: Counters,
}

impl<M: Medium> VolatileStore<M> {
    /// A disk of `sectors` sectors, all durable, on `medium`.
    pub fn new(medium: M, sectors: u64) -> Self {
        Self {
            medium,
            sectors,
            unflushed: BTreeMap::new(),
            faults: Faults::default(),
            counters: Counters::default(),
        }
    }

    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    pub fn medium(&self) -> &M {
        &self.medium
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// For each sector with unflushed writes: how many versions it has beside the durable one.
    pub fn unflushed(&self) -> impl Iterator<Item = (u64, usize)> {
        self.unflushed.iter().map(|(&sector, versions)| (sector, versions.len()))
    }

    /// Reads what was written last, durable or not.
    pub fn read(&mut self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = self.range(buf.len(), offset)?;
        self.counters.reads += 1;
        if self.faults.bad_reads.first_in(&range).is_some() {
            self.counters.read_errors += 1;
            return Err(eio());
        }
        self.medium.read_at(buf, offset)?;
        for (&sector, versions) in self.unflushed.range(range.clone()) {
            if let Some(latest) = versions.last() {
                let start = (sector - range.start) as usize * SECTOR;
                buf[start..start + SECTOR].copy_from_slice(latest);
            }
        }
        Ok(())
    }

    /// Writes to the cache; with `fua`, to the medium, where it replaces every older version.
    /// A FUA write whose durability fails is left in the cache, as an unacknowledged write may be.
    pub fn write(&mut self, buf: &[u8], offset: u64, fua: bool) -> io::Result<()> {
        let range = self.range(buf.len(), offset)?;
        self.counters.writes += 1;
        self.counters.fua += u64::from(fua);
        let bad = self.faults.bad_writes.first_in(&range);
        for (sector, content) in
            (range.start..bad.unwrap_or(range.end)).zip(buf.chunks_exact(SECTOR))
        {
            self.unflushed.entry(sector).or_default().push(content.into());
        }
        if bad.is_some() {
            self.counters.write_errors += 1;
            return Err(eio());
        }
        if fua { self.make_durable(range) } else { Ok(()) }
    }

    /// Makes every write acknowledged so far durable.
    pub fn flush(&mut self) -> io::Result<()> {
        self.counters.flushes += 1;
        self.make_durable(0..self.sectors)
    }

    /// Power is lost: the sector keeps its first `kept` unflushed versions, and of these the last becomes durable.
    pub(super) fn settle(&mut self, sector: u64, kept: usize) -> io::Result<()> {
        match self
            .unflushed
            .remove(&sector)
            .as_ref()
            .and_then(|versions| versions.get(kept.checked_sub(1)?))
        {
            Some(content) => self.medium.write_at(content, sector * SECTOR as u64),
            None => Ok(()),
        }
    }

    fn make_durable(&mut self, range: Range<u64>) -> io::Result<()> {
        if self.faults.failing_flushes > 0 {
            self.faults.failing_flushes -= 1;
            self.counters.flush_errors += 1;
            if self.faults.losing_flush {
                self.unflushed.retain(|sector, _| !range.contains(sector));
            }
            return Err(eio());
        }
        if self.faults.lying_flush {
            return Ok(());
        }
        let dirty: Vec<_> = self
            .unflushed
            .range(range)
            .map(|(&sector, versions)| (sector, versions.len()))
            .collect();
        dirty.into_iter().try_for_each(|(sector, versions)| self.settle(sector, versions))
    }

    fn range(&self, len: usize, offset: u64) -> io::Result<Range<u64>> {
        let (len, unit) = (len as u64, SECTOR as u64);
        let end = offset.checked_add(len).filter(|end| *end <= self.sectors * unit);
        match end {
            Some(end) if offset % unit == 0 && len % unit == 0 => Ok(offset / unit..end / unit),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{len} bytes at byte {offset}: not whole sectors of a disk of {} sectors",
                    self.sectors
                ),
            )),
        }
    }
}

fn eio() -> io::Error {
    rustix::io::Errno::IO.into()
}
