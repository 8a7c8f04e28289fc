//! A block device without the page cache in between.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aligned_vec::{AVec, RuntimeAlign};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::config::resolve::DevNo;
use crate::units::{SECTOR_SIZE, Sectors, Slot};

/// The most that one system call moves; what is longer is cut.
const CHUNK: usize = 1 << 20;

/// How long another one may have the lock.
const LOCK: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// Fails with EBUSY while anything else uses the device, a mapped device included.
    WriteExclusive,
}

/// Reads and writes go to the device itself and wait for it. Buffers need no alignment: they are
/// copied through an aligned one that is allocated at the start.
///
/// An image file will do in place of a device; it has blocks of 512 bytes, 4096 physical.
#[derive(Debug)]
pub struct BlockDevice {
    file: File,
    number: Option<DevNo>,
    size: u64,
    logical: u32,
    physical: u32,
    scratch: AVec<u8, RuntimeAlign>,
}

impl BlockDevice {
    pub fn open(path: &Path, access: Access) -> io::Result<BlockDevice> {
        let found = std::fs::metadata(path)?;
        let block = found.file_type().is_block_device();
        if !block && !found.is_file() {
            return Err(io::Error::other("it is neither a block device nor an image file"));
        }
        let number = block.then(|| DevNo::from_rdev(found.rdev()));
        // Where there is no devtmpfs, the name that was given has to do.
        let node = number.and_then(|number| super::node::of(number).ok());
        let mut flags = OFlags::CLOEXEC;
        if block {
            flags |= OFlags::DIRECT;
        }
        if block && access == Access::WriteExclusive {
            flags |= OFlags::EXCL;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(access != Access::Read)
            .custom_flags(flags.bits() as i32)
            .open(node.as_deref().unwrap_or(path))?;
        let size = file.seek(SeekFrom::End(0))?;
        let (logical, physical) = match block {
            true => (rustix::fs::ioctl_blksszget(&file)?, rustix::fs::ioctl_blkpbszget(&file)?),
            false => (512, 4096),
        };
        let physical = physical.max(logical);
        // A page at least: some drivers ask more of memory than of positions.
        let mut scratch = AVec::with_capacity(physical.max(4096) as usize, CHUNK);
        scratch.resize(CHUNK, 0);
        Ok(BlockDevice { file, number, size, logical, physical, scratch })
    }

    /// None: an image file.
    pub fn number(&self) -> Option<DevNo> {
        self.number
    }

    /// Whole sectors.
    pub fn size(&self) -> Sectors {
        Sectors(self.size / SECTOR_SIZE)
    }

    /// The smallest unit of I/O, in bytes.
    pub fn logical_block(&self) -> u32 {
        self.logical
    }

    /// The unit that the device writes without touching its neighbours, in bytes.
    pub fn physical_block(&self) -> u32 {
        self.physical
    }

    /// Held until the device is closed, which ends with the process. EWOULDBLOCK: another one has
    /// it, and not only for the moment that udev takes to look at a device.
    pub fn lock(&self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK => sleep(LOCK / 20),
                done => return Ok(done?),
            }
        }
    }

    /// Position and length are in bytes and multiples of the logical block.
    pub fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut at = at;
        for part in buf.chunks_mut(CHUNK) {
            let scratch = &mut self.scratch[..part.len()];
            self.file.read_exact_at(scratch, at)?;
            part.copy_from_slice(scratch);
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Likewise. It may sit in the device's cache until [`BlockDevice::flush`].
    pub fn write_at(&mut self, at: u64, buf: &[u8]) -> io::Result<()> {
        let mut at = at;
        for part in buf.chunks(CHUNK) {
            let scratch = &mut self.scratch[..part.len()];
            scratch.copy_from_slice(part);
            self.file.write_all_at(scratch, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// What was written before is durable, unless an earlier flush failed.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl crate::metadata::Disk for BlockDevice {
    fn size(&self) -> Sectors {
        self.size()
    }
    fn physical_block(&self) -> u64 {
        self.physical.into()
    }
    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        self.read_at(at.bytes(), buf)
    }
    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        self.write_at(at.bytes(), buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        BlockDevice::flush(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(len: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(len).expect("its length");
        file
    }

    #[test]
    fn what_was_written_is_read_across_chunks() {
        let file = image(4 << 20);
        let mut disk = BlockDevice::open(file.path(), Access::Write).expect("opens");
        assert_eq!((disk.size(), disk.logical_block()), (Sectors(8192), 512));
        let written: Vec<u8> = (0..CHUNK * 2 + 4096).map(|i| (i / 512 % 251) as u8).collect();
        disk.write_at(512, &written).expect("written");
        disk.flush().expect("flushed");
        let mut read = vec![0; written.len()];
        disk.read_at(512, &mut read).expect("read");
        assert!(read == written);
    }

    #[test]
    fn beyond_the_end_is_an_error_and_a_reader_cannot_write() {
        let file = image(8192);
        let mut disk = BlockDevice::open(file.path(), Access::Read).expect("opens");
        assert!(disk.read_at(4096, &mut [0; 8192]).is_err());
        assert!(disk.write_at(0, &[0; 512]).is_err());
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let file = image(4096);
        let first = BlockDevice::open(file.path(), Access::Write).expect("opens");
        let second = BlockDevice::open(file.path(), Access::Write).expect("opens");
        first.lock().expect("the first lock");
        assert_eq!(second.lock().expect_err("held").kind(), io::ErrorKind::WouldBlock);
        drop(first);
        second.lock().expect("the lock is free again");
    }

    /// `format`, just after the disk was partitioned, said that a daemon had it.
    #[test]
    fn udev_looks_at_a_disk_under_a_shared_lock_for_a_moment_only() {
        let file = image(4096);
        let disk = BlockDevice::open(file.path(), Access::Write).expect("opens");
        let udev = File::open(file.path()).expect("opens");
        rustix::fs::flock(&udev, FlockOperation::LockShared).expect("locked");
        let looks = std::thread::spawn(move || {
            sleep(Duration::from_millis(50));
            drop(udev);
        });
        disk.lock().expect("locked, once udev has looked");
        looks.join().expect("no panic");
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let error = BlockDevice::open(Path::new("/dev/null"), Access::Read).expect_err("no disk");
        assert!(error.to_string().contains("neither"), "{error}");
    }
}
