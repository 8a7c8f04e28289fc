//! The metadata over a disk in memory.

mod basic;
mod crash;
mod damage;
mod exhaustive;
mod fuzz;
mod model;
mod ram;
mod refusal;
mod shared;
mod superblocks;
mod tail;
mod tools;

use super::{Disk, Expect, Fact, Format, Identity, Store, Superblock, Uuid, format};
use crate::table::{Change, Extent, Kind, Table};
use crate::units::{Sector, Sectors, Slot};
use ram::RamDisk;

const SPARE: u64 = 8 * 2048;
const MAPPED: u64 = 1 << 20;
const OURS: Uuid = Uuid([7; 16]);

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
        machine: Some(OURS),
        weak_identity: false,
        force: false,
    }
}

fn expect() -> Expect {
    Expect {
        label: Some(Uuid([1; 16])),
        data: Some(data_disk()),
        mapped: Some(Sectors(MAPPED)),
        block: Some(Sectors(1)),
        machine: Some(OURS),
        ..Expect::spare(spare_disk())
    }
}

fn formatted() -> RamDisk {
    let mut disk = RamDisk::new(SPARE);
    format(&mut disk, &request()).unwrap();
    disk.settle();
    disk
}

fn open<D: Disk>(disk: D) -> Store<D> {
    Store::open(disk, &expect()).unwrap().0
}

/// The `n`-th mapping, to a slot of its own.
fn map(superblock: &Superblock, n: u64) -> Change {
    let slot = superblock.geometry.slots + Sectors(8 * n);
    let (start, len) = (Sector(1000 + 16 * n), Sectors(8));
    Change::Set(Extent { start, len, kind: Kind::Mapped(slot) })
}

fn poison(n: u64) -> Change {
    let (start, len) = (Sector(500_000 + 16 * n), Sectors(3));
    Change::Set(Extent { start, len, kind: Kind::PoisonData })
}

fn table_with(before: &Table, changes: &[Change]) -> Table {
    let mut table = before.clone();
    changes.iter().for_each(|change| table.apply(change));
    table
}

fn used() -> Store<RamDisk> {
    in_use(formatted())
}

/// A spare in use: a few commits, a checkpoint, a few more.
fn in_use<D: Disk>(formatted: D) -> Store<D> {
    let mut store = open(formatted);
    for n in 0..3 {
        let _ = store.commit(&[map(&store.superblock().clone(), n), poison(n)]).unwrap();
    }
    store.checkpoint().unwrap();
    let slot = store.geometry().slots + Sectors(800);
    let _ = store.commit(&[Change::Retire { slot, len: Sectors(8) }]).unwrap();
    let _ = store.commit(&[Change::Clear { start: Sector(1000), len: Sectors(4) }]).unwrap();
    store
}

fn block_of(at: Slot) -> std::ops::Range<u64> {
    at.0..at.0 + 8
}
