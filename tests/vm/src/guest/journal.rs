//! Lines that outlive the guest, on a raw disk: a line is in the host's hands when [`Journal::line`] returns, in
//! less time than over the serial port. Each region of the disk is a sequence of its own.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Disk;
use super::disk::SECTOR;

/// Sectors of a region.
const REGION: u64 = 4096;

/// The regions a disk of `mib` MiB has.
#[must_use]
pub const fn regions(mib: u64) -> u64 {
    mib * 2048 / REGION
}

/// The next line goes to the first sector that has none.
pub struct Journal {
    disk: Disk,
    next: u64,
    end: u64,
}

impl Journal {
    /// The region must be unused.
    pub fn open(disk: &Path, region: u64) -> Result<Self> {
        Self::in_sectors(disk, region * REGION..(region + 1) * REGION)
    }

    /// In unused sectors of the disk.
    pub fn in_sectors(disk: &Path, sectors: Range<u64>) -> Result<Self> {
        Ok(Self { disk: Disk::open(disk)?, next: sectors.start, end: sectors.end })
    }

    /// Begins on a sector of its own, so that no write touches what is there already.
    pub fn line(&mut self, text: &str) -> Result<()> {
        let mut bytes = format!("{text}\n").into_bytes();
        bytes.resize(bytes.len().next_multiple_of(SECTOR), b'\n');
        let sectors = (bytes.len() / SECTOR) as u64;
        ensure!(self.next + sectors <= self.end, "the journal's region is full");
        self.disk.write(self.next, &bytes).context("writing to the journal")?;
        self.next += sectors;
        Ok(())
    }
}

/// The host's side: the lines of a region, by the disk's image.
pub fn lines(image: &Path, region: u64) -> Result<Vec<String>> {
    lines_in(image, region * REGION..(region + 1) * REGION)
}

/// Those in sectors of the disk.
pub fn lines_in(image: &Path, sectors: Range<u64>) -> Result<Vec<String>> {
    let mut bytes = vec![0; (sectors.end - sectors.start) as usize * SECTOR];
    let file = File::open(image).with_context(|| image.display().to_string())?;
    file.read_exact_at(&mut bytes, sectors.start * SECTOR as u64)
        .with_context(|| image.display().to_string())?;
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).context("the journal")?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(String::from).collect())
}
