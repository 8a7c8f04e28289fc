//! Making a disk a spare.

use super::block::Label;
use super::checkpoint;
use super::device::{BATCH, Disk, unit};
use super::error::Error;
use super::identity::Identity;
use super::layout::{COPIES, Geometry};
use super::record::{Bounds, entries_of, entry_count, slots_are_disjoint};
use super::recover::{self, Findings};
use super::superblock::{Checkpoint, Superblock};
use super::uuid::Uuid;
use crate::table::Table;
use crate::units::{SECTOR_SIZE, Sectors, Slot};

/// The randomness is the caller's: `label` and `nonce` have never been used before.
#[derive(Debug, Clone)]
pub struct Format {
    pub label: Uuid,
    pub nonce: u64,
    pub data: Identity,
    pub spare: Identity,
    pub mapped: Sectors,
    /// The mapped device's logical block.
    pub block: Sectors,
    pub machine: Option<Uuid>,
    /// The operator answers for disks that only their size identifies.
    pub weak_identity: bool,
    /// Overwrite another label.
    pub force: bool,
}

/// Writes an empty table. Until the last superblock copies are written the disk has no label.
pub fn format<D: Disk>(disk: &mut D, request: &Format) -> Result<Superblock, Error> {
    format_with(disk, request, &Table::default(), 0)
}

pub(super) fn format_with<D: Disk>(
    disk: &mut D,
    request: &Format,
    table: &Table,
    sequence: u64,
) -> Result<Superblock, Error> {
    let mut superblock = plan(disk, request, table, sequence)?;
    let unit = superblock.geometry.unit;
    for sector in COPIES {
        put(disk, sector, &vec![0; unit.bytes() as usize])?;
    }
    disk.flush().map_err(Error::Flush)?;
    for mirror in 0..2 {
        let start = superblock.geometry.mirrors[mirror];
        let end = superblock.geometry.checkpoint_area(mirror, 0);
        wipe(disk, start, end)?;
        let written = checkpoint::write(disk, &superblock, mirror, table);
        superblock.checkpoint.digest =
            written.map_err(|(sector, source)| Error::Io { what: "write", sector, source })?;
    }
    disk.flush().map_err(Error::Flush)?;
    for step in [&COPIES[1..], &COPIES[..1]] {
        for &sector in step {
            put(disk, sector, &superblock.encode(sector))?;
        }
        disk.flush().map_err(Error::Flush)?;
    }
    Ok(superblock)
}

fn plan<D: Disk>(
    disk: &mut D,
    request: &Format,
    table: &Table,
    sequence: u64,
) -> Result<Superblock, Error> {
    if !request.weak_identity {
        let disks = [("data disk", &request.data), ("spare", &request.spare)];
        if let Some(&(disk, _)) = disks.iter().find(|(_, identity)| identity.is_weak()) {
            return Err(Error::Weak { disk });
        }
    }
    if !request.force {
        match recover::superblock(disk, &mut Findings::new()) {
            Ok((found, _)) => return Err(Error::Labelled { label: found.label.uuid }),
            Err(Error::NotFormatted | Error::NoSuperblock { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    let geometry = Geometry::plan(disk.size(), unit(disk)?)?;
    let entries = entry_count(table);
    if entries > geometry.max_entries() {
        return Err(Error::Unstorable(format!(
            "{entries} extents, the spare has room for {}",
            geometry.max_entries()
        )));
    }
    let superblock = Superblock {
        label: Label { uuid: request.label, nonce: request.nonce },
        number: 1,
        epoch: 1,
        sequence,
        incompatible: 0,
        read_only: 0,
        geometry,
        mapped: request.mapped,
        block: request.block,
        checkpoint: Checkpoint {
            number: 1,
            sequence,
            position: 0,
            area: 0,
            blocks: entries.div_ceil(geometry.per_block()).max(1) as u32,
            entries: entries as u32,
            digest: 0,
        },
        live: [true; 2],
        clean: true,
        machine: request.machine,
        data: request.data.clone(),
        spare: request.spare.clone(),
    };
    superblock.validate().map_err(Error::Unstorable)?;
    let bounds = Bounds::of(&superblock);
    entries_of(table).try_for_each(|entry| bounds.admit(&entry)).map_err(Error::Unstorable)?;
    slots_are_disjoint(table).map_err(Error::Unstorable)?;
    Ok(superblock)
}

/// Records of an earlier label would be known by their nonce; this finds out whether the log can
/// be written.
fn wipe<D: Disk>(disk: &mut D, start: Slot, end: Slot) -> Result<(), Error> {
    let zeros = vec![0; BATCH];
    let mut at = start;
    while at < end {
        let len = (end - at).bytes().min(BATCH as u64);
        put(disk, at, &zeros[..len as usize])?;
        at = at + Sectors(len / SECTOR_SIZE);
    }
    Ok(())
}

fn put<D: Disk>(disk: &mut D, sector: Slot, bytes: &[u8]) -> Result<(), Error> {
    disk.write(sector, bytes).map_err(|source| Error::Io { what: "write", sector, source })
}
