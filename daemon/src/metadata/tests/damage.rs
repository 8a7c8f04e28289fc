//! What is lost and tolerated, and what is lost and refused.

use super::*;
use crate::metadata::block::{HEADER, Header, Kind as Block, LIMIT, Label};
use crate::metadata::device::read_blocks;
use crate::metadata::layout::COPIES;
use crate::metadata::{CommitError, Error, check, repair};

#[derive(Clone, Copy, Debug)]
pub enum Loss {
    Unreadable,
    Zeroed,
    Garbage,
    Older,
}

pub const LOSSES: [Loss; 4] = [Loss::Unreadable, Loss::Zeroed, Loss::Garbage, Loss::Older];

pub fn lose(disk: &mut RamDisk, at: Slot, loss: Loss, older: &RamDisk) {
    match loss {
        Loss::Unreadable => disk.bad_reads.extend(block_of(at)),
        Loss::Zeroed => disk.put(at, &[0; 4096]),
        Loss::Garbage => disk.put(at, &[0x5a; 4096]),
        Loss::Older => disk.put(at, &older.bytes(at, 4096)),
    }
}

pub fn lose_mirror(
    disk: &mut RamDisk,
    geometry: &crate::metadata::Geometry,
    mirror: usize,
    loss: Loss,
    older: &RamDisk,
) {
    let blocks = geometry.log_blocks + 2 * geometry.checkpoint_blocks;
    for n in 0..u64::from(blocks) {
        lose(disk, geometry.mirrors[mirror] + Sectors(8 * n), loss, older);
    }
}

/// A spare as it was, and as it is: a checkpoint and some commits later.
pub fn history() -> (RamDisk, Store<RamDisk>) {
    let mut store = used();
    let older = store.disk.clone();
    store.checkpoint().unwrap();
    for n in 40..44 {
        let change = map(store.superblock(), n);
        let _ = store.commit(&[change]).unwrap();
    }
    (older, store)
}

#[test]
fn every_block_of_a_mirror_may_be_bad_and_different_ones_in_both() {
    let (older, store) = history();
    let (table, geometry) = (store.table().clone(), *store.geometry());
    let area =
        geometry.checkpoint_area(0, store.superblock().checkpoint.area) - geometry.mirrors[0];
    let disk = store.into_disk();
    let log = (0..geometry.log_blocks.into()).map(|n| Sectors(8 * n));
    let places: Vec<Sectors> = log.chain([area]).collect();
    for loss in LOSSES {
        for mirror in 0..2 {
            for (n, &place) in places.iter().enumerate() {
                let mut lost = disk.clone();
                lose(&mut lost, geometry.mirrors[mirror] + place, loss, &older);
                let other = places[(n + 3) % places.len()];
                lose(&mut lost, geometry.mirrors[1 - mirror] + other, loss, &older);
                let found = Store::open(lost, &expect());
                let found = found.unwrap_or_else(|e| panic!("{loss:?} {mirror} {place}: {e}")).0;
                assert_eq!(found.table(), &table, "{loss:?} {mirror} {place}");
            }
        }
    }
}

#[test]
fn a_record_lost_in_both_mirrors_is_refused_and_never_a_prefix_served() {
    let (older, store) = history();
    let (geometry, head, last) = (*store.geometry(), store.head, store.durable().sequence());
    let disk = store.into_disk();
    for back in 2..5 {
        for loss in LOSSES {
            let mut lost = disk.clone();
            for mirror in 0..2 {
                lose(&mut lost, geometry.log_block(mirror, head - back), loss, &older);
            }
            let error = Store::open(lost, &expect()).err().unwrap();
            let Error::Gap { missing, later } = error else { panic!("{back} {loss:?}: {error}") };
            assert_eq!((missing, later), (last + 1 - back, last + 2 - back), "{loss:?}");
        }
    }
}

