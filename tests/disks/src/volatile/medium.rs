use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What survives a power cut of the modelled disk. It need not be durable on the host: the host does not crash.
pub trait Medium {
    /// Fills `buf` from the byte `offset` on.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Stores `buf` at the byte `offset`.
    fn write_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()>;
}

impl Medium for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(buf, offset)
    }
}

impl Medium for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = range(self.len(), offset, buf.len())?;
        buf.copy_from_slice(&self[range]);
        Ok(())
    }

    fn write_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        let range = range(self.len(), offset, buf.len())?;
        self[range].copy_from_slice(buf);
        Ok(())
    }
}

fn range(size: usize, offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    usize::try_from(offset)
        .ok()
        .and_then(|start| Some(start..start.checked_add(len)?))
        .filter(|range| range.end <= size)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
