//! The offline tools: dump and restore, identities, room for a million extents.

use super::*;
use crate::metadata::format::format_with;
use crate::metadata::{Dump, Error, check, dump, identify, restore};

#[test]
fn a_dump_restores_the_table_the_label_and_the_sequence() {
    let store = used();
    let table = store.table().clone();
    let mut disk = store.close().unwrap();
    let text = serde_json::to_string(&dump(&mut disk).unwrap()).unwrap();
    let parsed: Dump = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed, dump(&mut disk).unwrap());
    let mut fresh = RamDisk::new(SPARE);
    restore(&mut fresh, &parsed, spare_disk(), 77, false).unwrap();
    assert!(check(&mut fresh).is_clean());
    let (store, durable) = Store::open(fresh, &expect()).unwrap();
    assert_eq!(store.table(), &table);
    assert_eq!(durable.sequence(), 5);
}

#[test]
fn the_field_names_of_a_dump_are_stable() {
    let json = serde_json::to_value(dump(&mut used().close().unwrap()).unwrap()).unwrap();
    let names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "block",
        "clean",
        "data",
        "epoch",
        "extents",
        "geometry",
        "label",
        "live",
        "machine",
        "mapped",
        "retired",
        "sequence",
        "spare",
        "superblock",
        "version",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        json["extents"][0]["kind"]["mapped"],
        json["geometry"]["slots"].as_u64().unwrap() + 4
    );
    assert_eq!(json["data"]["facts"]["wwn"], "naa.5000c500a1");
}

#[test]
fn a_dump_that_does_not_fit_is_refused() {
    let good = dump(&mut used().close().unwrap()).unwrap();
    let mut twice = good.clone();
    twice.extents.push(twice.extents[0]);
    let mut outside = good.clone();
    outside.extents[0].start = Sector(u64::MAX);
    let mut shared = good.clone();
    shared.retired.push((shared.geometry.slots, Sectors(64)));
    let newer = Dump { version: 2, ..good };
    for bad in [twice, outside, shared, newer] {
        let error = restore(&mut RamDisk::new(SPARE), &bad, spare_disk(), 7, false).unwrap_err();
        assert!(error.to_string().starts_with("cannot be stored"), "{error}");
    }
}

/// The remedy of nearly every fatal error is a dump. Restored to a new disk it made a spare that was served: each mapped
/// sector read as what that disk held there, without an error.
#[test]
fn a_dump_is_for_the_spare_it_was_made_of() {
    let dumped = dump(&mut used().close().unwrap()).unwrap();
    let other = Identity::new(Sectors(SPARE)).with(Fact::Serial, "OTHER");
    let refused = |disk: &mut RamDisk, dumped: &Dump, identity: &Identity| {
        let error = restore(disk, dumped, identity.clone(), 7, true).unwrap_err().to_string();
        assert!(identify(disk).is_err(), "it was written to");
        assert!(error.starts_with("this spare is not the one the dump was made of: "), "{error}");
        error
    };
    let error = refused(&mut RamDisk::new(SPARE), &dumped, &other);
    assert!(error.contains("its serial number is \"OTHER\""), "{error}");
    let mut coarse = RamDisk::new(SPARE);
    coarse.physical = 16384;
    assert!(refused(&mut coarse, &dumped, &spare_disk()).contains("would lie elsewhere"));

    // Nor is it for the data disk, which nothing but its size may tell from others, then or now.
    let (data, weak) = (dumped.data.clone(), Identity::new(dumped.data.size));
    let mut grown = data.clone();
    grown.size = Sectors(SPARE);
    for (stored, found) in
        [(&data, &data), (&weak, &weak), (&data, &weak), (&weak, &data), (&data, &grown)]
    {
        let dumped = Dump { data: stored.clone(), ..dumped.clone() };
        let disk = RamDisk::new(SPARE);
        let error = dumped.for_another(&disk, found.clone(), true).unwrap_err();
        assert!(matches!(error, Error::DumpsData), "{error}");
    }

    // Where the spare is lost, what it held is an error, and no place is thought to be bad that is not.
    for disk in [RamDisk::new(SPARE), coarse] {
        let moved = dumped.clone().for_another(&disk, other.clone(), false).unwrap();
        let mut disk = disk;
        restore(&mut disk, &moved, other.clone(), 7, false).unwrap();
        let (store, _) = Store::open(disk, &Expect { spare: other.clone(), ..expect() }).unwrap();
        let places = |kind: fn(Kind) -> bool| {
            let found = dumped.extents.iter().filter(move |extent| kind(extent.kind));
            found.map(|extent| (extent.start, extent.len)).collect::<Vec<_>>()
        };
        let lost: Vec<_> = store
            .table()
            .extents()
            .filter(|extent| matches!(extent.kind, Kind::PoisonSlot(_)))
            .map(|extent| (extent.start, extent.len))
            .collect();
        assert_eq!(lost, places(|kind| kind.slot().is_some()));
        assert!(!lost.is_empty());
        assert_eq!(store.table().len(), dumped.extents.len());
        assert_eq!(store.table().retired().count(), 0);
    }
}

#[test]
fn every_field_of_a_superblock_survives() {
    let all = Fact::ALL.into_iter();
    let data = all.fold(Identity::new(Sectors(3)), |id, fact| id.with(fact, &"x".repeat(252)));
    let mut superblock = used().superblock().clone();
    superblock.spare = data.clone();
    superblock.data = data;
    superblock.machine = None;
    superblock.live = [false, true];
    let at = Slot(2048);
    assert_eq!(Superblock::decode(at, &superblock.encode(at)).unwrap(), superblock);
    assert!(Superblock::decode(Slot(1024), &superblock.encode(at)).is_err(), "misplaced");
}

#[test]
fn a_million_extents_fit_and_a_commit_costs_what_it_costs_with_none() {
    const SECTORS: u64 = 5 << 21;
    let spare = Identity::new(Sectors(SECTORS)).with(Fact::Serial, "SPARE1");
    let expect = Expect { spare: spare.clone(), mapped: None, ..expect() };
    let mut disk = RamDisk::new(SECTORS);
    let request = Format { spare, mapped: Sectors(1 << 30), ..request() };
    let superblock = format(&mut disk, &request).unwrap();
    let mut table = Table::default();
    (0..1_000_000).for_each(|n| table.apply(&map(&superblock, n)));
    let request = Format { force: true, ..request };
    format_with(&mut disk, &request, &table, 7).unwrap();
    let (mut store, _) = Store::open(disk, &expect).unwrap();
    assert_eq!(store.table().len(), 1_000_000);
    store.disk.settle();
    let _ = store.commit(&[poison(2_000_000)]).unwrap();
    assert_eq!((store.disk.written(), store.disk.flush_count()), (2 * 4096, 1));
}
