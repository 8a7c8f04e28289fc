//! File systems and file-system traffic.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Cmd, load_virtio_blk, run};
use crate::proto::EXTRA;

/// A mounted ext4; dropping it unmounts it.
pub struct Mount(PathBuf);

impl Mount {
    /// Makes the file system anew.
    pub fn mkfs(device: &Path) -> Result<()> {
        Cmd::new("mkfs.ext4").args(["-q", "-F"]).arg(device.display().to_string()).run()?;
        Ok(())
    }

    /// Mounts it at `/mnt/NAME`.
    pub fn new(device: &Path, name: &str) -> Result<Self> {
        super::modprobe("ext4", &[])?;
        let dir = Path::new("/mnt").join(name);
        std::fs::create_dir_all(&dir)?;
        let (device, at) = (device.display().to_string(), dir.display().to_string());
        run(&["mount", "-t", "ext4", &device, &at])?;
        Ok(Self(dir))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // What stays is found by the check for leftovers.
        let _ = run(&["umount", &self.0.display().to_string()]);
    }
}

/// Checks an unmounted ext4 without mending anything; any damage is an error.
pub fn fsck(device: &Path) -> Result<String> {
    run(&["e2fsck", "-f", "-n", &device.display().to_string()])
}

/// Unpacks what is too large for every boot; see the host's `image`.
fn unpack_extra() -> Result<()> {
    let mut found = None;
    load_virtio_blk()?;
    super::wait_until("the disk of the second archive", Duration::from_secs(10), || {
        for entry in std::fs::read_dir("/sys/block")?.flatten() {
            let serial = std::fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            if serial.trim() == EXTRA {
                found = Some(Path::new("/dev").join(entry.file_name()));
            }
        }
        Ok(found.is_some())
    })?;
    let disk = found.context("the second archive")?.display().to_string();
    run(&["sh", "-c", &format!("cd / && cpio -i -d -u -F {disk}")])?;
    Ok(())
}

/// fio with direct I/O on a device or file, quitting at the first error; its text on success.
pub fn fio(target: &Path, args: &[&str], seconds: u64) -> Result<String> {
    if !Path::new("/usr/bin/fio").exists() {
        unpack_extra()?;
    }
    Cmd::new("fio")
        .args(["--name=job", "--direct=1", "--ioengine=libaio"])
        .arg(format!("--filename={}", target.display()))
        .args(args)
        .limit(seconds)
        .run()
}
