//! The spare: a used one, changed by a short program that the fuzzer writes, with checksums made right so that what is
//! behind them is reached. It is served, and then it is sound, or it is refused, and then it is untouched.

mod disk;
mod mutate;

use std::sync::OnceLock;

use dmremap_policyd::metadata::{
    CommitError, Dump, Error, Expect, Fact, Format, Identity, Store, Uuid, check, dump, format,
    identify, repair, restore,
};
use dmremap_policyd::table::{Change, Extent, Kind, Table};
use dmremap_policyd::units::{Sector, Sectors};

use crate::input::Input;
use disk::RamDisk;

const SPARE: u64 = 8 * 2048;
const MAPPED: u64 = 1 << 20;

fn data_disk() -> Identity {
    Identity::new(Sectors(MAPPED)).with(Fact::Wwn, "naa.5000c500a1")
}

fn spare_disk() -> Identity {
    Identity::new(Sectors(SPARE)).with(Fact::Serial, "SPARE1")
}

fn request() -> Format {
    Format {
        label: Uuid([1; 16]),
        nonce: 42,
        data: data_disk(),
        spare: spare_disk(),
        mapped: Sectors(MAPPED),
        block: Sectors(1),
        machine: Some(Uuid([7; 16])),
        weak_identity: false,
        force: false,
    }
}

/// Tables, labels and machines of any kind: whatever the disk says of itself is to be judged by what it holds.
fn expect() -> Expect {
    Expect { accept_unreadable_tail: true, ..Expect::spare(spare_disk()) }
}

fn set(start: u64, len: u64, kind: Kind) -> Change {
    Change::Set(Extent { start: Sector(start), len: Sectors(len), kind })
}

/// A checkpoint with a bit of everything, and a few records behind it.
fn used() -> RamDisk {
    let mut disk = RamDisk::new(SPARE);
    format(&mut disk, &request()).unwrap();
    let (mut store, _) = Store::open(disk, &expect()).unwrap();
    let slots = store.geometry().slots;
    let slot = |n: u64| slots + Sectors(8 * n);
    for n in 0..4 {
        let mapped = set(1000 + 16 * n, 8, Kind::Mapped(slot(n)));
        let poison = set(500_000 + 16 * n, 3, Kind::PoisonData);
        let _ = store.commit(&[mapped, poison]).unwrap();
    }
    let _ = store.commit(&[set(1000, 2, Kind::PoisonSlot(slot(0)))]).unwrap();
    let _ = store.commit(&[Change::Retire { slot: slot(100), len: Sectors(8) }]).unwrap();
    store.checkpoint().unwrap();
    let clear = Change::Clear { start: Sector(1016), len: Sectors(4) };
    for change in [clear, set(2000, 8, Kind::Mapped(slot(7))), set(2004, 4, Kind::PoisonData)] {
        let _ = store.commit(&[change]).unwrap();
    }
    store.into_disk()
}

pub fn metadata(data: &[u8]) {
    static USED: OnceLock<RamDisk> = OnceLock::new();
    let mut disk = USED.get_or_init(used).clone();
    mutate::run(&mut disk, &mut Input(data));
    let mut found = disk.clone();
    let report = check(&mut found);
    for finding in &report.findings {
        assert!(
            !finding.place.is_empty() && !finding.what.is_empty() && !finding.remedy.is_empty()
        );
    }
    let dumped = dump(&mut found);
    let identified = identify(&mut found);
    assert_eq!(dumped.is_ok(), report.is_usable(), "check and dump disagree");
    assert!(identified.is_ok() || dumped.is_err(), "served without a label");
    assert!(found.same(&disk), "a tool that only reads has written");
    if let Ok(dumped) = &dumped {
        let json = serde_json::to_string(dumped).unwrap();
        let again: Dump = serde_json::from_str(&json).unwrap();
        assert_eq!(again, *dumped);
        // What a tool wrote a tool accepts, or says why not: a layout of its own may have no room for it.
        let mut other = RamDisk::new(SPARE);
        match restore(&mut other, &again, spare_disk(), 43, false) {
            Ok(_) => {
                let restored = dump(&mut other).unwrap();
                assert_eq!((restored.extents, restored.retired), (again.extents, again.retired));
            }
            Err(error) => refused(&error),
        }
    }
    match Store::open(disk.clone(), &expect()) {
        Ok((store, _)) => served(store),
        Err(error) => {
            refused(&error);
            let mut mended = disk.clone();
            // Repair is no way around a refusal.
            assert!(repair(&mut mended, &expect()).is_err());
            assert!(mended.same(&disk) || matches!(error, Error::Unwritable(_)), "{error}");
        }
    }
}

/// A refusal says what was found in words.
fn refused(error: &Error) {
    let text = error.to_string();
    assert!(text.split_whitespace().count() >= 4, "{text}");
}

fn served(mut store: Store<RamDisk>) {
    sound(store.table(), &store);
    let before = store.table().clone();
    let mapped = store.superblock().mapped;
    let change = Change::Clear { start: Sector(0), len: Sectors(mapped.0.min(1 << 16)) };
    let committed = match store.commit(&[change]) {
        Ok(_) => true,
        Err(CommitError::Full(_) | CommitError::Invalid(_) | CommitError::ReadOnly { .. }) => false,
        Err(error) => {
            // Every write succeeds here: only what was read can be at fault, and it was accepted.
            let text = error.to_string();
            assert!(text.contains("used up"), "{text}");
            return;
        }
    };
    let mut expected = before;
    if committed {
        expected.apply(&change);
    }
    assert_eq!(store.table(), &expected);
    let disk = store.into_disk();
    match Store::open(disk, &expect()) {
        Ok((again, _)) => assert_eq!(again.table(), &expected, "another table after a restart"),
        Err(error) => {
            assert!(error.to_string().contains("used up"), "served, then refused: {error}")
        }
    }
}

/// What FORMAT.md promises of a table that is served.
fn sound(table: &Table, store: &Store<RamDisk>) {
    let (label, geometry) = (store.superblock(), store.geometry());
    let area = geometry.slots.0..geometry.slots.0 + geometry.slot_sectors.0;
    let mut end = 0;
    let mut slots: Vec<(u64, u64)> = table.retired().map(|(slot, len)| (slot.0, len.0)).collect();
    for extent in table.extents() {
        assert!(extent.start.0 >= end, "extents overlap or are out of order");
        end = extent.end().0;
        assert!(extent.len.0 > 0 && end <= label.mapped.0);
        assert!(extent.start.0 % label.block.0 == 0 && extent.len.0 % label.block.0 == 0);
        slots.extend(extent.kind.slot().map(|slot| (slot.0, extent.len.0)));
    }
    slots.sort_unstable();
    for &(slot, len) in &slots {
        assert!(area.contains(&slot) && slot + len <= area.end, "outside the slot area");
    }
    assert!(slots.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "a sector of the spare twice");
}
