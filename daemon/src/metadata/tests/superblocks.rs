//! The five copies of the superblock: lost, torn, older, refused; and the order in which they are written.

use super::damage::{LOSSES, Loss, history, lose, lose_mirror, until_it_is_known};
use super::ram::Random;
use super::*;
use crate::metadata::layout::COPIES;
use crate::metadata::{CommitError, Error, identify};

#[test]
fn any_four_superblocks_and_one_mirror_may_be_lost_and_five_superblocks_may_not() {
    let (older, store) = history();
    let (table, geometry) = (store.table().clone(), *store.geometry());
    let label = store.superblock().label;
    let disk = store.into_disk();
    let mut random = Random(11);
    let mut seen = 0;
    for subset in 1u32..32 {
        for case in 0..8 {
            let mut lost = disk.clone();
            for (_, &at) in COPIES.iter().enumerate().filter(|(n, _)| subset >> n & 1 != 0) {
                let loss = LOSSES.get(case).copied();
                let loss = loss.unwrap_or_else(|| LOSSES[random.below(4) as usize]);
                lose(&mut lost, at, loss, &older);
            }
            if subset == 31 {
                let error = Store::open(lost, &expect()).err().unwrap();
                let behind = matches!(error, Error::Behind { .. });
                assert!(
                    behind || matches!(error, Error::NotFormatted | Error::NoSuperblock { .. })
                );
                continue;
            }
            assert_eq!(identify(&mut lost).unwrap().label, label);
            assert_eq!(open(lost.clone()).table(), &table, "{subset:05b} {case}");
            let (mirror, loss) = (random.below(2) as usize, LOSSES[random.below(4) as usize]);
            lose_mirror(&mut lost, &geometry, mirror, loss, &older);
            assert_eq!(open(lost).table(), &table, "{subset:05b} {case}, mirror {mirror} {loss:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 30 * 8);
}

#[test]
fn five_superblocks_that_are_lost_are_counted_by_what_is_wrong_with_them() {
    let (older, store) = history();
    let mut disk = store.into_disk();
    for (n, at) in COPIES.into_iter().enumerate() {
        lose(&mut disk, at, if n < 2 { Loss::Unreadable } else { Loss::Garbage }, &older);
    }
    let error = Store::open(disk, &expect()).err().unwrap();
    let counted = matches!(error, Error::NoSuperblock { unreadable: 2, damaged: 3 });
    assert!(counted, "{error}");
}

/// The only whole copy is not written to while another can take its place.
#[test]
fn a_second_cut_while_one_whole_copy_is_left() {
    let (_, store) = history();
    let table = store.table().clone();
    let mut disk = store.into_disk();
    COPIES[..3].iter().for_each(|&at| disk.break_block(at));
    for torn in [3, 4] {
        let mut disk = disk.clone();
        disk.put(COPIES[torn], &[0xa5; 4096]);
        disk.settle();
        let states = open(disk).into_disk().torn();
        assert!(states.len() >= 8, "{}", states.len());
        for (n, state) in states.into_iter().enumerate() {
            assert_eq!(open(state).table(), &table, "copy {torn}, cut in write {n}");
        }
    }
}

#[test]
fn all_superblocks_older_are_refused_because_the_log_names_a_newer_one() {
    let (older, store) = history();
    let mut disk = store.into_disk();
    COPIES.iter().for_each(|&at| lose(&mut disk, at, Loss::Older, &older));
    let error = Store::open(disk, &expect()).err().unwrap();
    assert!(matches!(error, Error::Behind { .. }));
    assert!(error.to_string().contains("restore a dump"), "{error}");
}

#[test]
fn superblocks_that_cannot_be_written_count_as_lost_and_without_any_the_store_is_dead() {
    let mut store = used();
    let table = store.table().clone();
    for (n, at) in COPIES.into_iter().enumerate() {
        store.disk.break_block(at);
        if n < 4 {
            store.checkpoint().unwrap();
            assert_eq!(store.current_copies(), 4 - n);
            assert_eq!(open(store.disk.clone()).table(), &table);
        }
    }
    assert!(matches!(store.checkpoint(), Err(CommitError::Superblock(_))));
    let (head, quarter) = (store.head, store.geometry().log_blocks / 4);
    assert_eq!(until_it_is_known(&mut store, &[]), (None, quarter + 1));
    assert_eq!(store.head, head, "nothing comes before the superblock");
    assert!(matches!(store.checkpoint(), Err(CommitError::Dead(_))));
}

/// One copy was bad, and the spare refused the others for a while, so none was known to be whole. A cut took the four
/// that were written together next.
#[test]
fn without_a_copy_known_to_be_whole_they_are_written_one_at_a_time() {
    let mut store = used();
    store.disk.break_block(COPIES[0]);
    store.checkpoint().unwrap();
    for at in COPIES {
        store.disk.bad_writes.extend(block_of(at));
    }
    assert!(matches!(store.checkpoint(), Err(CommitError::Superblock(_))));
    assert_eq!(store.current_copies(), 0);
    store.disk.bad_writes = block_of(COPIES[0]).collect();
    store.disk.settle();
    let before = store.table().clone();
    let change = map(store.superblock(), 9);
    let _ = store.commit(&[change]).unwrap();
    assert_eq!(store.current_copies(), 4);
    let after = store.table().clone();
    // Writes that were under way tear the blocks around them.
    store.disk.crashes(5, 200, |state, done| {
        let found = open(state).table().clone();
        assert!(found == after || (found == before && !done), "a third table");
    });
}

/// Four hold the new one durably when the flush after the fifth fails.
#[test]
fn a_superblock_is_in_force_with_the_first_flush_that_succeeds() {
    let mut store = used();
    store.disk.flushes = [vec![true; 2], vec![false; 20]].concat();
    store.checkpoint().unwrap();
    assert_eq!(store.current_copies(), 4);
}

/// It was given up until it was opened anew, for an absence of a moment.
#[test]
fn a_spare_that_is_away_while_a_superblock_is_written_is_not_given_up() {
    let mut store = used();
    store.disk.flushes = vec![true, false, false, false];
    assert!(matches!(store.checkpoint(), Err(CommitError::Superblock(_))));
    assert!(!store.wants_checkpoint());
    let (superblock, table) = (store.superblock().clone(), store.table().clone());
    store.disk.bad_writes.extend(0..SPARE);
    let change = map(&superblock, 9);
    assert!(matches!(store.commit(&[change]), Err(CommitError::Unknown { .. })));
    let quarter = store.geometry().log_blocks / 4;
    for _ in 1..quarter {
        assert!(matches!(store.restate(), Err(CommitError::Unknown { .. })));
    }
    store.disk.bad_writes.clear();
    let _ = store.restate().unwrap();
    assert_eq!(store.superblock().checkpoint.number, superblock.checkpoint.number + 1);
    assert_eq!(store.current_copies(), 5);
    let after = table_with(&table, &[change]);
    assert_eq!(open(store.disk.clone()).table(), &after);
    // The next one has all its tries again.
    let area = store.superblock().checkpoint.area;
    store.checkpoint().unwrap();
    assert_ne!(store.superblock().checkpoint.area, area);
    store.disk.flushes = vec![true, false, false, false];
    assert!(matches!(store.checkpoint(), Err(CommitError::Superblock(_))));
    store.disk.bad_writes.extend(0..SPARE);
    assert_eq!(until_it_is_known(&mut store, &[]), (None, quarter + 1));
}

/// The others are behind, and the log names the newest: it stands alone until one of them is as new.
#[test]
fn a_cut_in_an_opening_leaves_the_newest_copy_though_it_stands_alone() {
    for alone in COPIES {
        let (older, mut store) = history();
        store.checkpoint().unwrap();
        let change = map(store.superblock(), 50);
        let _ = store.commit(&[change]).unwrap();
        let table = store.table().clone();
        let mut disk = store.into_disk();
        for at in COPIES.into_iter().filter(|&at| at != alone) {
            lose(&mut disk, at, Loss::Older, &older);
        }
        disk.settle();
        for (n, state) in open(disk).into_disk().torn().into_iter().enumerate() {
            let found = Store::open(state, &expect());
            let (store, _) = found.unwrap_or_else(|e| panic!("copy at {alone}, write {n}: {e}"));
            assert_eq!(store.table(), &table, "copy at {alone}, write {n}");
        }
    }
}

/// An owner was cut off when it had written the next superblock to one copy, in its opening or its closing. That can be
/// neither read nor written then, and is back after another cut.
#[test]
fn a_copy_that_was_out_of_reach_shows_no_number_that_counts() {
    for start in [formatted(), history().1.into_disk()] {
        let store = open(start.clone());
        let (opened, table) = (store.disk.clone(), store.table().clone());
        let closed = store.close().unwrap();
        for (before, after) in [(&start, &opened), (&opened, &closed)] {
            for hidden in COPIES {
                let mut disk = after.clone();
                for at in COPIES.into_iter().filter(|&at| at != hidden) {
                    lose(&mut disk, at, Loss::Older, before);
                }
                disk.break_block(hidden);
                disk.settle();
                open(disk).into_disk().crashes(7, 20, |mut state, _| {
                    state.bad_reads.clear();
                    state.bad_writes.clear();
                    let found = Store::open(state, &expect());
                    let (store, _) = found.unwrap_or_else(|e| panic!("copy at {hidden}: {e}"));
                    assert_eq!(store.table(), &table);
                });
            }
        }
    }
}
