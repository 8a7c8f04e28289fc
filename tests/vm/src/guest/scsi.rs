//! A SCSI disk that reports errors as real ones do: scsi_debug.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{modprobe, rmmod, wait_until};

const DRIVER: &str = "/sys/bus/pseudo/drivers/scsi_debug";

/// scsi_debug loaded; dropping it unloads it with all its disks.
pub struct ScsiDebug(());

impl ScsiDebug {
    /// Disks of `mib` MiB each with a store of its own. `parameters` such as `add_host=2`, `sector_size=4096`.
    pub fn load(mib: u32, parameters: &[&str]) -> Result<Self> {
        modprobe("sd_mod", &[])?;
        let size = format!("dev_size_mb={mib}");
        let mut all = vec![size.as_str(), "per_host_store=1", "delay=0"];
        all.extend(parameters);
        modprobe("scsi_debug", &all)?;
        let loaded = Self(());
        wait_until("a scsi_debug disk", Duration::from_secs(10), || Ok(loaded.disk(0).is_ok()))?;
        Ok(loaded)
    }

    /// Reads of `count` sectors from `start` end in MEDIUM ERROR; scsi_debug leaves writes alone.
    pub fn with_medium_errors(mib: u32, start: u64, count: u64) -> Result<Self> {
        let start = format!("medium_error_start={start}");
        let count = format!("medium_error_count={count}");
        Self::load(mib, &[&start, &count, "opts=2"])
    }

    /// The disk of a host, counted from 0.
    pub fn disk(&self, host: u32) -> Result<PathBuf> {
        let adapter = Path::new(DRIVER).join(format!("adapter{host}"));
        let name = below(&adapter, &["host", "target", "", "block", ""])?;
        let path = Path::new("/dev").join(name.file_name().context("a nameless disk")?);
        anyhow::ensure!(path.exists(), "{}: not there yet", path.display());
        Ok(path)
    }

    /// The disk of a host vanishes, as when its cable is pulled.
    pub fn delete(&self, host: u32) -> Result<()> {
        let disk = self.disk(host)?;
        let name = disk.file_name().context("a nameless disk")?.to_string_lossy();
        let path = format!("/sys/block/{name}/device/delete");
        fs::write(&path, "1").context(path)
    }

    /// It is there again, with what it held; its path, which may be another one.
    pub fn rescan(&self, host: u32) -> Result<PathBuf> {
        let adapter = Path::new(DRIVER).join(format!("adapter{host}"));
        let name = below(&adapter, &["host"])?;
        let name = name.file_name().context("a nameless host")?.to_string_lossy();
        let path = format!("/sys/class/scsi_host/{name}/scan");
        fs::write(&path, "- - -").context(path)?;
        wait_until("the disk", Duration::from_secs(10), || Ok(self.disk(host).is_ok()))?;
        self.disk(host)
    }

    /// Sets a module parameter, such as `opts` or `medium_error_start`.
    pub fn set(&self, parameter: &str, value: &str) -> Result<()> {
        let path = Path::new(DRIVER).join(parameter);
        let path = if path.exists() { path } else { Path::new(PARAMETERS).join(parameter) };
        fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
    }
}

const PARAMETERS: &str = "/sys/module/scsi_debug/parameters";

/// Goes down a directory by the first entry with each prefix; the empty prefix takes a disk or a SCSI address.
fn below(dir: &Path, prefixes: &[&str]) -> Result<PathBuf> {
    let mut at = dir.to_path_buf();
    for prefix in prefixes {
        let entries = fs::read_dir(&at).with_context(|| at.display().to_string())?;
        at = entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                path.is_dir()
                    && match *prefix {
                        "" => name.starts_with("sd") || name.contains(':'),
                        prefix => name.starts_with(prefix),
                    }
            })
            .with_context(|| format!("no {prefix}* in {}", at.display()))?;
    }
    Ok(at)
}

impl Drop for ScsiDebug {
    fn drop(&mut self) {
        // A disk still open fails this, and the check for leftovers finds the module.
        let _ = rmmod("scsi_debug");
    }
}