#[test]
fn an_unreadable_end_of_the_log_is_refused_until_the_operator_accepts_it() {
    let (older, store) = history();
    let (geometry, head) = (*store.geometry(), store.head);
    let mut disk = store.into_disk();
    lose(&mut disk, geometry.log_block(0, head - 1), Loss::Unreadable, &older);
    lose(&mut disk, geometry.log_block(1, head - 1), Loss::Unreadable, &older);
    let error = Store::open(&mut disk, &expect()).err().unwrap();
    assert!(matches!(error, Error::UnreadableTail { .. }), "{error}");
    assert!(error.to_string().contains("--accept-unreadable-tail"));
    let accepting = Expect { accept_unreadable_tail: true, ..expect() };
    assert!(Store::open(&mut disk, &accepting).is_ok());
    // The block is as bad as before, and nobody is asked again.
    assert!(Store::open(&mut disk, &expect()).is_ok());
}

#[test]
fn a_checkpoint_block_lost_in_both_mirrors_is_refused() {
    let (older, store) = history();
    let superblock = store.superblock().clone();
    let mut disk = store.into_disk();
    for mirror in 0..2 {
        let at = superblock.geometry.checkpoint_area(mirror, superblock.checkpoint.area);
        lose(&mut disk, at, Loss::Garbage, &older);
    }
    let error = Store::open(disk, &expect()).err().unwrap();
    assert!(matches!(error, Error::CheckpointLost { block: 0 }), "{error}");
}

#[test]
fn a_log_rolled_back_below_what_a_superblock_names_is_refused() {
    let mut store = used();
    let older = store.disk.clone();
    let change = map(store.superblock(), 9);
    let _ = store.commit(&[change]).unwrap();
    let geometry = *store.geometry();
    let mut disk = store.close().unwrap();
    lose_mirror(&mut disk, &geometry, 0, Loss::Older, &older);
    assert!(Store::open(disk.clone(), &expect()).is_ok(), "one mirror may be stale");
    lose_mirror(&mut disk, &geometry, 1, Loss::Older, &older);
    let error = Store::open(disk, &expect()).err().unwrap();
    assert!(matches!(error, Error::Behind { .. }), "{error}");
}

/// The sequence if it is durable, nothing if the store is dead; and how often it was tried.
pub fn until_it_is_known(store: &mut Store<RamDisk>, changes: &[Change]) -> (Option<u64>, u32) {
    let mut done = store.commit(changes);
    for tries in 1.. {
        match done {
            Ok(durable) => return (Some(durable.sequence()), tries),
            Err(CommitError::Unknown { .. }) => done = store.restate(),
            Err(CommitError::Dead(_)) => return (None, tries),
            Err(e) => panic!("{e}"),
        }
    }
    unreachable!("it ends")
}

#[test]
fn a_spare_that_takes_no_writes_dies_after_its_log_is_used_up() {
    let mut store = used();
    store.disk.bad_writes.extend(0..SPARE);
    let change = map(store.superblock(), 9);
    let (sequence, tries) = until_it_is_known(&mut store, &[change]);
    assert_eq!(sequence, None);
    assert!(tries > 16, "{tries}");
}

/// The disk answers again in the middle of a commit: one mirror has failed no oftener than the other, but last.
#[test]
fn a_mirror_is_not_dead_for_writes_that_failed_in_both() {
    let mut store = used();
    let change = map(store.superblock(), 9);
    store.disk.bad_writes.extend(0..SPARE);
    let mut done = store.commit(&[change]);
    for _ in 0..3 {
        assert!(matches!(done, Err(CommitError::Unknown { .. })));
        done = store.restate();
    }
    let at = store.geometry().log_block(0, store.head);
    store.disk.bad_writes.clear();
    store.disk.bad_writes.extend(block_of(at));
    assert!(matches!(store.restate(), Err(CommitError::Unknown { .. })));
    let _ = store.restate().unwrap();
    assert_eq!(store.superblock().live, [true; 2]);
}

/// The block at `at`, changed and sealed anew.
fn forge(disk: &mut RamDisk, at: Slot, kind: Block, change: impl Fn(&mut Header, &mut [u8])) {
    let mut block = disk.bytes(at, 4096);
    let mut header = Header::open(kind, at, &block).unwrap();
    change(&mut header, &mut block);
    header.seal(&mut block);
    disk.put(at, &block);
}

