//! The seam to the spare: what the metadata needs of a disk, and nothing more.

use std::io;

use super::error::Error;
use crate::units::{SECTOR_SIZE, Sectors, Slot};

/// The smallest block that metadata is written in: a smaller write could disturb a neighbour.
pub const MIN_BLOCK: u64 = 4096;
/// The largest: the superblock copies at sectors 0 and 1024 must not share one.
pub const MAX_BLOCK: u64 = 512 * 1024;

/// A disk as the metadata sees it. Every read and write begins at, and spans, whole blocks of the
/// format's unit, which is a multiple of the physical block; buffers have no particular alignment,
/// so an O_DIRECT implementation copies. A write that returned may sit in a volatile cache until
/// a flush that began later has succeeded. After a failed flush, whatever was written since the
/// last good one may be lost, even if a later flush succeeds.
pub trait Disk {
    fn size(&self) -> Sectors;
    /// In bytes.
    fn physical_block(&self) -> u64;
    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()>;
    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

impl<D: Disk + ?Sized> Disk for &mut D {
    fn size(&self) -> Sectors {
        (**self).size()
    }
    fn physical_block(&self) -> u64 {
        (**self).physical_block()
    }
    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        (**self).read(at, buf)
    }
    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        (**self).write(at, buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
}

/// The unit a spare is formatted in: its physical block, at least 4096 bytes.
pub(super) fn unit(disk: &impl Disk) -> Result<Sectors, Error> {
    let bytes = disk.physical_block().max(MIN_BLOCK);
    if !bytes.is_power_of_two() || bytes > MAX_BLOCK {
        return Err(Error::PhysicalBlock { bytes });
    }
    Ok(Sectors(bytes / SECTOR_SIZE))
}

/// Reads `count` blocks of `unit` and hands each to `each` with its index. Reads many at once, and
/// one by one where that fails, so that one bad block costs only itself.
pub(super) fn read_blocks<D: Disk>(
    disk: &mut D,
    at: Slot,
    count: u32,
    unit: Sectors,
    mut each: impl FnMut(u32, Result<&[u8], io::Error>),
) {
    let size = unit.bytes() as usize;
    let batch = (BATCH / size).max(1) as u32;
    let mut buf = vec![0; size * batch.min(count) as usize];
    let mut first = 0;
    while first < count {
        let n = batch.min(count - first);
        let many = &mut buf[..size * n as usize];
        if disk.read(block_at(at, first, unit), many).is_ok() {
            for (i, block) in (first..).zip(many.chunks(size)) {
                each(i, Ok(block));
            }
        } else {
            let one = &mut buf[..size];
            for i in first..first + n {
                let done = disk.read(block_at(at, i, unit), one);
                each(i, done.map(|()| &*one));
            }
        }
        first += n;
    }
}

/// Bytes of one transfer of a checkpoint or a log scan.
pub(super) const BATCH: usize = 1 << 20;

pub(super) fn block_at(at: Slot, index: u32, unit: Sectors) -> Slot {
    at + Sectors(u64::from(index) * unit.0)
}
