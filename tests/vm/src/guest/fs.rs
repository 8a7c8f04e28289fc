//! File systems and file-system traffic.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Cmd, load_virtio_blk, run};
use crate::proto::EXTRA;

/// What cases put on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    /// Makes the file system anew; of ext4 nothing is left to initialise, and so to read, later.
    pub fn mkfs(self, device: &Path) -> Result<()> {
        extra()?;
        let (program, args) = match self {
            Kind::Ext4 => (
                "mkfs.ext4",
                &["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"][..],
            ),
            Kind::Xfs => ("mkfs.xfs", &["-q", "-f", "-K"][..]),
            Kind::Btrfs => ("mkfs.btrfs", &["-q", "-f", "-K"][..]),
        };
        Cmd::new(program).args(args).arg(device.display().to_string()).run().map(drop)
    }

    /// Checks it unmounted without mending anything; any damage is an error.
    pub fn check(self, device: &Path) -> Result<String> {
        let (program, args) = match self {
            Kind::Ext4 => ("e2fsck", &["-f", "-n"][..]),
            Kind::Xfs => ("xfs_repair", &["-n"][..]),
            Kind::Btrfs => ("btrfs", &["check", "--readonly", "--check-data-csum"][..]),
        };
        Cmd::new(program).args(args).arg(device.display().to_string()).run()
    }

    /// Mounts it at `/mnt/NAME`.
    pub fn mount(self, device: &Path, name: &str) -> Result<Mount> {
        super::modprobe(self.name(), &[])?;
        let dir = Path::new("/mnt").join(name);
        std::fs::create_dir_all(&dir)?;
        let (device, at) = (device.display().to_string(), dir.display().to_string());
        run(&["mount", "-t", self.name(), &device, &at])?;
        Ok(Mount(dir))
    }
}

/// A mounted file system; dropping it unmounts it.
pub struct Mount(PathBuf);

impl Mount {
    /// Makes an ext4 anew.
    pub fn mkfs(device: &Path) -> Result<()> {
        Cmd::new("mkfs.ext4").args(["-q", "-F"]).arg(device.display().to_string()).run()?;
        Ok(())
    }

    /// Mounts an ext4 at `/mnt/NAME`.
    pub fn new(device: &Path, name: &str) -> Result<Self> {
        Kind::Ext4.mount(device, name)
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
    Kind::Ext4.check(device)
}

/// Unpacks what is too large for every boot, if that was not done; see the host's `image`.
pub fn extra() -> Result<()> {
    if Path::new("/usr/bin/fio").exists() {
        return Ok(());
    }
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
    // Its modules are new to modprobe.
    run(&["depmod"])?;
    Ok(())
}

/// fio with direct I/O on a device or file, quitting at the first error; its text on success.
pub fn fio(target: &Path, args: &[&str], seconds: u64) -> Result<String> {
    extra()?;
    Cmd::new("fio")
        .args(["--name=job", "--direct=1", "--ioengine=libaio"])
        .arg(format!("--filename={}", target.display()))
        .args(args)
        .limit(seconds)
        .run()
}
