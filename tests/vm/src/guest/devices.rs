//! Disks made of memory: brd, null_blk, loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{modprobe, rmmod, run, wait_until};

/// RAM disks `/dev/ram0` and on.
pub struct Brd(());

impl Brd {
    /// `count` disks of `mib` MiB, all zeroes.
    pub fn load(count: u32, mib: u32) -> Result<Self> {
        modprobe("brd", &[&format!("rd_nr={count}"), &format!("rd_size={}", mib * 1024)])?;
        Ok(Self(()))
    }

    #[must_use]
    pub fn path(&self, index: u32) -> PathBuf {
        PathBuf::from(format!("/dev/ram{index}"))
    }
}

impl Drop for Brd {
    fn drop(&mut self) {
        // A disk still open fails this, and the check for leftovers finds the disk.
        let _ = rmmod("brd");
    }
}

/// A null_blk disk kept in memory, made through configfs.
pub struct NullBlk {
    config: PathBuf,
    path: PathBuf,
}

impl NullBlk {
    /// A disk of `mib` MiB; `attributes` are set before it is switched on, such as `("blocksize", "4096")`.
    pub fn create(name: &str, mib: u32, attributes: &[(&str, &str)]) -> Result<Self> {
        modprobe("null_blk", &["nr_devices=0"])?;
        let config = Path::new("/sys/kernel/config/nullb").join(name);
        fs::create_dir(&config).with_context(|| format!("making {}", config.display()))?;
        let mut disk = Self { config, path: PathBuf::new() };
        disk.set("size", &mib.to_string())?;
        disk.set("memory_backed", "1")?;
        for (attribute, value) in attributes {
            disk.set(attribute, value)?;
        }
        disk.set("power", "1")?;
        // Newer kernels name the disk like its directory.
        let named = Path::new("/dev").join(name);
        let numbered = format!("/dev/nullb{}", disk.get("index")?);
        disk.path = if named.exists() { named } else { numbered.into() };
        Ok(disk)
    }

    fn set(&self, attribute: &str, value: &str) -> Result<()> {
        let path = self.config.join(attribute);
        fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
    }

    fn get(&self, attribute: &str) -> Result<String> {
        let path = self.config.join(attribute);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().into())
    }

    /// Makes sectors `first` to `last` fail, reads and writes.
    pub fn add_bad(&self, first: u64, last: u64) -> Result<()> {
        self.set("badblocks", &format!("+{first}-{last}"))
    }

    /// Makes them good again.
    pub fn clear_bad(&self, first: u64, last: u64) -> Result<()> {
        self.set("badblocks", &format!("-{first}-{last}"))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for NullBlk {
    fn drop(&mut self) {
        // What stays is found by the check for leftovers.
        let _ = self.set("power", "0");
        let _ = fs::remove_dir(&self.config);
    }
}

/// A loop device over a file in memory.
pub struct Loop {
    file: PathBuf,
    path: PathBuf,
}

impl Loop {
    pub fn create(name: &str, mib: u64) -> Result<Self> {
        modprobe("loop", &[])?;
        let file = Path::new("/run/vm").join(name);
        fs::File::create(&file)?.set_len(mib << 20)?;
        let path = run(&["losetup", "--find", "--show", &file.display().to_string()])?;
        let path = PathBuf::from(path.trim());
        wait_until("the loop device", Duration::from_secs(5), || Ok(path.exists()))?;
        Ok(Self { file, path })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // What stays is found by the check for leftovers.
        let _ = run(&["losetup", "--detach", &self.path.display().to_string()]);
        let _ = fs::remove_file(&self.file);
    }
}
