//! What most cases are about: a disk with bad sectors and a spare, both in memory, and the device that is served on them.

use std::path::PathBuf;

use anyhow::Result;

use super::devices::Brd;
use super::dm::{self, Device};
use super::served::{self, Served};

/// Fields are taken down in this order.
pub struct Disks {
    pub bad: Device,
    pub brd: Brd,
}

impl Disks {
    /// Two of `mib` MiB.
    pub fn new(mib: u32, bad: &[u64]) -> Result<Self> {
        Self::of(2, mib, bad)
    }

    /// `count` of them: the first has the bad sectors, the second is its spare.
    pub fn of(count: u32, mib: u32, bad: &[u64]) -> Result<Self> {
        let brd = Brd::load(count, mib)?;
        Ok(Self { bad: dm::disk_with_bad_sectors("bad", &brd.path(0), bad)?, brd })
    }

    /// `count` of 16 MiB: a data disk and its spare, twice, are formatted.
    pub fn two_formatted(count: u32, bad: &[u64]) -> Result<Self> {
        let disks = Self::of(count, 16, bad)?;
        served::format(disks.bad.path(), &disks.spare())?;
        served::format(&disks.brd.path(2), &disks.brd.path(3))?;
        Ok(disks)
    }

    #[must_use]
    pub fn spare(&self) -> PathBuf {
        self.brd.path(1)
    }

    /// `options` belong to the device's section of the configuration.
    pub fn serve(&self, options: &str) -> Result<Served> {
        Served::new(self.bad.path(), &self.spare(), options)
    }

    pub fn remove(self) -> Result<()> {
        self.bad.remove()
    }
}

/// Fields are taken down in this order.
pub struct Setup {
    pub served: Served,
    pub disks: Disks,
}

impl Setup {
    pub fn new(mib: u32, bad: &[u64], options: &str) -> Result<Self> {
        let disks = Disks::new(mib, bad)?;
        Ok(Self { served: disks.serve(options)?, disks })
    }

    #[must_use]
    pub fn spare(&self) -> PathBuf {
        self.disks.spare()
    }

    pub fn down(self) -> Result<()> {
        self.served.down()?;
        self.disks.remove()
    }
}
