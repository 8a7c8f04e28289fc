//! The superblock: label, identities, layout, and which log and checkpoint are in force.

use super::block::{Damage, Header, Kind, Label, get16, get32, get64, put32, put64};
use super::identity::{Fact, Identity};
use super::layout::Geometry;
use super::uuid::Uuid;
use crate::units::{Sectors, Slot};

/// Bytes that hold it, whatever the unit.
pub(super) const SIZE: usize = 4096;
/// Feature bits this version knows.
pub(super) const INCOMPATIBLE: u64 = 0;
pub(super) const READ_ONLY: u64 = 0;

const DATA_IDENTITY: usize = 512;
const SPARE_IDENTITY: usize = 2304;
/// Room of one identity: a size, then seven facts at most.
const IDENTITY: usize = 8 + 7 * (2 + 252);

/// The checkpoint in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub number: u64,
    /// The last commit it holds.
    pub sequence: u64,
    /// The log goes on from it at this position.
    pub position: u64,
    /// Which of the two areas of each mirror.
    pub area: u8,
    pub blocks: u32,
    pub entries: u32,
    /// CRC-32 of all its entries.
    pub digest: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    pub label: Label,
    /// One more with each superblock written.
    pub number: u64,
    /// One more with each opening.
    pub epoch: u64,
    /// The last durable commit when it was written.
    pub sequence: u64,
    pub incompatible: u64,
    pub read_only: u64,
    pub geometry: Geometry,
    pub mapped: Sectors,
    pub block: Sectors,
    pub(super) checkpoint: Checkpoint,
    pub live: [bool; 2],
    /// Its last owner closed it.
    pub clean: bool,
    pub machine: Option<Uuid>,
    pub data: Identity,
    pub spare: Identity,
}

/// What is wrong with a copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum Flaw {
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error("uses unknown features (bits {0:#x})")]
    Incompatible(u64),
}

impl Superblock {
    /// The copy for `sector`, padded to a block of the unit.
    pub(super) fn encode(&self, sector: Slot) -> Vec<u8> {
        let mut block = vec![0; self.geometry.unit.bytes() as usize];
        let Geometry { unit, spare, slots, slot_sectors, mirrors, .. } = self.geometry;
        let checkpoint = &self.checkpoint;
        put64(&mut block, 80, self.incompatible);
        put64(&mut block, 88, self.read_only);
        put64(&mut block, 96, self.mapped.0);
        put32(&mut block, 104, self.block.0 as u32);
        put32(&mut block, 108, unit.0 as u32);
        put64(&mut block, 112, spare.0);
        put64(&mut block, 120, slots.0);
        put64(&mut block, 128, slot_sectors.0);
        put64(&mut block, 136, mirrors[0].0);
        put64(&mut block, 144, mirrors[1].0);
        put32(&mut block, 152, self.geometry.log_blocks);
        put32(&mut block, 156, self.geometry.checkpoint_blocks);
        put64(&mut block, 160, checkpoint.number);
        put64(&mut block, 168, checkpoint.sequence);
        put64(&mut block, 176, checkpoint.position);
        put32(&mut block, 184, checkpoint.blocks);
        put32(&mut block, 188, checkpoint.entries);
        put32(&mut block, 192, checkpoint.digest);
        block[196] = checkpoint.area;
        block[197] = u8::from(self.live[0]) | u8::from(self.live[1]) << 1;
        block[198] = u8::from(self.clean);
        block[199] = u8::from(self.machine.is_some());
        block[200..216].copy_from_slice(&self.machine.unwrap_or(Uuid([0; 16])).0);
        put_identity(&mut block[DATA_IDENTITY..DATA_IDENTITY + IDENTITY], &self.data);
        put_identity(&mut block[SPARE_IDENTITY..SPARE_IDENTITY + IDENTITY], &self.spare);
        let header = Header {
            kind: Kind::Superblock,
            label: self.label,
            epoch: self.epoch,
            sequence: self.sequence,
            superblock: self.number,
            sector,
            count: 0,
            ordinal: 0,
        };
        header.seal(&mut block[..SIZE]);
        block
    }

