//! The metadata as JSON, and back. Field names are stable.

use serde::{Deserialize, Serialize};

use super::check::read;
use super::device::{Disk, unit};
use super::error::Error;
use super::format::{Format, format_with};
use super::identity::Identity;
use super::layout::Geometry;
use super::recover::Findings;
use super::superblock::Superblock;
use super::uuid::Uuid;
use crate::table::{Change, Extent, Kind, Table};
use crate::units::{Sectors, Slot};

/// The version of the field names below.
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    pub version: u32,
    pub label: Uuid,
    pub superblock: u64,
    pub epoch: u64,
    pub sequence: u64,
    pub mapped: Sectors,
    pub block: Sectors,
    pub live: [bool; 2],
    pub clean: bool,
    pub machine: Option<Uuid>,
    pub data: Identity,
    pub spare: Identity,
    pub geometry: Geometry,
    pub extents: Vec<Extent>,
    pub retired: Vec<(Slot, Sectors)>,
}

impl Dump {
    pub(super) fn of(superblock: &Superblock, table: &Table, sequence: u64) -> Dump {
        Dump {
            version: VERSION,
            label: superblock.label.uuid,
            superblock: superblock.number,
            epoch: superblock.epoch,
            sequence,
            mapped: superblock.mapped,
            block: superblock.block,
            live: superblock.live,
            clean: superblock.clean,
            machine: superblock.machine,
            data: superblock.data.clone(),
            spare: superblock.spare.clone(),
            geometry: superblock.geometry,
            extents: table.extents().collect(),
            retired: table.retired().collect(),
        }
    }
}

pub fn dump<D: Disk>(disk: &mut D) -> Result<Dump, Error> {
    let (superblock, recovered) = read(disk, &mut Findings::new())?;
    Ok(Dump::of(&superblock, &recovered.table, recovered.sequence))
}

impl Dump {
    /// The same for another spare, which has this identity. What was mapped is lost with the slots, and an error until it
    /// is written again: the data disk is stale there. `weak_identity`: a spare that only its size tells from others will do,
    /// as for [`Format`].
    pub fn for_another<D: Disk>(
        mut self,
        disk: &D,
        spare: Identity,
        weak_identity: bool,
    ) -> Result<Dump, Error> {
        if spare.is_weak() && !weak_identity {
            return Err(Error::Weak { disk: "spare" });
        }
        if self.data.may_be(&spare) {
            return Err(Error::DumpsData);
        }
        self.geometry = Geometry::plan(disk.size(), unit(disk)?)?;
        self.spare = spare;
        self.retired.clear();
        let mut free = self.geometry.slots;
        for extent in &mut self.extents {
            if extent.kind.slot().is_some() {
                extent.kind = Kind::PoisonSlot(free);
                free =
                    free + extent.len.min(self.geometry.slot_sectors).round_up(self.geometry.unit);
            }
        }
        Ok(self)
    }
}

/// Formats the disk with the table of a dump. It must be the spare the dump was made of, whose slots
/// still hold the data; `spare` is the identity it has now. `nonce` has never been used.
pub fn restore<D: Disk>(
    disk: &mut D,
    dump: &Dump,
    spare: Identity,
    nonce: u64,
    force: bool,
) -> Result<Superblock, Error> {
    if dump.version != VERSION {
        let version = dump.version;
        return Err(Error::Unstorable(format!("dump version {version}, known is {VERSION}")));
    }
    dump.spare.admit(&spare).map_err(|why| Error::NotTheDumps { why: why.to_string() })?;
    if Geometry::plan(disk.size(), unit(disk)?)? != dump.geometry {
        let why =
            "its areas would lie elsewhere; attach it as it was when it was dumped".to_owned();
        return Err(Error::NotTheDumps { why });
    }
    let request = Format {
        label: dump.label,
        nonce,
        data: dump.data.clone(),
        spare,
        mapped: dump.mapped,
        block: dump.block,
        machine: dump.machine,
        // Whoever formatted the dump's disks has consented, and whoever gave it another spare.
        weak_identity: true,
        force,
    };
    format_with(disk, &request, &table(dump)?, dump.sequence)
}

fn table(dump: &Dump) -> Result<Table, Error> {
    let mut table = Table::default();
    let far = |at: u64, len: Sectors| len.0 == 0 || at.checked_add(len.0).is_none();
    for extent in &dump.extents {
        let slot = extent.kind.slot().map_or(0, |slot| slot.0);
        if far(extent.start.0, extent.len) || far(slot, extent.len) {
            return Err(Error::Unstorable(format!("the extent at sector {}", extent.start)));
        }
        if table.overlapping(extent.start, extent.len).next().is_some() {
            return Err(Error::Unstorable(format!("two extents hold sector {}", extent.start)));
        }
        table.apply(&Change::Set(*extent));
    }
    for &(slot, len) in &dump.retired {
        if far(slot.0, len) {
            return Err(Error::Unstorable(format!("the retired slot {slot}")));
        }
        table.apply(&Change::Retire { slot, len });
    }
    Ok(table)
}
