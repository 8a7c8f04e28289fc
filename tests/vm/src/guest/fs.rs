//! File systems and file-system traffic.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Cmd, run};

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

/// fio with direct I/O on a device or file, quitting at the first error; its text on success.
pub fn fio(target: &Path, args: &[&str], seconds: u64) -> Result<String> {
    Cmd::new("fio")
        .args(["--name=job", "--direct=1", "--ioengine=libaio"])
        .arg(format!("--filename={}", target.display()))
        .args(args)
        .limit(seconds)
        .run()
}
