//! What the kernel says of a disk in `/sys/dev/block`: how much I/O reached it, and the limits of its queue.

use std::fs;
use std::ops::Sub;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::stat::{major, minor};

/// Requests completed since the disk appeared. Device-mapper does not count what a target ends by itself, such as
/// everything that the error target is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub reads: u64,
    pub read_sectors: u64,
    pub writes: u64,
    pub write_sectors: u64,
    pub discards: u64,
    pub discard_sectors: u64,
    pub flushes: u64,
}

fn told(device: &Path, file: &str) -> Result<String> {
    let number = fs::metadata(device).with_context(|| device.display().to_string())?.rdev();
    let path = format!("/sys/dev/block/{}:{}/{file}", major(number), minor(number));
    fs::read_to_string(&path).context(path)
}

/// A limit of a disk's queue, such as `physical_block_size`.
pub fn limit(device: &Path, name: &str) -> Result<u64> {
    let text = told(device, &format!("queue/{name}"))?;
    text.trim().parse().with_context(|| format!("{name} is {text}"))
}

impl Stat {
    /// Of a disk, by its path in `/dev`.
    pub fn of(device: &Path) -> Result<Self> {
        let text = told(device, "stat")?;
        Self::parse(&text).with_context(|| format!("{}: {text}", device.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        Some(Self {
            reads: *fields.first()?,
            read_sectors: *fields.get(2)?,
            writes: *fields.get(4)?,
            write_sectors: *fields.get(6)?,
            discards: *fields.get(11)?,
            discard_sectors: *fields.get(13)?,
            flushes: *fields.get(15)?,
        })
    }
}

impl Sub for Stat {
    type Output = Stat;

    fn sub(self, before: Stat) -> Stat {
        Stat {
            reads: self.reads - before.reads,
            read_sectors: self.read_sectors - before.read_sectors,
            writes: self.writes - before.writes,
            write_sectors: self.write_sectors - before.write_sectors,
            discards: self.discards - before.discards,
            discard_sectors: self.discard_sectors - before.discard_sectors,
            flushes: self.flushes - before.flushes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_kernel_documents_them() {
        let line = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n";
        let stat = Stat::parse(line);
        let expected = Stat {
            reads: 1,
            read_sectors: 3,
            writes: 5,
            write_sectors: 7,
            discards: 12,
            discard_sectors: 14,
            flushes: 16,
        };
        assert_eq!(stat, Some(expected));
        assert_eq!(Stat::parse("1 2 3"), None);
    }
}
