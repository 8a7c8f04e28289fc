//! Where things are on the spare.
//!
//! ```text
//! sector 0 ... 9216        the five superblock copies, each in a block of its own
//! mirrors[0]               log, checkpoint area 0, checkpoint area 1
//! slots                    what the mapped device's bad sectors are redirected to
//! mirrors[1], to the end   log, checkpoint area 0, checkpoint area 1
//! ```

use serde::{Deserialize, Serialize};

use super::block::HEADER;
use super::device::{MAX_BLOCK, MIN_BLOCK, block_at};
use super::error::Error;
use super::record::ENTRY;
use crate::units::{SECTOR_SIZE, Sectors, Slot};

/// Where the superblock copies are.
pub const COPIES: [Slot; 5] = [Slot(0), Slot(1024), Slot(2048), Slot(4096), Slot(8192)];
/// Sectors kept for them: room for the largest block after the last.
const HEAD: Sectors = Sectors(9216);
/// Extents and retired ranges that a checkpoint holds at most, and at least.
pub const MAX_ENTRIES: u64 = 1 << 20;
const MIN_ENTRIES: u64 = 512;
const MAX_LOG: u64 = 1024;
const MIN_LOG: u64 = 32;
/// As in the protocol: what the kernel's bitmap of used slots covers.
pub const MAX_SLOT_SECTORS: Sectors = Sectors(1 << 27);
/// Fewer slots are not worth a spare.
const MIN_SLOTS: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// The block that everything is written in, a power of two; slots begin at its multiples.
    pub unit: Sectors,
    pub spare: Sectors,
    pub slots: Slot,
    pub slot_sectors: Sectors,
    pub mirrors: [Slot; 2],
    /// Of each mirror's log.
    pub log_blocks: u32,
    /// Of each of the two checkpoint areas of each mirror.
    pub checkpoint_blocks: u32,
}

impl Geometry {
    /// Lays out a spare. Areas grow with it: one checkpoint entry for each of its units, one log block
    /// for every 64, both within limits.
    pub fn plan(spare: Sectors, unit: Sectors) -> Result<Geometry, Error> {
        let geometry = Geometry::sized(spare, unit);
        if geometry.least() <= spare {
            return Ok(geometry);
        }
        let mut needed = spare;
        while Geometry::sized(needed, unit).least() > needed {
            needed = Geometry::sized(needed, unit).least();
        }
        Err(Error::TooSmall { size: spare, needed })
    }

    /// The layout for a spare, which may be too small for it.
    fn sized(spare: Sectors, unit: Sectors) -> Geometry {
        let units = spare.0 / unit.0;
        let entries = units.clamp(MIN_ENTRIES, MAX_ENTRIES);
        let log_blocks = (units / 64).clamp(MIN_LOG, MAX_LOG) as u32;
        let checkpoint_blocks = entries.div_ceil(per_block(unit) as u64) as u32;
        let mirror = mirror_blocks(log_blocks, checkpoint_blocks) * unit.0;
        let first = Slot(HEAD.round_up(unit).0);
        let slots = first + Sectors(mirror);
        let second = Slot((units * unit.0).saturating_sub(mirror).max(slots.0));
        let slot_sectors = (second - slots).min(MAX_SLOT_SECTORS);
        let mirrors = [first, second];
        Geometry { unit, spare, slots, slot_sectors, mirrors, log_blocks, checkpoint_blocks }
    }

    /// What the areas and a few slots take.
    fn least(&self) -> Sectors {
        let mirror = self.slots - self.mirrors[0];
        (self.slots - Slot(0)) + Sectors(MIN_SLOTS * self.unit.0) + mirror
    }

