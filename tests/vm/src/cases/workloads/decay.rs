//! A disk that goes bad, sector by sector.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Result, ensure};
use dmremap_disks::server::Side;

use crate::guest::Ctx;
use crate::guest::load::Random;
use crate::guest::served::Served;
use crate::guest::steer::Steer;

/// So many bad sectors, and it gets no worse: on a slow kernel the same work would meet far more of them, and md, which keeps
/// a list of 512 bad places of a leg, breaks when that of the last leg is full.
const MOST: usize = 2000;

pub struct Decay {
    steer: Steer,
    disk: u8,
    area: Range<u64>,
    random: Random,
    bad: BTreeSet<u64>,
}

impl Decay {
    /// Of a volatile disk of the case, in a part of it. Disks of one seed go bad at the same places.
    pub fn new(ctx: &Ctx, control: u8, disk: u8, area: Range<u64>, seed: u64) -> Result<Self> {
        let (steer, random) = (Steer::open(ctx, control)?, Random::new(seed));
        Ok(Self { steer, disk, area, random, bad: BTreeSet::new() })
    }

    pub fn place(&mut self, sectors: Range<u64>, side: Side) -> Result<()> {
        self.steer.bad(self.disk, sectors.clone(), side)?;
        self.bad.extend(sectors);
        Ok(())
    }

    /// So many places that can be neither written nor read, before there is anything.
    pub fn spoil(&mut self, places: u64) -> Result<()> {
        let Range { start, end } = self.area;
        for n in 0..places {
            let at = start + (end - start) * n / places + n % 8;
            self.place(at..at + 1 + n % 3, Side::Both)?;
        }
        Ok(())
    }

    /// One place more that cannot be written.
    pub fn worsen(&mut self) -> Result<()> {
        if self.bad.len() >= MOST {
            return Ok(());
        }
        let len = 1 + self.random.below(3);
        let at = self.area.start + self.random.below(self.area.end - self.area.start - len);
        self.place(at..at + len, Side::Write)
    }

    /// Only bad sectors are mapped, at least so many, and no data is given up. `offset` is where on this disk the
    /// device's data begins.
    pub fn expect_mapped(
        &self,
        served: &Served,
        index: usize,
        offset: u64,
        least: usize,
    ) -> Result<usize> {
        let mapped = served.sectors_of(index, "mapped")?;
        let extra = mapped.iter().find(|&&sector| !self.bad.contains(&(sector + offset)));
        ensure!(extra.is_none(), "sector {extra:?} is mapped, and is not bad");
        ensure!(mapped.len() >= least, "only {} sectors are mapped", mapped.len());
        for kind in ["poison-data", "poison-slot"] {
            let poisoned = served.sectors_of(index, kind)?;
            ensure!(poisoned.is_empty(), "{kind}: {poisoned:?}");
        }
        Ok(mapped.len())
    }

    pub fn is_bad(&self, sector: u64) -> bool {
        self.bad.contains(&sector)
    }
}
