//! The power is cut at every point of every operation, then at every point of the recovery: what is
//! found is the table before or the table after, and after it once the operation has returned.

use super::*;
use crate::metadata::{CommitError, Error, repair};

const SAMPLES: u64 = 60;

struct Seen {
    before: u64,
    after: u64,
    states: u64,
}

/// `disk` has recorded an operation that led from one table to the other and was acknowledged.
fn crash(name: &str, disk: &RamDisk, before: &Table, after: &Table) -> Seen {
    let mut seen = Seen { before: 0, after: 0, states: 0 };
    let mut again = 0;
    let samples = if disk.written() <= 1 << 14 { 10 * SAMPLES } else { SAMPLES };
    seen.states = disk.crashes(1, samples, |mut state, done| {
        let opened = Store::open(&mut state, &expect());
        let found = opened.unwrap_or_else(|e| panic!("{name}: {e}")).0.table().clone();
        assert!(&found == after || (&found == before && !done), "{name}: a third table");
        seen.before += u64::from(&found == before);
        seen.after += u64::from(&found == after);
        again += 1;
        if again % 61 == 0 {
            state.crashes(again, 10, |state, done| {
                let second = open(state).table().clone();
                assert!(second == found || (!done && (&second == before || &second == after)));
            });
        }
    });
    println!("{name}: {} states, {} before, {} after", seen.states, seen.before, seen.after);
    seen
}

/// Both outcomes of a change must have been met, or the cuts prove nothing.
fn crash_change(name: &str, disk: &RamDisk, before: &Table, after: &Table) {
    let seen = crash(name, disk, before, after);
    assert!(seen.before > 0 && seen.after > 0, "{name}: only one outcome in {}", seen.states);
}

fn settled() -> (Store<RamDisk>, Table) {
    let mut store = used();
    store.disk.settle();
    let table = store.table().clone();
    (store, table)
}

#[test]
fn during_a_commit() {
    let (mut store, before) = settled();
    let change = map(store.superblock(), 9);
    let _ = store.commit(&[change]).unwrap();
    crash_change("commit", &store.disk, &before, &table_with(&before, &[change]));
}

#[test]
fn during_a_group_commit() {
    let (mut store, before) = settled();
    let group: Vec<_> =
        (200..200 + store.max_changes() as u64).map(|n| map(store.superblock(), n)).collect();
    let _ = store.commit(&group).unwrap();
    crash_change("group commit", &store.disk, &before, &table_with(&before, &group));
}

#[test]
fn during_commits_in_a_row() {
    let (mut store, before) = settled();
    let mut tables = vec![before];
    for n in 20..24 {
        let change = map(store.superblock(), n);
        let _ = store.commit(&[change]).unwrap();
        tables.push(store.table().clone());
    }
    store.disk.crashes(3, SAMPLES, |state, done| {
        let found = open(state).table().clone();
        let position = tables.iter().position(|table| *table == found);
        assert!(position.is_some() && (!done || position == Some(4)));
    });
}

#[test]
fn during_a_checkpoint_and_the_commit_after_it() {
    let (mut store, before) = settled();
    store.checkpoint().unwrap();
    crash("checkpoint", &store.disk, &before, &before);
    let change = map(store.superblock(), 9);
    let _ = store.commit(&[change]).unwrap();
    crash_change("checkpoint, commit", &store.disk, &before, &table_with(&before, &[change]));
}

#[test]
fn while_the_log_goes_round() {
    let (mut store, _) = settled();
    for n in 30..75 {
        let change = map(store.superblock(), n);
        if store.wants_checkpoint() {
            store.checkpoint().unwrap();
        }
        let before = store.table().clone();
        store.disk.settle();
        let _ = store.commit(&[change]).unwrap();
        crash("round", &store.disk, &before, store.table());
    }
}

#[test]
fn while_opening_under_a_new_epoch() {
    let (store, table) = settled();
    let mut disk = store.into_disk();
    let _ = open_in_place(&mut disk);
    crash("open", &disk, &table, &table);
}

fn open_in_place(disk: &mut RamDisk) -> Table {
    Store::open(disk, &expect()).unwrap().0.table().clone()
}

#[test]
fn while_closing() {
    let (store, table) = settled();
    let disk = store.close().unwrap();
    crash("close", &disk, &table, &table);
}

#[test]
fn while_a_commit_is_restated() {
    for failing in 0..2 {
        let (mut store, before) = settled();
        let change = map(store.superblock(), 9);
        match failing {
            0 => store.disk.flushes = vec![false, false],
            _ => {
                let sector = store.geometry().log_block(1, store.head);
                store.disk.bad_writes.extend(block_of(sector));
            }
        }
        let mut done = store.commit(&[change]);
        while let Err(e) = done {
            assert!(matches!(e, CommitError::Unknown { .. }), "{e}");
            assert_eq!(store.table(), &before, "an unknown commit is not in the table");
            assert!(matches!(store.commit(&[]), Err(CommitError::Unknown { .. })));
            done = store.restate();
        }
        assert_eq!(store.superblock().live, [true, true]);
        crash_change("restate", &store.disk, &before, &table_with(&before, &[change]));
    }
}

