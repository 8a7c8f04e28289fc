//! A disk in memory that does what a conversation wants: its sectors fail, it stalls, its flushes fail.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::Disk;
use super::devices::NullBlk;
use super::disk::SECTOR;
use super::dm::{self, Device};

/// At its end, where nobody writes: writes to them fail, and every flush with them, while flushes are to fail.
const TAIL: u64 = 8;

/// Fields are taken down in this order.
pub struct Pliable {
    device: Device,
    medium: NullBlk,
    sectors: u64,
    bad: BTreeSet<u64>,
    flushes_fail: bool,
    stalls: bool,
}

impl Pliable {
    /// All zeroes.
    pub fn new(name: &str, sectors: u64) -> Result<Self> {
        let mib = sectors.div_ceil(2048) as u32;
        // Without a cache it would never be asked to flush.
        let medium = NullBlk::create(&format!("{name}-medium"), mib, &[("cache_size", "1")])?;
        let table = dm::table_with_bad_sectors(&medium.path().display().to_string(), sectors, &[])?;
        let device = Device::create(name, &table)?;
        Ok(Self {
            device,
            medium,
            sectors,
            bad: BTreeSet::new(),
            flushes_fail: false,
            stalls: false,
        })
    }

    /// As it was when it was new.
    pub fn wipe(&mut self) -> Result<()> {
        if self.stalls {
            self.stall(false)?;
        }
        self.bad.clear();
        self.flushes_fail = false;
        self.apply()?;
        Disk::open(self.path())?.write(0, &vec![0; self.sectors as usize * SECTOR])?;
        Ok(())
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.device.path()
    }

    #[must_use]
    pub fn stalls(&self) -> bool {
        self.stalls
    }

    /// Sectors fail, reads and writes, or work again.
    pub fn mark(&mut self, start: u64, len: u64, bad: bool) -> Result<()> {
        for sector in start..start + len {
            if bad {
                self.bad.insert(sector)
            } else {
                self.bad.remove(&sector)
            };
        }
        self.apply()
    }

    pub fn fail_flushes(&mut self, fail: bool) -> Result<()> {
        self.flushes_fail = fail;
        self.apply()
    }

    /// What is sent to it waits.
    pub fn stall(&mut self, stalls: bool) -> Result<()> {
        self.stalls = stalls;
        if stalls { self.device.suspend_noflush() } else { self.device.resume() }
    }

    fn apply(&self) -> Result<()> {
        let medium = self.medium.path().display().to_string();
        let bad: Vec<u64> = self.bad.iter().copied().collect();
        let body = self.sectors - if self.flushes_fail { TAIL } else { 0 };
        let mut table = dm::table_with_bad_sectors(&medium, body, &bad)?;
        if self.flushes_fail {
            table += &format!("{body} {TAIL} flakey {medium} {body} 0 60000 1 error_writes\n");
        }
        self.device.load(&table)?;
        if !self.stalls {
            self.device.suspend_noflush()?;
            self.device.resume()?;
        }
        Ok(())
    }
}
