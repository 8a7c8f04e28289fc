//! A disk in memory, cheap to copy.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use dmremap_policyd::metadata::Disk;
use dmremap_policyd::units::{Sectors, Slot};

pub const BLOCK: usize = 4096;
pub const SECTORS: u64 = 8;
pub type Block = [u8; BLOCK];

/// Blocks that were never written are absent.
#[derive(Clone)]
pub struct RamDisk {
    size: Sectors,
    blocks: BTreeMap<u64, Arc<Block>>,
    pub unreadable: BTreeSet<u64>,
}

impl RamDisk {
    pub fn new(sectors: u64) -> RamDisk {
        RamDisk { size: Sectors(sectors), blocks: BTreeMap::new(), unreadable: BTreeSet::new() }
    }

    /// By the number of the block.
    pub fn block(&self, number: u64) -> Block {
        self.blocks.get(&number).map_or([0; BLOCK], |block| **block)
    }

    pub fn put(&mut self, number: u64, block: Block) {
        self.blocks.insert(number, Arc::new(block));
    }

    pub fn same(&self, other: &RamDisk) -> bool {
        self.blocks == other.blocks
    }

    /// The numbers of the blocks that a transfer covers, which the store must keep to.
    fn covered(&self, at: Slot, len: usize) -> io::Result<impl Iterator<Item = u64> + use<>> {
        assert!(at.0 % SECTORS == 0 && len % BLOCK == 0, "not whole blocks: {at}, {len} bytes");
        let first = at.0 / SECTORS;
        let count = (len / BLOCK) as u64;
        match first.checked_add(count) {
            Some(end) if end * SECTORS <= self.size.0 => Ok(first..end),
            _ => Err(io::Error::other("past the end of the disk")),
        }
    }
}

impl Disk for RamDisk {
    fn size(&self) -> Sectors {
        self.size
    }

    fn physical_block(&self) -> u64 {
        BLOCK as u64
    }

    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        for (number, chunk) in self.covered(at, buf.len())?.zip(buf.chunks_mut(BLOCK)) {
            if self.unreadable.contains(&number) {
                return Err(io::Error::from_raw_os_error(61));
            }
            chunk.copy_from_slice(&self.block(number));
        }
        Ok(())
    }

    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        for (number, chunk) in self.covered(at, buf.len())?.zip(buf.chunks(BLOCK)) {
            self.unreadable.remove(&number);
            self.put(number, chunk.try_into().unwrap());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
