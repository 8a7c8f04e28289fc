//! Direct I/O in sectors of 512 bytes.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};

use super::pattern;

/// Bytes in a sector.
pub const SECTOR: usize = 512;
/// Alignment of buffers: enough for every disk a guest has.
const ALIGN: usize = 4096;

/// A block device opened with `O_DIRECT`.
pub struct Disk {
    path: PathBuf,
    file: File,
}

/// Zeroed memory fit for direct I/O.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, start, len }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// A short transfer is an error.
fn whole(bytes: usize, sectors: usize) -> io::Result<()> {
    if bytes == sectors * SECTOR { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl Disk {
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), libc::O_DIRECT)
    }

    /// Each write waits until it is durable, which the kernel does by FUA or by a flush after it.
    pub fn open_durable(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), libc::O_DIRECT | libc::O_DSYNC)
    }

    fn open_with(path: &Path, flags: i32) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path: path.into(), file })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in sectors.
    pub fn sectors(&self) -> Result<u64> {
        let bytes = super::run(&["blockdev", "--getsize64", &self.path.display().to_string()])?;
        Ok(bytes.trim().parse::<u64>()? / SECTOR as u64)
    }

    /// One read; a short one is an error.
    pub fn read(&self, sector: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut buffer = Buffer::new(count * SECTOR);
        self.file.read_exact_at(buffer.get(), sector * SECTOR as u64)?;
        Ok(buffer.get().to_vec())
    }

    /// One write of whole sectors.
    pub fn write(&self, sector: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = Buffer::new(bytes.len());
        buffer.get().copy_from_slice(bytes);
        self.file.write_all_at(buffer.get(), sector * SECTOR as u64)
    }

    /// One read that may not wait (`RWF_NOWAIT`).
    pub fn read_at_once(&self, sector: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut buffer = Buffer::new(count * SECTOR);
        let into = &mut [IoSliceMut::new(buffer.get())];
        let read = preadv2(&self.file, into, sector * SECTOR as u64, ReadWriteFlags::NOWAIT)?;
        whole(read, count)?;
        Ok(buffer.get().to_vec())
    }

    /// One write that may not wait.
    pub fn write_at_once(&self, sector: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = Buffer::new(bytes.len());
        buffer.get().copy_from_slice(bytes);
        let from = &[IoSlice::new(buffer.get())];
        let written = pwritev2(&self.file, from, sector * SECTOR as u64, ReadWriteFlags::NOWAIT)?;
        whole(written, bytes.len() / SECTOR)
    }

    /// Expects a write and a read that may not wait to fail with these.
    pub fn fail_at_once(&self, sector: u64, count: usize, errors: [i32; 2]) -> Result<()> {
        let bytes = pattern::sectors(sector, count, u64::MAX);
        let written = self.write_at_once(sector, &bytes);
        self.fails("write that may not wait", sector, errors[0], written)?;
        let read = self.read_at_once(sector, count).map(drop);
        self.fails("read that may not wait", sector, errors[1], read)
    }

    /// Sends a flush down.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Writes `count` sectors that carry their own numbers and `version`, in one request.
    pub fn fill(&self, sector: u64, count: usize, version: u64) -> Result<()> {
        self.write(sector, &pattern::sectors(sector, count, version)).with_context(|| {
            format!("writing {count} sectors at {sector} of {}", self.path.display())
        })
    }

    /// Reads in one request and expects what [`Disk::fill`] wrote.
    pub fn verify(&self, sector: u64, count: usize, version: u64) -> Result<()> {
        let what = || format!("reading {count} sectors at {sector} of {}", self.path.display());
        let bytes = self.read(sector, count).with_context(what)?;
        pattern::check(&bytes, sector, version).with_context(what)
    }

    /// Expects a read to fail with `errno`.
    pub fn read_fails(&self, sector: u64, count: usize, errno: i32) -> Result<()> {
        self.fails("read", sector, errno, self.read(sector, count).map(|_| ()))
    }

    /// Expects a write to fail with `errno`.
    pub fn write_fails(&self, sector: u64, count: usize, errno: i32) -> Result<()> {
        let bytes = pattern::sectors(sector, count, u64::MAX);
        self.fails("write", sector, errno, self.write(sector, &bytes))
    }

    fn fails(&self, what: &str, sector: u64, errno: i32, done: io::Result<()>) -> Result<()> {
        let place = format!("{what} at sector {sector} of {}", self.path.display());
        match done {
            Ok(()) => bail!("{place}: succeeded, and should not"),
            Err(error) => {
                let expected = io::Error::from_raw_os_error(errno);
                ensure!(
                    error.raw_os_error() == Some(errno),
                    "{place}: {error}, and should be {expected}"
                );
                Ok(())
            }
        }
    }
}
