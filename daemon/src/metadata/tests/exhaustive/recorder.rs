//! A disk that records what is done to it, and fails on request.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;

use super::image::{BLOCK, Block, Image, SECTORS};
use crate::metadata::Disk;
use crate::metadata::tests::SPARE;
use crate::units::{SECTOR_SIZE, Sectors, Slot};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A write that failed may still have landed, or land later.
    Write {
        block: u64,
        content: Vec<Block>,
        failed: bool,
    },
    Flush,
    FailedFlush,
}

#[derive(Debug, Clone, Default)]
pub struct Recorder {
    pub image: Image,
    pub ops: Vec<Op>,
    /// Blocks that cannot be read; a write that succeeds makes one readable.
    pub bad_reads: BTreeSet<u64>,
    pub bad_writes: BTreeSet<u64>,
    /// Whether each of the flushes to come succeeds; those after them do.
    pub flushes: VecDeque<bool>,
}

impl Recorder {
    pub fn on(image: Image) -> Recorder {
        Recorder { image, ..Recorder::default() }
    }
}

impl Disk for Recorder {
    fn size(&self) -> Sectors {
        Sectors(SPARE)
    }

    fn physical_block(&self) -> u64 {
        BLOCK as u64
    }

    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        let range = blocks(at, buf.len());
        if self.bad_reads.range(range).next().is_some() {
            return Err(io::Error::other("a bad block"));
        }
        self.image.read(at, buf);
        Ok(())
    }

    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        let range = blocks(at, buf.len());
        let copy = |bytes: &[u8]| Rc::new(bytes.try_into().unwrap());
        let content: Vec<Block> = buf.chunks(BLOCK).map(copy).collect();
        let failed = self.bad_writes.range(range.clone()).next().is_some();
        if !failed {
            for (block, content) in range.clone().zip(&content) {
                self.bad_reads.remove(&block);
                self.image.put(block, content.clone());
            }
        }
        self.ops.push(Op::Write { block: range.start, content, failed });
        if failed { Err(io::Error::other("a bad block")) } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.flushes.pop_front().unwrap_or(true) {
            self.ops.push(Op::Flush);
            return Ok(());
        }
        self.ops.push(Op::FailedFlush);
        Err(io::Error::other("the flush failed"))
    }
}

fn blocks(at: Slot, len: usize) -> std::ops::Range<u64> {
    assert!(at.0.is_multiple_of(SECTORS) && len.is_multiple_of(BLOCK), "not whole blocks");
    let end = at.0 + len as u64 / SECTOR_SIZE;
    assert!(end <= SPARE, "beyond the end: sector {at}");
    at.0 / SECTORS..end / SECTORS
}
