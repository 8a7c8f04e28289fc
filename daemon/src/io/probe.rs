//! Can it be read, and if not, whose fault is it?

use std::io;

use nix::libc;

use super::BlockDevice;

/// What can be read, at a position in bytes.
pub trait ReadAt {
    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for BlockDevice {
    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        BlockDevice::read_at(self, at, buf)
    }
}

/// What an error says about the medium (I8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The device says that the medium is bad.
    Medium,
    /// The device does not say why.
    Unspecific,
    /// Transport, a vanished device, our own mistake: says nothing of the medium.
    Other,
}

impl Class {
    /// As the block layer translates its own statuses into errno.
    pub fn of(error: &io::Error) -> Class {
        match error.raw_os_error() {
            Some(libc::ENODATA) => Class::Medium,
            Some(libc::EIO) => Class::Unspecific,
            _ => Class::Other,
        }
    }
}

/// Reads the range, in bytes and whole logical blocks, and again up to `retries` times while the
/// medium may be why it fails; ends with the last error.
pub fn read(disk: &mut impl ReadAt, at: u64, buf: &mut [u8], retries: u32) -> Result<(), Class> {
    try_again(retries, || disk.read_at(at, buf))
}

fn try_again(retries: u32, mut read: impl FnMut() -> io::Result<()>) -> Result<(), Class> {
    for left in (0..=retries).rev() {
        match read().map_err(|error| Class::of(&error)) {
            Ok(()) => return Ok(()),
            Err(Class::Medium | Class::Unspecific) if left > 0 => {}
            Err(class) => return Err(class),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each read with the next errno, 0 for success; returns the result and the reads.
    fn reads(retries: u32, errnos: &[i32]) -> (Result<(), Class>, usize) {
        let mut count = 0;
        let result = try_again(retries, || {
            count += 1;
            match errnos[count - 1] {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        });
        (result, count)
    }

    #[test]
    fn the_medium_gets_its_retries_and_a_vanished_disk_none() {
        assert_eq!(reads(2, &[libc::ENODATA, libc::EIO, 0]), (Ok(()), 3));
        let bad = [libc::ENODATA; 3];
        assert_eq!(reads(2, &bad), (Err(Class::Medium), 3));
        assert_eq!(reads(0, &bad), (Err(Class::Medium), 1));
        assert_eq!(reads(2, &[libc::EIO, libc::EIO, libc::EIO]), (Err(Class::Unspecific), 3));
        assert_eq!(reads(2, &[libc::EIO, libc::ENODEV]), (Err(Class::Other), 2));
    }
}
