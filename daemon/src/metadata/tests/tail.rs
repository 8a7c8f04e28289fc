//! The block after the last record cannot be read. Was there another record?

use super::*;
use crate::metadata::{CommitError, Error, Expect};

/// A spare after three commits, and what it was after each of them.
fn commits() -> (Store<RamDisk>, Vec<(RamDisk, Table)>) {
    let mut store = used();
    let mut disks = vec![(store.disk.clone(), store.table().clone())];
    for n in 20..23 {
        let change = map(store.superblock(), n);
        let _ = store.commit(&[change]).unwrap();
        disks.push((store.disk.clone(), store.table().clone()));
    }
    (store, disks)
}

/// Puts back what a mirror's log held after the commit `then`.
fn roll_back(
    disk: &mut RamDisk,
    geometry: &crate::metadata::Geometry,
    mirror: usize,
    then: &RamDisk,
) {
    for position in 0..u64::from(geometry.log_blocks) {
        let at = geometry.log_block(mirror, position);
        disk.put(at, &then.bytes(at, 4096));
    }
}

/// The power failed in a commit that had reached one mirror; there, the block after the record was
/// bad. The other mirror had nothing wrong with it, and the spare was refused all the same.
#[test]
fn a_cut_commit_and_a_bad_block_after_it_are_tolerated() {
    for mirror in 0..2 {
        let (store, disks) = commits();
        let (geometry, head) = (*store.geometry(), store.head);
        let mut disk = store.into_disk();
        roll_back(&mut disk, &geometry, 1 - mirror, &disks[2].0);
        disk.break_block(geometry.log_block(mirror, head));
        assert_eq!(open(disk).table(), &disks[3].1);
    }
}

#[test]
fn the_same_holds_for_the_first_record_after_a_checkpoint() {
    for mirror in 0..2 {
        let mut store = used();
        store.checkpoint().unwrap();
        let before = store.disk.clone();
        let change = map(store.superblock(), 20);
        let _ = store.commit(&[change]).unwrap();
        let (geometry, head, table) = (*store.geometry(), store.head, store.table().clone());
        let mut disk = store.into_disk();
        roll_back(&mut disk, &geometry, 1 - mirror, &before);
        disk.break_block(geometry.log_block(mirror, head));
        assert_eq!(open(disk.clone()).table(), &table);
        // Without its checkpoint the mirror is not known to be up to date.
        disk.bad_reads.extend(block_of(geometry.checkpoint_area(1 - mirror, 0)));
        disk.bad_reads.extend(block_of(geometry.checkpoint_area(1 - mirror, 1)));
        let error = Store::open(disk, &expect()).err().unwrap();
        assert!(matches!(error, Error::UnreadableTail { .. }), "{error}");
    }
}

/// A mirror had once refused a block, so that its next record is behind that; and that one cannot be read when the
/// other mirror cannot be either. The block that was refused reads as if nothing came after it.
#[test]
fn a_record_behind_a_block_that_failed_is_asked_for() {
    for mirror in 0..2 {
        let (mut store, _) = commits();
        let (geometry, head) = (*store.geometry(), store.head);
        let refused = geometry.log_block(mirror, head);
        store.disk.bad_writes.extend(block_of(refused));
        let change = map(store.superblock(), 30);
        assert!(matches!(store.commit(&[change]), Err(CommitError::Unknown { .. })));
        store.disk.bad_writes.clear();
        let _ = store.restate().unwrap();
        assert_eq!(store.head, head + 2);
        let table = store.table().clone();
        let mut disk = store.into_disk();
        disk.break_block(geometry.log_block(mirror, head + 1));
        assert_eq!(open(disk.clone()).table(), &table);
        for position in 0..u64::from(geometry.log_blocks) {
            disk.break_block(geometry.log_block(1 - mirror, position));
        }
        let error = Store::open(&mut disk, &expect()).err().unwrap();
        assert!(matches!(error, Error::UnreadableTail { .. }), "{error}");
        let accepting = Expect { accept_unreadable_tail: true, ..expect() };
        let (store, _) = Store::open(&mut disk, &accepting).unwrap();
        store.close().unwrap();
        assert!(Store::open(&mut disk, &expect()).is_ok());
    }
}

/// What no cut does: the last acknowledged record is lost in one mirror, which is older, and cannot be
/// read in the other. Serving the rest would be serving a prefix.
#[test]
fn a_mirror_that_fell_behind_does_not_answer_for_the_end() {
    for mirror in 0..2 {
        let (store, disks) = commits();
        let (geometry, head) = (*store.geometry(), store.head);
        let mut disk = store.into_disk();
        roll_back(&mut disk, &geometry, 1 - mirror, &disks[0].0);
        disk.break_block(geometry.log_block(mirror, head - 1));
        let error = Store::open(disk, &expect()).err().unwrap();
        let sector = geometry.log_block(mirror, head - 1);
        let named = matches!(error, Error::UnreadableTail { sector: at, sequence } if at == sector && sequence > 0);
        assert!(named, "sector {sector}: {error}");
        assert!(error.to_string().contains("--accept-unreadable-tail"), "{error}");
    }
}
