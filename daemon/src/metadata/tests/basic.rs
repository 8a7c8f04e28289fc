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
    assert!(durable.sequence() > 7);
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
    let _ = store.checkpoint().unwrap();
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
    assert!(refused.to_string().contains("use --take-over"), "{refused}");
    let taken = Expect { take_over: true, ..elsewhere.clone() };
    let (store, _) = Store::open(&mut disk, &taken).unwrap();
    assert_eq!(store.table(), &table);
    store.close().unwrap();
    assert!(Store::open(&mut disk, &expect()).is_ok());
}