#[test]
fn a_mirror_that_contradicts_the_other_is_refused_unless_it_is_dead() {
    let (_, store) = history();
    let (table, at) = (store.table().clone(), store.geometry().log_block(0, store.head - 2));
    let mut disk = store.into_disk();
    let sound = disk.clone();
    forge(&mut disk, at, Block::Record, |_, block| block[96] ^= 1);
    let error = Store::open(disk.clone(), &expect()).err().unwrap();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    for copy in COPIES {
        let mut superblock = Superblock::decode(copy, &disk.bytes(copy, 4096)).unwrap();
        superblock.live = [false, true];
        disk.put(copy, &superblock.encode(copy));
    }
    assert_eq!(open(disk).table(), &table);
    let mut moved = sound;
    forge(&mut moved, at, Block::Record, |header, _| header.ordinal += 1);
    let error = Store::open(moved, &expect()).err().unwrap();
    assert!(error.to_string().contains("out of place"), "{error}");
}

#[test]
fn a_checkpoint_other_than_the_one_named_is_refused() {
    let (_, store) = history();
    let superblock = store.superblock().clone();
    let mut disk = store.into_disk();
    for mirror in 0..2 {
        let at = superblock.geometry.checkpoint_area(mirror, superblock.checkpoint.area);
        forge(&mut disk, at, Block::Checkpoint, |_, block| block[80 + 8] ^= 8);
    }
    let error = Store::open(disk, &expect()).err().unwrap();
    assert!(error.to_string().contains("not the one its superblock names"), "{error}");
}

/// A commit reached one mirror only and was unknown; the block could not be read when the next
/// owner recovered, who then wrote something else; later the block was readable again.
#[test]
fn a_record_that_was_unreadable_when_its_epoch_ended_does_not_turn_up_later() {
    let mut store = used();
    let (epoch, at) = (store.superblock().epoch, store.geometry().log_block(0, store.head));
    store.disk.bad_writes.extend(block_of(store.geometry().log_block(1, store.head)));
    let lost = map(store.superblock(), 9);
    assert!(matches!(store.commit(&[lost]), Err(CommitError::Unknown { .. })));
    let mut disk = store.into_disk();
    disk.bad_writes.clear();
    let late = disk.bytes(at, 4096);
    disk.bad_reads.extend(block_of(at));
    let mut store = open(disk);
    assert_eq!(store.superblock().epoch, epoch + 1);
    store.disk.bad_reads.clear();
    let other = map(store.superblock(), 10);
    let _ = store.commit(&[other]).unwrap();
    let table = store.table().clone();
    let mut disk = store.into_disk();
    disk.put(at, &late);
    let found = Store::open(disk, &expect());
    // Its block is where the new epoch began: one mirror's copy of that record is lost.
    assert_eq!(found.unwrap().0.table(), &table);
}

#[test]
fn records_of_an_earlier_formatting_are_nothing() {
    let old = used();
    let mut disk = RamDisk::new(SPARE);
    format(&mut disk, &Format { nonce: 43, ..request() }).unwrap();
    let store = open(disk);
    let geometry = *store.geometry();
    let mut disk = store.into_disk();
    for position in 1..geometry.log_blocks.into() {
        let at = geometry.log_block(0, position);
        disk.put(at, &old.disk.bytes(at, 4096));
    }
    assert!(open(disk).table().is_empty());
}

#[test]
fn one_slot_in_two_extents_is_refused() {
    let mut store = used();
    let Change::Set(extent) = map(store.superblock(), 9) else { panic!() };
    let twice = Extent { start: Sector(0), ..extent };
    let _ = store.commit(&[Change::Set(extent), Change::Set(twice)]).unwrap();
    let error = Store::open(store.into_disk(), &expect()).err().unwrap();
    assert!(error.to_string().contains("is used twice"), "{error}");
}