    /// Whether a geometry that was read can be worked with: nothing overlaps or leaves the spare.
    pub(super) fn validate(&self) -> Result<(), String> {
        let unit = self.unit.0;
        if !unit.is_power_of_two()
            || !(MIN_BLOCK..=MAX_BLOCK).contains(&unit.saturating_mul(SECTOR_SIZE))
        {
            return Err(format!("a unit of {unit} sectors"));
        }
        if self.log_blocks < MIN_LOG as u32 || u64::from(self.log_blocks) > MAX_LOG {
            return Err(format!("a log of {} blocks", self.log_blocks));
        }
        if self.checkpoint_blocks == 0 || u64::from(self.checkpoint_blocks) > MAX_ENTRIES {
            return Err(format!("checkpoints of {} blocks", self.checkpoint_blocks));
        }
        if self.slot_sectors > MAX_SLOT_SECTORS {
            return Err(format!("a slot area of {} sectors", self.slot_sectors));
        }
        let mirror = mirror_blocks(self.log_blocks, self.checkpoint_blocks) * unit;
        let [first, second] = self.mirrors;
        let areas = [
            (Slot(0), HEAD.0),
            (first, mirror),
            (self.slots, self.slot_sectors.0),
            (second, mirror),
        ];
        let mut end = Some(0);
        for (start, len) in areas {
            end = end
                .filter(|&e| e <= start.0 && start.0 % unit == 0)
                .and_then(|_| start.0.checked_add(len));
        }
        match end {
            Some(end) if end <= self.spare.0 => Ok(()),
            _ => Err("areas that overlap or leave the spare".into()),
        }
    }

    /// Entries of one block: changes of a record, extents of a checkpoint.
    pub fn per_block(&self) -> usize {
        per_block(self.unit)
    }

    pub fn max_entries(&self) -> usize {
        (self.per_block() * self.checkpoint_blocks as usize).min(MAX_ENTRIES as usize)
    }

    /// Where the record with this position is in a mirror.
    pub(super) fn log_block(&self, mirror: usize, position: u64) -> Slot {
        let index = (position % u64::from(self.log_blocks)) as u32;
        block_at(self.mirrors[mirror], index, self.unit)
    }

    pub(super) fn checkpoint_area(&self, mirror: usize, area: u8) -> Slot {
        let before = self.log_blocks + u32::from(area) * self.checkpoint_blocks;
        block_at(self.mirrors[mirror], before, self.unit)
    }
}

fn per_block(unit: Sectors) -> usize {
    (unit.bytes() as usize - HEADER) / ENTRY
}

