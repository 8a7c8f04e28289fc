//! Commits, checkpoints and what survives a reopening.

use super::*;
use crate::metadata::{CommitError, Error};

#[test]
fn a_fresh_spare_is_empty_and_what_is_committed_is_there_after_reopening() {
    let store = used();
    let table = store.table().clone();
    assert_eq!(table.len(), 6);
    let (again, durable) = Store::open(store.into_disk(), &expect()).unwrap();
    assert_eq!(again.table(), &table);
    assert_eq!(durable.sequence(), 5);
}

#[test]
fn a_commit_costs_one_block_a_mirror_and_one_flush_whatever_the_table() {
    let mut store = used();
    let superblock = store.superblock().clone();
    for _ in 0..2 {
        store.disk.settle();
        let _ = store.commit(&[map(&superblock, 50), map(&superblock, 51)]).unwrap();
        assert_eq!((store.disk.written(), store.disk.flush_count()), (2 * 4096, 1));
        let _ = store.commit(&(60..220).map(|n| map(&superblock, n)).collect::<Vec<_>>()).unwrap();
    }
}

#[test]
fn a_full_log_refuses_until_a_checkpoint() {
    let mut store = used();
    let mut n = 100;
    let full = loop {
        n += 1;
        assert!(n < 200, "the log never fills");
        let superblock = store.superblock().clone();
        match store.commit(&[map(&superblock, n)]) {
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert!(matches!(full, CommitError::Full(_)), "{full}");
    assert!(store.wants_checkpoint());
    store.checkpoint().unwrap();
    assert!(!store.wants_checkpoint());
    let superblock = store.superblock().clone();
    let _ = store.commit(&[map(&superblock, n)]).unwrap();
    let table = store.table().clone();
    assert_eq!(open(store.into_disk()).table(), &table);
}

#[test]
fn a_closed_spare_may_move_to_another_machine_and_an_open_one_may_not() {
    let elsewhere = Expect { machine: Some(Uuid([8; 16])), ..expect() };
    let store = used();
    let table = store.table().clone();
    let mut disk = store.into_disk();
    let refused = Store::open(&mut disk, &elsewhere).err().unwrap();
    assert!(matches!(refused, Error::Unclean { machine: OURS }));
    assert!(refused.to_string().contains("repair with --take-over"), "{refused}");
    let taken = Expect { take_over: true, ..elsewhere.clone() };
    let (store, _) = Store::open(&mut disk, &taken).unwrap();
    assert_eq!(store.table(), &table);
    store.close().unwrap();
    assert!(Store::open(&mut disk, &expect()).is_ok());
}

#[test]
fn what_fails_near_the_end_of_the_log_can_still_be_restated() {
    let mut store = used();
    for n in 100..200 {
        store.disk.flushes = vec![false];
        let change = map(store.superblock(), n);
        match store.commit(&[change]) {
            Err(CommitError::Unknown { .. }) => drop(store.restate().unwrap()),
            Err(CommitError::Full(_)) => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("the log never fills");
}

#[test]
fn more_extents_than_a_checkpoint_holds_are_refused_and_what_is_there_stays() {
    let mut store = open(formatted());
    let max = store.geometry().max_entries();
    let mut next = 0;
    let full = loop {
        let some: Vec<_> = (next..next + 100).map(poison).collect();
        next += 100;
        match store.commit(&some) {
            Ok(_) if store.wants_checkpoint() => store.checkpoint().unwrap(),
            Ok(_) => assert!(next < 10_000, "it never fills"),
            Err(e) => break e,
        }
    };
    assert!(matches!(full, CommitError::Full(_)), "{full}");
    assert!(store.table().len() <= max && store.table().len() + 640 > max);
    let table = store.table().clone();
    let mut again = open(store.into_disk());
    assert_eq!(again.table(), &table);
    let clear = Change::Clear { start: Sector(500_000), len: Sectors(16_000) };
    let _ = again.commit(&[clear]).unwrap();
    let _ = again.commit(&[poison(next)]).unwrap();
}