#[test]
fn while_a_mirror_is_declared_dead() {
    for mirror in 0..2 {
        let (mut store, before) = settled();
        let start = store.geometry().mirrors[mirror];
        let end = store.geometry().checkpoint_area(mirror, 0);
        store.disk.bad_writes.extend(start.0..end.0);
        let change = map(store.superblock(), 9);
        assert!(matches!(store.commit(&[change]), Err(CommitError::Unknown { .. })));
        let _ = store.restate().unwrap();
        assert!(!store.superblock().live[mirror] && store.superblock().live[1 - mirror]);
        let after = table_with(&before, &[change]);
        crash_change("mirror dead", &store.disk, &before, &after);
        // The dead mirror comes back with what it has: a prefix. It must not be believed.
        let more = map(store.superblock(), 10);
        let _ = store.commit(&[more]).unwrap();
        store.disk.bad_writes.clear();
        let last = table_with(&after, &[more]);
        let mut disk = store.into_disk();
        disk.settle();
        assert_eq!(open_in_place(&mut disk), last);
    }
}

#[test]
fn while_a_checkpoint_loses_a_mirror() {
    let (mut store, before) = settled();
    let geometry = *store.geometry();
    let area = geometry.checkpoint_area(0, 1 - store.superblock().checkpoint.area);
    store.disk.bad_writes.extend(block_of(area));
    store.checkpoint().unwrap();
    assert_eq!(store.superblock().live, [false, true]);
    crash("checkpoint on one mirror", &store.disk, &before, &before);
}

#[test]
fn while_repairing() {
    let (store, table) = settled();
    let mut disk = store.into_disk();
    let geometry = Superblock::decode(Slot(0), &disk.bytes(Slot(0), 4096)).unwrap().geometry;
    for sector in [Slot(1024), Slot(4096), geometry.mirrors[1]] {
        disk.put(sector, &[0xa5; 4096]);
    }
    disk.settle();
    repair(&mut disk, &expect()).unwrap();
    crash("repair", &disk, &table, &table);
}

#[test]
fn while_a_superblock_cannot_be_flushed() {
    let (mut store, before) = settled();
    store.disk.flushes = vec![true, false, true, false];
    store.checkpoint().unwrap();
    assert_eq!(store.current_copies(), 4);
    crash("superblock flush", &store.disk, &before, &before);
}

#[test]
fn while_formatting() {
    let mut fresh = RamDisk::new(SPARE);
    format(&mut fresh, &request()).unwrap();
    let mut empty = 0;
    fresh.crashes(5, SAMPLES, |mut state, done| match Store::open(&mut state, &expect()) {
        Ok((store, _)) => {
            empty += 1;
            assert!(store.table().is_empty());
        }
        Err(Error::NotFormatted | Error::NoSuperblock { .. }) => assert!(!done),
        Err(e) => panic!("{e}"),
    });
    assert!(empty > 0);

    let (store, table) = settled();
    let mut disk = store.into_disk();
    let over = Format { nonce: 43, force: true, ..request() };
    format(&mut disk, &over).unwrap();
    let mut seen = [0; 3];
    disk.crashes(6, SAMPLES, |mut state, done| match Store::open(&mut state, &expect()) {
        Ok((store, _)) if store.table() == &table && !done => seen[0] += 1,
        Ok((store, _)) if store.table().is_empty() => seen[1] += 1,
        Err(Error::NotFormatted | Error::NoSuperblock { .. }) if !done => seen[2] += 1,
        Ok(_) => panic!("a third table"),
        Err(e) => panic!("{e}"),
    });
    assert!(seen.iter().all(|&n| n > 0), "{seen:?}");
}

/// A superblock that was read from the disk's cache was taken for durable, and the checkpoint area
/// of its predecessor overwritten; the power cut then brought the predecessor back. So the process
/// dies at every step first, and the power fails only while the next one recovers.
#[test]
fn while_reopening_after_the_process_died_at_any_point() {
    for steps in (0..24).step_by(2) {
        let (mut store, before) = settled();
        store.disk.killed_after = Some(steps);
        let change = map(store.superblock(), 9);
        let _ = store.checkpoint();
        let _ = store.commit(&[change]);
        let mut disk = store.into_disk();
        disk.killed_after = None;
        let found = open_in_place(&mut disk);
        assert!(found == before || found == table_with(&before, &[change]));
        crash("killed", &disk, &before, &found);
    }
}

#[test]
fn while_reopening_after_superblocks_that_could_not_be_flushed() {
    let (mut store, before) = settled();
    store.disk.flushes = vec![true, false, false, false];
    assert!(matches!(store.checkpoint(), Err(CommitError::Dead(_))));
    let mut disk = store.into_disk();
    assert_eq!(open_in_place(&mut disk), before);
    crash("reopened", &disk, &before, &before);
}

#[test]
fn on_a_disk_with_larger_blocks() {
    let mut disk = RamDisk::new(40 * 2048);
    disk.physical = 16384;
    let spare = Identity::new(Sectors(40 * 2048)).with(Fact::Serial, "SPARE1");
    format(&mut disk, &Format { spare: spare.clone(), ..request() }).unwrap();
    let expect = Expect { spare, ..expect() };
    let (mut store, _) = Store::open(disk, &expect).unwrap();
    assert_eq!(store.geometry().unit, Sectors(32));
    let group: Vec<_> = (0..120).map(|n| map(store.superblock(), n)).collect();
    store.disk.settle();
    let _ = store.commit(&group).unwrap();
    let after = table_with(&Table::default(), &group);
    store.disk.crashes(9, SAMPLES, |state, done| {
        let (found, _) = Store::open(state, &expect).unwrap();
        assert!(found.table() == &after || (found.table().is_empty() && !done));
    });
}