fn mirror_blocks(log: u32, checkpoint: u32) -> u64 {
    u64::from(log) + 2 * u64::from(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 2048;

    #[test]
    fn plans_are_valid_and_scale_with_the_spare() {
        for unit in [8, 16, 128, 1024] {
            for size in [128 * MIB, 128 * MIB + 7, 1024 * MIB, 2048 * 1024 * MIB] {
                let plan = Geometry::plan(Sectors(size), Sectors(unit));
                let geometry = plan.unwrap_or_else(|e| panic!("{size} by {unit}: {e}"));
                assert_eq!(geometry.validate(), Ok(()), "{size} by {unit}");
            }
        }
        let small = Geometry::plan(Sectors(32 * MIB), Sectors(8)).unwrap();
        assert!(small.slot_sectors.0 > 25 * MIB, "{small:?}");
        let large = Geometry::plan(Sectors(2048 * 1024 * MIB), Sectors(8)).unwrap();
        assert!(large.max_entries() >= 1_000_000);
        assert_eq!(large.slot_sectors, MAX_SLOT_SECTORS);
    }

    #[test]
    fn a_small_spare_is_refused_with_the_size_it_needs() {
        let error = Geometry::plan(Sectors(9216), Sectors(8)).unwrap_err();
        let Error::TooSmall { needed, .. } = error else { panic!("{error}") };
        let least = Geometry::plan(needed, Sectors(8)).unwrap();
        assert_eq!(least.slot_sectors, Sectors(MIN_SLOTS * 8));
        assert!(Geometry::plan(needed - Sectors(8), Sectors(8)).is_err());
    }

    #[test]
    fn nothing_has_the_place_of_another_thing() {
        let geometry = Geometry::plan(Sectors(32 * MIB), Sectors(8)).unwrap();
        let mut taken: Vec<Slot> = COPIES.to_vec();
        for mirror in 0..2 {
            taken.extend((0..geometry.log_blocks.into()).map(|n| geometry.log_block(mirror, n)));
            for area in 0..2 {
                let start = geometry.checkpoint_area(mirror, area);
                taken.extend(
                    (0..geometry.checkpoint_blocks).map(|n| block_at(start, n, geometry.unit)),
                );
            }
        }
        let slots = geometry.slot_sectors.0 / geometry.unit.0;
        taken.extend((0..slots as u32).map(|n| block_at(geometry.slots, n, geometry.unit)));
        taken.sort();
        assert!(taken.windows(2).all(|two| two[0] + geometry.unit <= two[1]));
        assert_eq!(*taken.last().unwrap() + geometry.unit, Slot(0) + geometry.spare);
    }

    #[test]
    fn areas_grow_with_the_spare_within_limits() {
        let areas = |mib| {
            let geometry = Geometry::plan(Sectors(mib * MIB), Sectors(8)).unwrap();
            (geometry.log_blocks, geometry.checkpoint_blocks)
        };
        // 167 entries a block.
        assert_eq!(areas(8), (32, 13));
        assert_eq!(areas(32), (128, 50));
        assert_eq!(areas(1024), (1024, 1570));
        assert_eq!(areas(1024 * 1024), (1024, 6279));
    }

    #[test]
    fn overlapping_or_outlying_areas_are_refused() {
        let good = Geometry::plan(Sectors(32 * MIB), Sectors(8)).unwrap();
        for bad in [
            Geometry { unit: Sectors(0), ..good },
            Geometry { unit: Sectors(1 << 60), ..good },
            Geometry { slots: Slot(good.slots.0 - 8), ..good },
            Geometry { slot_sectors: good.slot_sectors + Sectors(8), ..good },
            Geometry { mirrors: [good.mirrors[0], Slot(u64::MAX - 7)], ..good },
            Geometry { mirrors: [Slot(8192), good.mirrors[1]], ..good },
            Geometry { spare: good.spare - Sectors(8), ..good },
            Geometry { log_blocks: 0, ..good },
            Geometry { checkpoint_blocks: 0, ..good },
            Geometry { checkpoint_blocks: u32::MAX, ..good },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_limit_is_allowed_and_one_more_is_refused() {
        let with = |log: u64, checkpoint: u64, slots: u64| {
            let (log_blocks, checkpoint_blocks) = (log as u32, checkpoint as u32);
            let mirror = mirror_blocks(log_blocks, checkpoint_blocks) * 8;
            let first = Slot(HEAD.0);
            let second = first + Sectors(mirror + slots);
            let geometry = Geometry {
                unit: Sectors(8),
                spare: Sectors(second.0 + mirror),
                slots: first + Sectors(mirror),
                slot_sectors: Sectors(slots),
                mirrors: [first, second],
                log_blocks,
                checkpoint_blocks,
            };
            geometry.validate()
        };
        let slots = MAX_SLOT_SECTORS.0;
        assert_eq!(with(MAX_LOG, MAX_ENTRIES, slots), Ok(()));
        assert_eq!(with(MIN_LOG, 1, slots), Ok(()));
        assert!(with(MAX_LOG + 1, 1, slots).unwrap_err().contains("log"));
        assert!(with(MIN_LOG - 1, 1, slots).unwrap_err().contains("log"));
        assert!(with(MIN_LOG, MAX_ENTRIES + 1, slots).unwrap_err().contains("checkpoints"));
        assert!(with(MIN_LOG, 0, slots).unwrap_err().contains("checkpoints"));
        assert!(with(MIN_LOG, 1, slots + 8).unwrap_err().contains("slot area"));
    }
}
