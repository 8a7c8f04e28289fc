//! The entries of log records and checkpoints: one change of the table in 24 bytes.

use super::block::{HEADER, get32, get64, put32, put64};
use super::superblock::Superblock;
use crate::table::{Change, Extent, Kind, Table};
use crate::units::{Sector, Sectors, Slot};

/// Bytes of one entry: start, slot (u64), length (u32), kind (u8), three of zero.
pub(super) const ENTRY: usize = 24;

const DIRECT: u8 = 0;
const MAPPED: u8 = 1;
const POISON_DATA: u8 = 2;
const POISON_SLOT: u8 = 3;
const RETIRED: u8 = 4;

/// The bounds that every change keeps: they make arithmetic on it safe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub mapped: Sectors,
    /// The mapped device's logical block: extents consist of whole ones.
    pub block: Sectors,
    pub slots: Slot,
    pub slot_sectors: Sectors,
}

impl Bounds {
    pub fn of(superblock: &Superblock) -> Bounds {
        let geometry = &superblock.geometry;
        let (slots, slot_sectors) = (geometry.slots, geometry.slot_sectors);
        Bounds { mapped: superblock.mapped, block: superblock.block, slots, slot_sectors }
    }

    pub fn admit(&self, change: &Change) -> Result<(), String> {
        let (range, slot) = match *change {
            Change::Set(extent) => {
                (Some((extent.start, extent.len)), extent.kind.slot().map(|s| (s, extent.len)))
            }
            Change::Clear { start, len } => (Some((start, len)), None),
            Change::Retire { slot, len } => (None, Some((slot, len))),
        };
        let fits = |from: u64, len: Sectors, first: u64, size: Sectors| {
            let max = u64::from(u32::MAX);
            (1..=max).contains(&len.0)
                && from >= first
                && len <= size
                && from - first <= size.0 - len.0
        };
        if let Some((start, len)) = range {
            if !fits(start.0, len, 0, self.mapped) {
                return Err(format!("sectors {start}+{len} are outside the mapped device"));
            }
            if start.0 % self.block.0 != 0 || len.0 % self.block.0 != 0 {
                return Err(format!("sectors {start}+{len} are not whole logical blocks"));
            }
        }
        match slot {
            Some((slot, len)) if !fits(slot.0, len, self.slots.0, self.slot_sectors) => {
                Err(format!("slot {slot}+{len} is outside the slot area"))
            }
            _ => Ok(()),
        }
    }
}

fn encode(change: &Change, entry: &mut [u8]) {
    let (start, slot, len, kind) = match *change {
        Change::Set(Extent { start, len, kind }) => {
            let tag = match kind {
                Kind::Mapped(_) => MAPPED,
                Kind::PoisonData => POISON_DATA,
                Kind::PoisonSlot(_) => POISON_SLOT,
            };
            (start.0, kind.slot().map_or(0, |s| s.0), len, tag)
        }
        Change::Clear { start, len } => (start.0, 0, len, DIRECT),
        Change::Retire { slot, len } => (0, slot.0, len, RETIRED),
    };
    put64(entry, 0, start);
    put64(entry, 8, slot);
    put32(entry, 16, len.0 as u32);
    entry[20] = kind;
}

fn decode(entry: &[u8]) -> Result<Change, String> {
    let (start, slot) = (Sector(get64(entry, 0)), Slot(get64(entry, 8)));
    let len = Sectors(u64::from(get32(entry, 16)));
    let set = |kind| Change::Set(Extent { start, len, kind });
    let change = match entry[20] {
        DIRECT => Change::Clear { start, len },
        MAPPED => set(Kind::Mapped(slot)),
        POISON_DATA => set(Kind::PoisonData),
        POISON_SLOT => set(Kind::PoisonSlot(slot)),
        RETIRED => Change::Retire { slot, len },
        other => return Err(format!("kind {other}")),
    };
    Ok(change)
}

/// Puts changes into a block, after its header. They must fit, and be within bounds.
pub(super) fn write_entries<'a>(changes: impl IntoIterator<Item = &'a Change>, block: &mut [u8]) {
    for (change, entry) in changes.into_iter().zip(block[HEADER..].chunks_exact_mut(ENTRY)) {
        encode(change, entry);
    }
}

