//! A disk that somebody else flushes too: the kernel does, for those who use the mapped device.
//!
//! A flush that fails may lose whatever the disk had not written by then, whoever wrote it, and the next one
//! succeeds all the same. Nobody but its sender is told, so one of ours that succeeds proves nothing
//! until it is known that none of theirs failed meanwhile.

use std::io;

use super::device::Disk;
use crate::units::{Sectors, Slot};

/// An answer can be lost; that many in a row are not.
const ASKS: u32 = 3;

/// Failed flushes of one sender, who counts them from its own beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    pub sender: u32,
    pub count: u64,
}

/// The other sender of flushes to a disk.
pub trait Flusher {
    /// Includes every failure of a flush that had ended; none if nobody else has the disk.
    fn failures(&mut self) -> io::Result<Option<Failures>>;
}

/// A flush succeeded, and what it was to cover may yet be lost.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    #[error("another flush of it has failed meanwhile")]
    Failed,
    #[error("whether another flush of it has failed meanwhile cannot be told: {0}")]
    Unknown(io::Error),
}

impl Doubt {
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|error| error.is::<Doubt>())
    }
}

pub struct Shared<D, F> {
    pub(super) disk: D,
    other: F,
    /// As of the last flush of ours that the disk took.
    seen: Option<Failures>,
}

impl<D: Disk, F: Flusher> Shared<D, F> {
    /// Nothing has been written to the disk yet that is to be flushed through it.
    pub fn new(disk: D, mut other: F) -> io::Result<Shared<D, F>> {
        let seen = ask(&mut other)?;
        Ok(Shared { disk, other, seen })
    }
}

fn ask(other: &mut impl Flusher) -> io::Result<Option<Failures>> {
    let mut answer = other.failures();
    for _ in 1..ASKS {
        answer = answer.or_else(|_| other.failures());
    }
    answer
}

impl<D: Disk, F: Flusher> Disk for Shared<D, F> {
    fn size(&self) -> Sectors {
        self.disk.size()
    }
    fn physical_block(&self) -> u64 {
        self.disk.physical_block()
    }
    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read(at, buf)
    }
    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        self.disk.write(at, buf)
    }

    /// Fails with a [`Doubt`] if somebody else's failed since the one before.
    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()?;
        let now = ask(&mut self.other).map_err(|e| io::Error::other(Doubt::Unknown(e)))?;
        let before = std::mem::replace(&mut self.seen, now);
        let begun = before.is_none() && now.is_some_and(|now| now.count == 0);
        // The last failures of a sender that is gone are not known.
        if now == before || begun { Ok(()) } else { Err(io::Error::other(Doubt::Failed)) }
    }
}
