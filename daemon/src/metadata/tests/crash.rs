//! The power is cut where a history is longer, or a disk other, than in `exhaustive`: what is found is
//! the table before or the table after, and after it once all has returned.

use super::*;
use crate::metadata::CommitError;

const SAMPLES: u64 = 60;

/// `disk` has recorded an operation that led from one table to the other and was acknowledged. Both
/// must have been met, or the cuts prove nothing.
fn crash(disk: &RamDisk, before: &Table, after: &Table) {
    let (mut old, mut new) = (false, false);
    disk.crashes(1, SAMPLES, |state, done| {
        let found = open(state).table().clone();
        assert!(&found == after || (&found == before && !done), "a third table");
        old |= &found == before;
        new |= &found == after;
    });
    assert!(old && new, "only one outcome");
}

fn settled() -> (Store<RamDisk>, Table) {
    let mut store = used();
    store.disk.settle();
    let table = store.table().clone();
    (store, table)
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
        crash(&store.disk, &before, store.table());
    }
}

/// It comes back with what it has: a prefix. It must not be believed.
#[test]
fn after_a_dead_mirror_has_come_back() {
    for mirror in 0..2 {
        let (mut store, _) = settled();
        let start = store.geometry().mirrors[mirror];
        let end = store.geometry().checkpoint_area(mirror, 0);
        store.disk.bad_writes.extend(start.0..end.0);
        let (change, head) = (map(store.superblock(), 9), store.head);
        assert!(matches!(store.commit(&[change]), Err(CommitError::Unknown { .. })));
        let _ = store.restate().unwrap();
        assert_eq!(store.head - head, 3, "the third write knows that the mirror is dead");
        let before = store.table().clone();
        store.disk.bad_writes.clear();
        store.disk.settle();
        let more = map(store.superblock(), 10);
        let _ = store.commit(&[more]).unwrap();
        crash(&store.disk, &before, store.table());
    }
}

#[test]
fn while_reopening_after_superblocks_that_could_not_be_flushed() {
    let (mut store, before) = settled();
    store.disk.flushes = vec![true, false, false, false];
    assert!(matches!(store.checkpoint(), Err(CommitError::Superblock(_))));
    let mut disk = store.into_disk();
    assert_eq!(open(&mut disk).table(), &before);
    crash(&disk, &before, &before);
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
