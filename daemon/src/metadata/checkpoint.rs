//! The checkpoint: the whole table, in one of two areas of each mirror.

use std::io;

use super::block::{HEADER, Header, Kind};
use super::device::{BATCH, Disk, block_at, read_blocks};
use super::error::Error;
use super::record::{Bounds, ENTRY, entries_of, read_entries, write_entries};
use super::recover::{Finding, Findings};
use super::superblock::{Checkpoint, Superblock};
use crate::table::{Change, Table};
use crate::units::{Sectors, Slot};

/// Writes the table to one mirror's area and returns the digest of its entries. `superblock` is the
/// one that will put it in force, complete but for the digest.
pub(super) fn write<D: Disk>(
    disk: &mut D,
    superblock: &Superblock,
    mirror: usize,
    table: &Table,
) -> Result<u32, (Slot, io::Error)> {
    let Superblock { geometry, checkpoint, .. } = superblock;
    let area = geometry.checkpoint_area(mirror, checkpoint.area);
    let (size, per_block) = (geometry.unit.bytes() as usize, geometry.per_block());
    let mut entries = entries_of(table);
    let mut digest = crc32fast::Hasher::new();
    let mut batch = Vec::with_capacity(BATCH.max(size));
    let mut at = area;
    for index in 0..checkpoint.blocks {
        let some: Vec<Change> = entries.by_ref().take(per_block).collect();
        let mut block = vec![0; size];
        write_entries(&some, &mut block);
        digest.update(&block[HEADER..HEADER + some.len() * ENTRY]);
        let header = Header {
            kind: Kind::Checkpoint,
            label: superblock.label,
            epoch: superblock.epoch,
            sequence: checkpoint.sequence,
            superblock: superblock.number,
            sector: block_at(area, index, geometry.unit),
            count: some.len() as u32,
            ordinal: checkpoint.number,
        };
        header.seal(&mut block);
        batch.extend(block);
        if batch.len() >= BATCH || index + 1 == checkpoint.blocks {
            // A second try: one hiccup must not cost a mirror.
            disk.write(at, &batch).or_else(|_| disk.write(at, &batch)).map_err(|e| (at, e))?;
            at = at + Sectors(batch.len() as u64 / crate::units::SECTOR_SIZE);
            batch.clear();
        }
    }
    Ok(digest.finalize())
}

/// The table of the checkpoint in force, each block from any live mirror that has it; and which
/// mirrors have all of it.
pub(super) fn read<D: Disk>(
    disk: &mut D,
    superblock: &Superblock,
    findings: &mut Findings,
) -> Result<(Table, [bool; 2]), Error> {
    let Superblock { geometry, checkpoint, .. } = superblock;
    let bounds = Bounds::of(superblock);
    let mut whole = superblock.live;
    let mut blocks: Vec<Option<Vec<u8>>> = vec![None; checkpoint.blocks as usize];
    for mirror in (0..2).filter(|&m| superblock.live[m]) {
        let area = geometry.checkpoint_area(mirror, checkpoint.area);
        read_blocks(disk, area, checkpoint.blocks, geometry.unit, |index, block| {
            let sector = block_at(area, index, geometry.unit);
            let good = block.map_err(|e| format!("cannot be read: {e}")).and_then(|block| {
                let header = Header::open(Kind::Checkpoint, sector, block)
                    .map_err(|damage| damage.to_string())?;
                let same = header.label == superblock.label
                    && header.epoch == superblock.epoch
                    && header.ordinal == checkpoint.number
                    && header.sequence == checkpoint.sequence;
                let size = HEADER + header.count as usize * ENTRY;
                match block.get(HEADER..size) {
                    Some(entries) if same => Ok(entries.to_vec()),
                    _ => Err("belongs to another checkpoint".to_owned()),
                }
            });
            match good {
                Ok(entries) => blocks[index as usize] = Some(entries),
                Err(what) => {
                    whole[mirror] = false;
                    let place = format!("checkpoint block {index} of mirror {mirror}");
                    findings.push(Finding::problem(place, Some(sector), what));
                }
            }
        });
    }
    Ok((assemble(blocks, checkpoint, &bounds)?, whole))
}

fn assemble(
    blocks: Vec<Option<Vec<u8>>>,
    checkpoint: &Checkpoint,
    bounds: &Bounds,
) -> Result<Table, Error> {
    let mut table = Table::default();
    let mut digest = crc32fast::Hasher::new();
    let mut total = 0;
    for (index, block) in (0..).zip(blocks) {
        let block = block.ok_or(Error::CheckpointLost { block: index })?;
        digest.update(&block);
        let count = block.len() / ENTRY;
        let mut padded = vec![0; HEADER];
        padded.extend(block);
        for change in read_entries(&padded, count as u32, bounds).map_err(Error::Damaged)? {
            if let Change::Set(extent) = &change
                && table.overlapping(extent.start, extent.len).next().is_some()
            {
                let start = extent.start;
                return Err(Error::Damaged(format!("two checkpoint extents hold sector {start}")));
            }
            table.apply(&change);
        }
        total += count;
    }
    if digest.finalize() != checkpoint.digest || total != checkpoint.entries as usize {
        return Err(Error::Damaged("the checkpoint is not the one its superblock names".into()));
    }
    Ok(table)
}