#[test]
fn check_names_every_loss_and_repair_ends_them() {
    let (older, mut store) = history();
    let start = store.geometry().mirrors[0];
    store.disk.bad_writes.extend(start.0..start.0 + 2048);
    let change = map(store.superblock(), 50);
    let _ = store.commit(&[change]);
    let _ = store.restate().unwrap();
    let table = store.table().clone();
    let mut disk = store.into_disk();
    disk.bad_writes.clear();
    lose(&mut disk, COPIES[2], Loss::Older, &older);
    lose(&mut disk, COPIES[4], Loss::Zeroed, &older);
    disk.settle();
    let before = check(&mut disk);
    assert_eq!(disk.written(), 0, "check writes nothing");
    let places: Vec<_> = before.findings.iter().map(|f| f.place.as_str()).collect();
    for place in ["superblock copy 2", "superblock copy 4", "mirror 0"] {
        assert!(places.contains(&place), "{place} in {places:?}");
    }
    assert!(!before.is_clean() && before.is_usable());
    let (_, after) = repair(&mut disk, &expect()).unwrap();
    assert!(after.is_clean(), "{:?}", after.findings);
    let store = open(disk);
    assert_eq!((store.table(), store.superblock().live), (&table, [true, true]));
}

/// Whole, and for its place; only that it is another's tells it apart.
#[test]
fn a_block_of_another_checkpoint_is_not_taken_for_ones_own() {
    let mut store = used();
    store.checkpoint().unwrap();
    let (table, checkpoint) = (store.table().clone(), store.superblock().checkpoint);
    let at = store.geometry().checkpoint_area(0, checkpoint.area);
    let disk = store.close().unwrap();
    let bytes = disk.bytes(at, 4096);
    let own = Header::open(Block::Checkpoint, at, &bytes).unwrap();
    for other in [
        Header { label: Label { nonce: own.label.nonce + 1, ..own.label }, ..own },
        Header { epoch: own.epoch + 1, ..own },
        Header { ordinal: own.ordinal + 1, ..own },
        Header { sequence: own.sequence + 1, ..own },
    ] {
        let (mut disk, mut block) = (disk.clone(), bytes.clone());
        // Its content is another's, too.
        block[4095] ^= 1;
        block[HEADER] ^= 1;
        other.seal(&mut block);
        disk.put(at, &block);
        let report = check(&mut disk);
        let said = report.findings.iter().any(|f| f.what.contains("another checkpoint"));
        assert!(said && report.is_usable(), "{other:?}: {:?}", report.findings);
        assert_eq!(open(disk).table(), &table, "{other:?}");
    }
}

#[test]
fn a_bad_block_costs_only_itself_in_areas_of_any_size() {
    const BLOCKS: u32 = 2 * 256 + 3;
    let mut disk = RamDisk::new(SPARE);
    let at = |n: u32| Slot(8 + 8 * u64::from(n));
    for n in 0..BLOCKS {
        disk.put(at(n), &[n as u8; 4096]);
    }
    let bad = [0, 255, 256, 300, BLOCKS - 1];
    for subset in 0..1 << bad.len() {
        let lost = || bad.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, n)| *n);
        disk.bad_reads = lost().flat_map(|n| block_of(at(n))).collect();
        let mut next = 0;
        read_blocks(&mut disk, at(0), BLOCKS, Sectors(8), |n, block| {
            assert_eq!((n, block.is_err()), (next, lost().any(|bad| bad == n)));
            assert!(block.is_err() || block.unwrap() == [n as u8; 4096]);
            next += 1;
        });
        assert_eq!(next, BLOCKS);
    }
}

#[test]
fn sequences_and_positions_end_before_they_wrap() {
    for (sequence, position) in [(LIMIT - 2, 8), (8, LIMIT - 2)] {
        let mut disk = formatted();
        let mut superblock = Superblock::decode(Slot(0), &disk.bytes(Slot(0), 4096)).unwrap();
        superblock.sequence = sequence;
        (superblock.checkpoint.sequence, superblock.checkpoint.position) = (sequence, position);
        COPIES.iter().for_each(|&at| disk.put(at, &superblock.encode(at)));
        for mirror in 0..2 {
            let at = superblock.geometry.checkpoint_area(mirror, superblock.checkpoint.area);
            forge(&mut disk, at, Block::Checkpoint, |header, _| header.sequence = sequence);
        }
        let mut store = open(disk);
        assert_eq!((store.durable().sequence(), store.head), (sequence, position));
        let _ = store.commit(&[poison(0)]).unwrap();
        let error = store.commit(&[poison(1)]).unwrap_err().to_string();
        assert!(error.contains("used up"), "{error}");
    }
}
