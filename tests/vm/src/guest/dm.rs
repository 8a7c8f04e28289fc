//! Device-mapper devices, by the `dmsetup` command. No udev runs in the guest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Cmd;

/// A mapped device; dropping it removes it.
pub struct Device {
    name: String,
    path: PathBuf,
    gone: bool,
}

/// No udev runs here: the command makes and removes the nodes itself.
fn dmsetup(args: &[&str]) -> Cmd {
    Cmd::new("dmsetup").args(args).env("DM_DISABLE_UDEV", "1")
}

impl Device {
    /// Creates and activates it; `table` has a target a line.
    pub fn create(name: &str, table: &str) -> Result<Self> {
        super::modprobe("dm-mod", &[])?;
        dmsetup(&["create", name]).input(table).run()?;
        Ok(Self::existing(name))
    }

    /// Over all of `data`, with no daemon there.
    pub fn remap(name: &str, data: &Path, spare: &Path, options: &str) -> Result<Self> {
        super::modprobe("dm_remap_shim", &[])?;
        let sectors = super::Disk::open(data)?.sectors()?;
        let (data, spare) = (data.display(), spare.display());
        Self::create(name, &format!("0 {sectors} remap {data} {spare} {options}\n"))
    }

    /// One that somebody else made and removes.
    #[must_use]
    pub fn shared(name: &str) -> Self {
        let mut device = Self::existing(name);
        device.gone = true;
        device
    }

    /// One that somebody else made, and that goes away with this value all the same.
    #[must_use]
    pub fn existing(name: &str) -> Self {
        Self { name: name.into(), path: Path::new("/dev/mapper").join(name), gone: false }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn verb(&self, args: &[&str]) -> Result<String> {
        dmsetup(args).arg(&self.name).run()
    }

    /// The path as text, for tables and commands.
    #[must_use]
    pub fn dev(&self) -> String {
        self.path.display().to_string()
    }

    /// Lets I/O in flight end, then holds new I/O.
    pub fn suspend(&self) -> Result<()> {
        self.verb(&["suspend"]).map(drop)
    }

    /// Suspends without a flush and without freezing the file system.
    pub fn suspend_noflush(&self) -> Result<()> {
        self.verb(&["suspend", "--noflush", "--nolockfs"]).map(drop)
    }

    /// Puts a loaded table in place and lets I/O go on.
    pub fn resume(&self) -> Result<()> {
        self.verb(&["resume"]).map(drop)
    }

    /// Loads a table, in place from the next resume on.
    pub fn load(&self, table: &str) -> Result<()> {
        dmsetup(&["load", &self.name]).input(table).run().map(drop)
    }

    pub fn message(&self, sector: u64, text: &str) -> Result<String> {
        dmsetup(&["message", &self.name, &sector.to_string(), text]).run()
    }

    pub fn status(&self) -> Result<String> {
        self.verb(&["status"])
    }

    /// Of a remap target.
    pub fn remap_status(&self) -> Result<RemapStatus> {
        let status = self.status()?;
        RemapStatus::parse(&status).with_context(|| status.clone())
    }

    pub fn table(&self) -> Result<String> {
        self.verb(&["table"])
    }

    /// What it would report to the kernel's integrity measurement.
    pub fn measurement(&self) -> Result<String> {
        self.verb(&["measure"])
    }

    pub fn remove(mut self) -> Result<()> {
        self.gone = true;
        self.verb(&["remove", "--retry"]).map(drop)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !self.gone {
            // What stays is found by the check for leftovers.
            let _ = self.verb(&["remove", "--retry"]);
        }
    }
}

/// What a remap target says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemapStatus {
    /// All of it, after the target's name.
    pub words: String,
    pub extents: u64,
    /// Fences included.
    pub faults: u64,
    pub held: u64,
    pub held_sectors: u64,
}

impl RemapStatus {
    fn parse(status: &str) -> Option<Self> {
        let words: Vec<&str> = status.split_whitespace().skip(3).collect();
        let [_ready, _owned, extents, faults, held, held_sectors, _commit] = words[..] else {
            return None;
        };
        Some(Self {
            words: words.join(" "),
            extents: extents.parse().ok()?,
            faults: faults.parse().ok()?,
            held: held.parse().ok()?,
            held_sectors: held_sectors.parse().ok()?,
        })
    }
}

/// A table over `device` in which exactly the `bad` sectors fail, reads and writes.
pub fn table_with_bad_sectors(device: &str, sectors: u64, bad: &[u64]) -> Result<String> {
    let bad: BTreeSet<u64> = bad.iter().copied().collect();
    ensure!(bad.last().is_none_or(|&last| last < sectors), "a bad sector beyond {sectors}");
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &sector in &bad {
        match runs.last_mut() {
            Some((_, end)) if *end == sector => *end += 1,
            _ => runs.push((sector, sector + 1)),
        }
    }
    let mut table = String::new();
    let mut at = 0;
    for (start, end) in runs {
        if start > at {
            table += &format!("{at} {} linear {device} {at}\n", start - at);
        }
        table += &format!("{start} {} error\n", end - start);
        at = end;
    }
    if at < sectors {
        table += &format!("{at} {} linear {device} {at}\n", sectors - at);
    }
    Ok(table)
}

/// A mapped device over `device` in which exactly the `bad` sectors fail.
pub fn disk_with_bad_sectors(name: &str, device: &Path, bad: &[u64]) -> Result<Device> {
    let sectors = super::Disk::open(device)?.sectors()?;
    Device::create(name, &table_with_bad_sectors(&device.display().to_string(), sectors, bad)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_its_numbers_in_order() {
        let status = RemapStatus::parse("0 131072 remap ready no-owner 5 1 2 16 9\n");
        let words = "ready no-owner 5 1 2 16 9".to_owned();
        assert_eq!(
            status,
            Some(RemapStatus { words, extents: 5, faults: 1, held: 2, held_sectors: 16 })
        );
        assert_eq!(RemapStatus::parse("0 131072 error\n"), None);
    }

    #[test]
    fn the_table_covers_the_disk_and_fails_only_bad_sectors() -> Result<()> {
        let table = table_with_bad_sectors("/dev/x", 10, &[9, 0, 5, 4, 4])?;
        assert_eq!(
            table,
            "0 1 error\n1 3 linear /dev/x 1\n4 2 error\n6 3 linear /dev/x 6\n9 1 error\n"
        );
        assert!(table_with_bad_sectors("/dev/x", 10, &[10]).is_err());
        Ok(())
    }
}
