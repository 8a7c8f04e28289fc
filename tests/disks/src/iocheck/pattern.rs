//! What the workload writes: each sector tells which sector it is and which write it came from.
//!
//! ```text
//! 0    8  magic
//! 8    8  sector it was written to, little-endian
//! 16   8  id of the write, never 0, little-endian
//! 24 484  filler that depends on both
//! 508  4  CRC32 of all before, little-endian
//! ```

use std::fmt;
use std::str::FromStr;

use crate::SECTOR;

const MAGIC: &[u8; 8] = b"dmr-io\0\x01";
const CRC: usize = SECTOR - 4;

/// What a sector was found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// What the write of this id put there; 0 is the zeroes of a disk never written to.
    Write(u64),
    /// What write `id` put at another sector.
    Misplaced { sector: u64, id: u64 },
    /// Bytes no workload writes, of which these are the first eight.
    Foreign([u8; 8]),
}

/// Fills `sector_bytes` (512) as write `id` of `sector`.
pub fn fill(sector_bytes: &mut [u8], sector: u64, id: u64) {
    let (body, crc) = sector_bytes.split_at_mut(CRC);
    fastrand::Rng::with_seed(sector.rotate_left(32) ^ id).fill(body);
    body[..8].copy_from_slice(MAGIC);
    body[8..16].copy_from_slice(&sector.to_le_bytes());
    body[16..24].copy_from_slice(&id.to_le_bytes());
    crc.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
}

/// Tells what the 512 bytes found at `sector` are.
pub fn identify(sector_bytes: &[u8], sector: u64) -> Content {
    if sector_bytes.iter().all(|byte| *byte == 0) {
        return Content::Write(0);
    }
    let number = |at: usize| (0..8).rev().fold(0, |n, i| n << 8 | u64::from(sector_bytes[at + i]));
    let (from, id) = (number(8), number(16));
    let mut expected = [0; SECTOR];
    fill(&mut expected, from, id);
    match sector_bytes == expected {
        true if from == sector => Content::Write(id),
        true => Content::Misplaced { sector: from, id },
        false => Content::Foreign(number(0).to_le_bytes()),
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Content::Write(id) => write!(f, "{id}"),
            Content::Misplaced { sector, id } => write!(f, "{id}@{sector}"),
            Content::Foreign(start) => write!(f, "x{:016x}", u64::from_be_bytes(*start)),
        }
    }
}

impl FromStr for Content {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
        if let Some(hex) = text.strip_prefix('x') {
            let start =
                u64::from_str_radix(hex, 16).map_err(|_| format!("{hex:?} is not hexadecimal"))?;
            return Ok(Content::Foreign(start.to_be_bytes()));
        }
        match text.split_once('@') {
            Some((id, sector)) => {
                Ok(Content::Misplaced { sector: number(sector)?, id: number(id)? })
            }
            None => number(text).map(Content::Write),
        }
    }
}