    pub(super) fn decode(sector: Slot, block: &[u8]) -> Result<Superblock, Flaw> {
        let block = block.get(..SIZE).ok_or(Damage::Blank)?;
        let header = Header::open(Kind::Superblock, sector, block)?;
        let incompatible = get64(block, 80);
        if incompatible & !INCOMPATIBLE != 0 {
            return Err(Flaw::Incompatible(incompatible & !INCOMPATIBLE));
        }
        let sectors = |at| Sectors(get64(block, at));
        let slot = |at| Slot(get64(block, at));
        let superblock = Superblock {
            label: header.label,
            number: header.superblock,
            epoch: header.epoch,
            sequence: header.sequence,
            incompatible,
            read_only: get64(block, 88),
            mapped: sectors(96),
            block: Sectors(get32(block, 104).into()),
            geometry: Geometry {
                unit: Sectors(get32(block, 108).into()),
                spare: sectors(112),
                slots: slot(120),
                slot_sectors: sectors(128),
                mirrors: [slot(136), slot(144)],
                log_blocks: get32(block, 152),
                checkpoint_blocks: get32(block, 156),
            },
            checkpoint: Checkpoint {
                number: get64(block, 160),
                sequence: get64(block, 168),
                position: get64(block, 176),
                blocks: get32(block, 184),
                entries: get32(block, 188),
                digest: get32(block, 192),
                area: block[196],
            },
            live: [block[197] & 1 != 0, block[197] & 2 != 0],
            clean: block[198] == 1,
            machine: (block[199] == 1).then(|| Uuid(get16(block, 200))),
            data: get_identity(&block[DATA_IDENTITY..DATA_IDENTITY + IDENTITY])?,
            spare: get_identity(&block[SPARE_IDENTITY..SPARE_IDENTITY + IDENTITY])?,
        };
        superblock.validate().map_err(Damage::Value)?;
        Ok(superblock)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        self.geometry.validate()?;
        let Checkpoint { number, sequence, position, area, blocks, entries, .. } = self.checkpoint;
        if [number, sequence, position].into_iter().any(|n| n >= super::block::LIMIT) {
            return Err("a counter of 2^63 or more".into());
        }
        if area > 1 || blocks == 0 || blocks > self.geometry.checkpoint_blocks {
            return Err(format!("a checkpoint of {blocks} blocks in area {area}"));
        }
        if (entries as usize).div_ceil(self.geometry.per_block()).max(1) != blocks as usize {
            return Err(format!("a checkpoint of {entries} entries in {blocks} blocks"));
        }
        if sequence > self.sequence {
            return Err("a checkpoint beyond the log".into());
        }
        if !self.live.contains(&true) {
            return Err("no live mirror".into());
        }
        if !self.block.0.is_power_of_two() || self.mapped.0 % self.block.0 != 0 {
            return Err(format!("{} sectors in blocks of {}", self.mapped, self.block));
        }
        Ok(())
    }
}

fn put_identity(room: &mut [u8], identity: &Identity) {
    put64(room, 0, identity.size.0);
    let mut at = 8;
    for (fact, value) in identity.facts() {
        room[at] = fact as u8;
        room[at + 1] = value.len() as u8;
        room[at + 2..at + 2 + value.len()].copy_from_slice(value.as_bytes());
        at += 2 + value.len();
    }
}

fn get_identity(room: &[u8]) -> Result<Identity, Damage> {
    let mut identity = Identity::new(Sectors(get64(room, 0)));
    let mut rest = &room[8..];
    while let [tag, len, tail @ ..] = rest {
        if *tag == 0 {
            break;
        }
        let value = tail.get(..usize::from(*len)).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let (Some(fact), Some(value)) = (Fact::from_tag(*tag), value) else {
            return Err(Damage::Value("a malformed identity".into()));
        };
        identity = identity.with(fact, value);
        rest = &tail[value.len()..];
    }
    Ok(identity)
}
