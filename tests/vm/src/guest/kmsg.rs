//! What the kernel says while a case looks.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::libc::O_NONBLOCK;

const LOG: &str = "/dev/kmsg";

pub struct KernelLog(File);

impl KernelLog {
    pub fn from_now_on() -> Result<Self> {
        let mut log =
            OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(LOG).context(LOG)?;
        log.seek(SeekFrom::End(0)).context(LOG)?;
        Ok(Self(log))
    }

    /// What has been said since this was last asked.
    pub fn said(&mut self) -> Result<String> {
        let mut said = String::new();
        // A read is one record; the kernel has none that is longer.
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(len) => said += &String::from_utf8_lossy(&record[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(said),
                Err(error) => return Err(error).context(LOG),
            }
        }
    }
}
