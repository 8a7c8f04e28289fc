//! A disk that somebody else flushes too: the kernel does, for those who use the mapped device.
//!
//! A flush that fails may lose whatever the disk had not written by then, whoever wrote it, and the next one
//! succeeds all the same. Nobody but its sender is told: we tell of ours, and one of ours that succeeds proves nothing
//! until it is known that none of theirs failed meanwhile.

use std::io;

use super::device::Disk;
use crate::units::{Sectors, Slot};

/// An answer can be lost; that many in a row are not.
const ASKS: u32 = 3;

/// Failed flushes of one sender, who counts them from its own beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// Its family and its instance: nobody else has both, before or after.
    pub sender: (u16, u32),
    pub count: u64,
}

/// The other sender of flushes to a disk.
pub trait Flusher {
    /// Includes every failure of a flush that had ended; none if nobody else has the disk.
    fn failures(&mut self) -> io::Result<Option<Failures>>;
    /// One of ours has failed, and may have lost what its own was to cover. It must hear of it before anybody else is
    /// told that something is durable.
    fn failed(&mut self) -> io::Result<()>;
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
    /// One of ours has failed, and the other does not know.
    untold: bool,
}

impl<D: Disk, F: Flusher> Shared<D, F> {
    /// Nothing has been written to the disk yet that is to be flushed through it.
    pub fn new(disk: D, mut other: F) -> io::Result<Shared<D, F>> {
        let seen = asked(|| other.failures())?;
        Ok(Shared { disk, other, seen, untold: false })
    }
}

fn asked<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut answer = ask();
    for _ in 1..ASKS {
        answer = answer.or_else(|_| ask());
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
        let flushed = self.disk.flush();
        self.untold |= flushed.is_err();
        if self.untold {
            self.untold = asked(|| self.other.failed())
                .inspect_err(|e| tracing::error!("the kernel is not told of a failed flush: {e}"))
                .is_err();
        }
        flushed?;
        let unknown = |e| io::Error::other(Doubt::Unknown(e));
        let now = asked(|| self.other.failures()).map_err(unknown)?;
        let before = std::mem::replace(&mut self.seen, now);
        let begun = before.is_none() && now.is_some_and(|now| now.count == 0);
        // The last failures of a sender that is gone are not known.
        if now == before || begun { Ok(()) } else { Err(io::Error::other(Doubt::Failed)) }
    }
}
