//! What an application asked for, the bios that it became, and what is on its way to a disk.

use crate::script::Which;

/// `blk_status_t`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sts {
    Ok,
    Medium,
    Io,
    Other,
    Requeue,
}

/// Why an I/O failed: the oracle asks whether the script justifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    None,
    /// Its device's own error, which is not one of the medium.
    Class,
    Poison,
    /// A FAIL verdict.
    Failed,
    Expired,
    Unowned,
    Bound,
    Flush,
    Ahead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoKind {
    Read,
    Write,
    Flush,
}

/// A part of an I/O that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    pub start: u64,
    pub len: u64,
    pub status: Sts,
    pub why: Why,
}

/// An application's read, write or flush.
#[derive(Debug)]
pub struct Io {
    pub id: u64,
    pub kind: IoKind,
    pub start: u64,
    pub len: u64,
    pub fua: bool,
    pub ahead: bool,
    pub submitted: u64,
    /// Bios that have not ended.
    pub left: u32,
    /// In the order in which they did; the first one's status is the I/O's.
    pub failures: Vec<Failure>,
    /// What a read found: sector and content.
    pub found: Vec<(u64, u64)>,
}

impl Io {
    pub fn status(&self) -> Sts {
        self.failures.first().map_or(Sts::Ok, |failure| failure.status)
    }
}

/// Why a bio came to the worker, or must; the graver ones last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    None,
    /// A write goes again, or is flushed behind.
    Redo,
    Park,
    Heal,
    Fault,
    OpDone,
}

#[derive(Debug)]
pub struct Bio {
    pub io: usize,
    pub kind: IoKind,
    pub start: u64,
    pub len: u64,
    pub fua: bool,
    pub ahead: bool,
    pub tag: u64,
    pub generation: u64,
    /// Flushes of each disk that had failed when it was sent.
    pub fails: [u64; 2],
    /// Disks to flush, before it ends.
    pub owes: [bool; 2],
    /// A write that does nothing but that any more.
    pub flushing: bool,
    pub dest: Which,
    pub dest_sector: u64,
    pub held: bool,
    /// By a disk, before it was held.
    pub taken: bool,
    pub deadline: u64,
    pub reason: Reason,
    pub next: Reason,
    pub error: Sts,
    pub status: Sts,
    pub pending: u32,
    pub why: Why,
    pub fault: Option<u64>,
    pub found: Vec<(u64, u64)>,
}

impl Bio {
    pub fn is_flush(&self) -> bool {
        self.kind == IoKind::Flush || self.flushing
    }
}

/// Who is told when it is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// The bio itself.
    Own,
    /// A clone, of a piece of a TRY or PLACE perhaps.
    Clone { piece: Option<usize> },
}

/// Something on its way to a disk.
#[derive(Debug)]
pub struct Flight {
    pub bio: usize,
    pub trip: Trip,
    pub kind: IoKind,
    pub dest: Which,
    pub sector: u64,
    pub start: u64,
    pub len: u64,
    pub tag: u64,
    pub fua: bool,
    pub generation: u64,
    /// Its effect came before its answer.
    pub done: Option<Sts>,
    pub found: Vec<(u64, u64)>,
}

/// Things with numbers, which are used again.
#[derive(Debug)]
pub struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn add(&mut self, item: T) -> usize {
        match self.free.pop() {
            Some(at) => {
                self.items[at] = Some(item);
                at
            }
            None => {
                self.items.push(Some(item));
                self.items.len() - 1
            }
        }
    }

    pub fn take(&mut self, at: usize) -> Option<T> {
        let item = self.items.get_mut(at)?.take()?;
        self.free.push(at);
        Some(item)
    }

    pub fn get(&mut self, at: usize) -> Option<&mut T> {
        self.items.get_mut(at)?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().flatten()
    }

    pub fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// All numbers that were ever in use are below.
    pub fn slots(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> std::ops::Index<usize> for Slab<T> {
    type Output = T;
    #[allow(clippy::expect_used)]
    fn index(&self, at: usize) -> &T {
        self.items[at].as_ref().expect("a live number")
    }
}

impl<T> std::ops::IndexMut<usize> for Slab<T> {
    #[allow(clippy::expect_used)]
    fn index_mut(&mut self, at: usize) -> &mut T {
        self.items[at].as_mut().expect("a live number")
    }
}
