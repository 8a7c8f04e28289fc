//! What a disk holds, cheap to copy: thousands of states differ in a few sectors.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;

use crate::units::{SECTOR_SIZE, Slot};

pub const SECTOR: usize = SECTOR_SIZE as usize;
pub const BLOCK: usize = 4096;
pub const SECTORS: u64 = (BLOCK / SECTOR) as u64;

pub type Block = Rc<[u8; BLOCK]>;

/// Blocks that were never written are absent, and read as zeros.
#[derive(Debug, Clone, Default)]
pub struct Image(BTreeMap<u64, Block>);

impl Image {
    pub fn read(&self, at: Slot, buf: &mut [u8]) {
        buf.fill(0);
        let first = at.0 / SECTORS;
        for (&block, content) in self.0.range(first..first + (buf.len() / BLOCK) as u64) {
            let from = (block - first) as usize * BLOCK;
            buf[from..from + BLOCK].copy_from_slice(&content[..]);
        }
    }

    pub fn block(&self, block: u64) -> Option<&Block> {
        self.0.get(&block)
    }

    pub fn put(&mut self, block: u64, content: Block) {
        self.0.insert(block, content);
    }

    pub fn forget(&mut self, block: u64) {
        self.0.remove(&block);
    }

    pub fn sector(&self, sector: u64) -> &[u8] {
        let from = (sector % SECTORS) as usize * SECTOR;
        let block = self.0.get(&(sector / SECTORS));
        block.map_or(&[0; SECTOR], |block| &block[from..from + SECTOR])
    }

    pub fn put_sector(&mut self, sector: u64, bytes: &[u8]) {
        let from = (sector % SECTORS) as usize * SECTOR;
        let block = self.0.entry(sector / SECTORS).or_insert_with(|| Rc::new([0; BLOCK]));
        Rc::make_mut(block)[from..from + SECTOR].copy_from_slice(bytes);
    }
}

/// An image is known by the sum of these over its sectors, so that a change costs only itself.
pub fn weight(sector: u64, bytes: &[u8]) -> u64 {
    if *bytes == [0; SECTOR] {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(sector);
    hasher.write(bytes);
    hasher.finish()
}
