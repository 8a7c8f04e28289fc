//! The header that every metadata block begins with. It says what the block is, whose, and where
//! it belongs, so that stale, foreign and misplaced blocks are never taken for good ones.

use super::uuid::Uuid;
use crate::units::Slot;

/// Bytes before a block's own content.
pub(super) const HEADER: usize = 80;
/// Counters at or above this are refused: no clock-free counter gets there.
pub(super) const LIMIT: u64 = 1 << 63;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Superblock,
    Record,
    Checkpoint,
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Superblock => b"dmremapS",
            Kind::Record => b"dmremapL",
            Kind::Checkpoint => b"dmremapC",
        }
    }
}

/// One formatting of one spare: the nonce tells it from an earlier one under the same label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub uuid: Uuid,
    pub nonce: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub label: Label,
    pub epoch: u64,
    /// Superblock: reached by the log; record: its own; checkpoint: the last one included.
    pub sequence: u64,
    /// The superblock that a superblock is, a record was written under, a checkpoint is for.
    pub superblock: u64,
    pub sector: Slot,
    /// Entries that follow.
    pub count: u32,
    /// Record: its position in the log; checkpoint: the checkpoint's number.
    pub ordinal: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("holds something else")]
    Blank,
    #[error("has a wrong checksum")]
    Checksum,
    #[error("was written for sector {0}")]
    Misplaced(Slot),
    #[error("holds an impossible value: {0}")]
    Value(String),
}

impl Header {
    /// Writes the header into a block whose content is in place.
    pub fn seal(&self, block: &mut [u8]) {
        block[..8].copy_from_slice(self.kind.magic());
        put32(block, 12, self.count);
        block[16..32].copy_from_slice(&self.label.uuid.0);
        let words = [self.label.nonce, self.epoch, self.sequence, self.superblock];
        for (i, word) in words.into_iter().chain([self.sector.0, self.ordinal]).enumerate() {
            put64(block, 32 + 8 * i, word);
        }
        let sum = checksum(block);
        put32(block, 8, sum);
    }

    /// Reads the header of a block that was found at `sector`. The block holds a header at least.
    pub fn open(kind: Kind, sector: Slot, block: &[u8]) -> Result<Header, Damage> {
        if block.len() < HEADER || &block[..8] != kind.magic() {
            return Err(Damage::Blank);
        }
        if get32(block, 8) != checksum(block) {
            return Err(Damage::Checksum);
        }
        let header = Header {
            kind,
            label: Label { uuid: Uuid(get16(block, 16)), nonce: get64(block, 32) },
            epoch: get64(block, 40),
            sequence: get64(block, 48),
            superblock: get64(block, 56),
            sector: Slot(get64(block, 64)),
            count: get32(block, 12),
            ordinal: get64(block, 72),
        };
        if header.sector != sector {
            return Err(Damage::Misplaced(header.sector));
        }
        let counters = [header.epoch, header.sequence, header.superblock, header.ordinal];
        if counters.into_iter().any(|n| n >= LIMIT) {
            return Err(Damage::Value("a counter of 2^63 or more".into()));
        }
        Ok(header)
    }
}

/// CRC-32 of the whole block, its own field taken as zero.
fn checksum(block: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&block[..8]);
    crc.update(&[0; 4]);
    crc.update(&block[12..]);
    crc.finalize()
}

pub(super) fn put32(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put64(block: &mut [u8], at: usize, value: u64) {
    block[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| block[at + i])
}

pub(super) fn get16(block: &[u8], at: usize) -> [u8; 16] {
    get(block, at)
}

pub(super) fn get32(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(block, at))
}

pub(super) fn get64(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(block, at))
}