/// The changes of a block whose header counts `count` of them.
pub(super) fn read_entries(
    block: &[u8],
    count: u32,
    bounds: &Bounds,
) -> Result<Vec<Change>, String> {
    let entries = block[HEADER..].chunks_exact(ENTRY);
    if count as usize > entries.len() {
        return Err(format!("{count} entries in one block"));
    }
    let checked = |entry| {
        let change = decode(entry)?;
        bounds.admit(&change).map(|()| change)
    };
    entries.take(count as usize).map(checked).collect()
}

/// A table as the changes that make it.
pub(super) fn entries_of(table: &Table) -> impl Iterator<Item = Change> + '_ {
    let retired = table.retired().map(|(slot, len)| Change::Retire { slot, len });
    table.extents().map(Change::Set).chain(retired)
}

/// How many those are, without going through them.
pub(super) fn entry_count(table: &Table) -> usize {
    table.len() + table.retired().size_hint().0
}

/// No sector of the spare serves two extents, or one and the retired (I4).
pub(super) fn slots_are_disjoint(table: &Table) -> Result<(), String> {
    let mut slots: Vec<(Slot, Sectors)> = table.retired().collect();
    slots.extend(table.extents().filter_map(|e| e.kind.slot().map(|slot| (slot, e.len))));
    slots.sort_unstable();
    match slots.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!("slot {} is used twice", pair[1].0)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        mapped: Sectors(1 << 30),
        block: Sectors(1),
        slots: Slot(4096),
        slot_sectors: Sectors(4096),
    };

    fn change() -> impl Strategy<Value = Change> {
        (0..4096u64, 1..4096u64, 0u8..5).prop_map(|(at, len, kind)| {
            let (start, slot) = (Sector(at << 8), Slot(4096 + at));
            let len = Sectors(len.min(4096 - at));
            match kind {
                0 => Change::Clear { start, len },
                1 => Change::Retire { slot, len },
                2 => Change::Set(Extent { start, len, kind: Kind::PoisonData }),
                3 => Change::Set(Extent { start, len, kind: Kind::PoisonSlot(slot) }),
                _ => Change::Set(Extent { start, len, kind: Kind::Mapped(slot) }),
            }
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(changes in prop::collection::vec(change(), 0..=167)) {
            let mut block = vec![0; 4096];
            write_entries(&changes, &mut block);
            prop_assert_eq!(read_entries(&block, changes.len() as u32, &BOUNDS), Ok(changes));
        }

        #[test]
        fn any_bytes_are_entries_within_bounds_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), ENTRY),
            kind in 0u8..6,
            small in any::<bool>(),
        ) {
            let mut block = vec![0; HEADER];
            block.extend(bytes);
            block[HEADER + 20] = kind;
            if small {
                block[HEADER + 3..HEADER + 8].fill(0);
                block[HEADER + 10..HEADER + 16].fill(0);
                block[HEADER + 18..HEADER + 20].fill(0);
            }
            if let Ok(changes) = read_entries(&block, 1, &BOUNDS) {
                let mut table = Table::default();
                changes.iter().for_each(|c| table.apply(c));
            }
        }
    }

    #[test]
    fn a_count_beyond_the_block_and_blocks_cut_in_two_are_refused() {
        assert!(read_entries(&[0; 4096], 168, &BOUNDS).is_err());
        let halves = Bounds { block: Sectors(8), ..BOUNDS };
        let clear = Change::Clear { start: Sector(8), len: Sectors(4) };
        assert!(halves.admit(&clear).is_err());
        assert!(BOUNDS.admit(&clear).is_ok());
    }

    #[test]
    fn a_slot_used_twice_is_seen() {
        let mut table = Table::default();
        let set = |start, slot| {
            Change::Set(Extent {
                start: Sector(start),
                len: Sectors(8),
                kind: Kind::Mapped(Slot(slot)),
            })
        };
        table.apply(&set(0, 4096));
        table.apply(&set(8, 4104));
        assert!(slots_are_disjoint(&table).is_ok());
        table.apply(&Change::Retire { slot: Slot(4111), len: Sectors(1) });
        assert!(slots_are_disjoint(&table).is_err());
    }
}
