//! Every operation of the metadata, as what it does to a disk and what it leads from and to.

use super::image::{BLOCK, Image, SECTOR, SECTORS};
use super::recorder::{Op, Recorder};
use crate::metadata::block::HEADER;
use crate::metadata::layout::COPIES;
use crate::metadata::record::ENTRY;
use crate::metadata::tests::*;
use crate::metadata::{CommitError, Durable, Geometry, dump, identify, repair, restore};

/// What a spare serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub table: Table,
    pub sequence: u64,
}

impl Found {
    pub fn of<D: crate::metadata::Disk>(store: &Store<D>) -> Found {
        Found { table: store.table().clone(), sequence: store.durable().sequence() }
    }
}

pub struct Operation {
    pub name: &'static str,
    /// Durable before it began.
    pub start: Image,
    pub ops: Vec<Op>,
    pub before: Option<Found>,
    pub after: Found,
    /// The one in force once it has returned.
    pub superblock: Superblock,
    /// There is a time without a label: a format that was cut is begun again.
    pub unlabelled: bool,
    /// A mirror that is faulty already: the other one must not be.
    pub faulty: Option<usize>,
    pub expect: Expect,
}

/// A spare in use whose log has gone round: what is written goes over records of so many `sectors`,
/// each of which makes a difference. Those that nothing is written over only cost time, and are left
/// out.
fn settled(sectors: usize) -> Store<Recorder> {
    let mut disk = Recorder::default();
    format(&mut disk, &request()).unwrap();
    let mut store = in_use(disk);
    let log = u64::from(store.geometry().log_blocks);
    for n in 0..log + 3 {
        if store.wants_checkpoint() {
            store.checkpoint().unwrap();
        }
        let nothing = |i| Change::Clear { start: Sector(600_000 + 200 * n + i), len: Sectors(1) };
        let room = (SECTOR * sectors - HEADER) / ENTRY;
        let some: Vec<Change> = (0..room as u64).map(nothing).collect();
        let _ = store.commit(&some).unwrap();
    }
    store.checkpoint().unwrap();
    let retire = Change::Retire { slot: store.geometry().slots + Sectors(800), len: Sectors(8) };
    for change in [map(store.superblock(), 7), retire] {
        let _ = store.commit(&[change]).unwrap();
    }
    let (geometry, from) = (*store.geometry(), store.superblock().checkpoint.position);
    for position in from + 7..from + log - 1 {
        for mirror in 0..2 {
            store.disk.image.forget(geometry.log_block(mirror, position).0 / SECTORS);
        }
    }
    store.disk.ops.clear();
    store
}

type Step = fn(&mut Store<Recorder>) -> Found;

/// What `step` does to a settled store.
fn on(name: &'static str, faulty: Option<usize>, step: Step) -> Operation {
    over(2, name, faulty, step)
}

fn over(sectors: usize, name: &'static str, faulty: Option<usize>, step: Step) -> Operation {
    let mut store = settled(sectors);
    let (start, before) = (store.disk.image.clone(), Found::of(&store));
    let after = step(&mut store);
    Operation {
        name,
        start,
        ops: std::mem::take(&mut store.disk.ops),
        before: Some(before),
        after,
        superblock: store.superblock().clone(),
        unlabelled: false,
        faulty,
        expect: expect(),
    }
}

/// What `step` does to the disk of a spare that is not open.
fn off(
    name: &'static str,
    faulty: Option<usize>,
    step: fn(&mut Recorder) -> Superblock,
) -> Operation {
    let store = settled(2);
    let before = Found::of(&store);
    let mut disk = store.into_disk();
    let start = disk.image.clone();
    let superblock = step(&mut disk);
    let ops = std::mem::take(&mut disk.ops);
    let after = before.clone();
    let before = Some(before);
    let (unlabelled, expect) = (false, expect());
    Operation { name, start, ops, before, after, superblock, unlabelled, faulty, expect }
}

fn done(store: &mut Store<Recorder>, mut result: Result<Durable, CommitError>) -> Found {
    while let Err(CommitError::Unknown { .. }) = result {
        result = store.restate();
    }
    let _ = result.unwrap();
    Found::of(store)
}

fn commit(store: &mut Store<Recorder>, changes: &[Change]) -> Found {
    let result = store.commit(changes);
    done(store, result)
}

fn one(store: &Store<Recorder>) -> [Change; 1] {
    [map(store.superblock(), 9)]
}

fn log(geometry: &Geometry, mirror: usize) -> impl Iterator<Item = u64> {
    let first = geometry.mirrors[mirror].0 / SECTORS;
    first..first + u64::from(geometry.log_blocks)
}

pub fn a_commit() -> Operation {
    over(8, "commit", None, |store| commit(store, &one(store)))
}

pub fn group_commit() -> Operation {
    on("group commit", None, |store| {
        let group = 200..200 + store.max_changes() as u64;
        let group: Vec<Change> = group.map(|n| map(store.superblock(), n)).collect();
        commit(store, &group)
    })
}

pub fn restated_after_a_flush() -> Operation {
    on("commit restated after a flush", None, |store| {
        store.disk.flushes = [false, false].into();
        commit(store, &one(store))
    })
}

pub fn restated_after_a_write() -> Operation {
    on("commit restated after a write", Some(1), |store| {
        let next = store.geometry().log_block(1, store.head).0 / SECTORS;
        store.disk.bad_writes.insert(next);
        commit(store, &one(store))
    })
}

/// Of the middle one of three poisoned sectors.
pub fn heal() -> Operation {
    on("heal", None, |store| {
        let slot = store.geometry().slots + Sectors(1600);
        let (start, len) = (Sector(500_001), Sectors(1));
        commit(store, &[Change::Set(Extent { start, len, kind: Kind::Mapped(slot) })])
    })
}

pub fn retire() -> Operation {
    on("retire a slot", None, |store| {
        let moved = Change::Set(Extent {
            start: Sector(1016),
            len: Sectors(8),
            kind: Kind::Mapped(store.geometry().slots + Sectors(2400)),
        });
        let failed = store.geometry().slots + Sectors(3200);
        commit(store, &[moved, Change::Retire { slot: failed, len: Sectors(8) }])
    })
}

pub fn checkpoint() -> Operation {
    on("checkpoint", None, |store| {
        store.checkpoint().unwrap();
        Found::of(store)
    })
}

pub fn checkpoint_and_a_commit() -> Operation {
    on("checkpoint and a commit", None, |store| {
        store.checkpoint().unwrap();
        commit(store, &one(store))
    })
}

pub fn checkpoint_loses_a_mirror() -> Operation {
    on("checkpoint loses a mirror", Some(0), |store| {
        let area = store.geometry().checkpoint_area(0, 1 - store.superblock().checkpoint.area);
        store.disk.bad_writes.insert(area.0 / SECTORS);
        store.checkpoint().unwrap();
        assert_eq!(store.superblock().live, [false, true]);
        Found::of(store)
    })
}

pub fn checkpoint_flushes_fail() -> Operation {
    on("checkpoint, flushes fail", None, |store| {
        store.disk.flushes = [true, false, true, false].into();
        store.checkpoint().unwrap();
        assert_eq!(store.current_copies(), 4);
        Found::of(store)
    })
}

pub fn owed_checkpoint() -> Operation {
    on("checkpoint owed, a commit", None, |store| {
        let number = store.superblock().number;
        store.disk.flushes = [true, false, false, false].into();
        assert!(matches!(store.checkpoint(), Err(CommitError::Superblock(_))));
        let found = commit(store, &one(store));
        assert_eq!(store.superblock().number, number + 1);
        found
    })
}

pub fn owed_death_of_a_mirror() -> Operation {
    on("mirror 0 dead, owed", Some(0), |store| {
        store.disk.flushes = [true, true, false, false, false].into();
        dead(store, 0)
    })
}

pub fn mirror_0_dead() -> Operation {
    on("mirror 0 declared dead", Some(0), |store| dead(store, 0))
}

pub fn mirror_1_dead() -> Operation {
    on("mirror 1 declared dead", Some(1), |store| dead(store, 1))
}

pub fn repair_of_copies() -> Operation {
    damaged("repair of copies", |disk, geometry| {
        let garbage = std::rc::Rc::new([0xa5; BLOCK]);
        let copies = [COPIES[1], COPIES[3]].map(|at| at.0 / SECTORS);
        for block in copies.into_iter().chain(log(geometry, 1)) {
            disk.image.put(block, garbage.clone());
        }
    })
}

pub fn open() -> Operation {
    off("open", None, |disk| {
        let (store, _) = Store::open(disk, &expect()).unwrap();
        store.superblock().clone()
    })
}

fn dead(store: &mut Store<Recorder>, mirror: usize) -> Found {
    store.disk.bad_writes.extend(log(&store.geometry().clone(), mirror));
    let found = commit(store, &one(store));
    assert!(!store.superblock().live[mirror] && store.superblock().live[1 - mirror]);
    found
}

fn damaged(name: &'static str, damage: fn(&mut Recorder, &Geometry)) -> Operation {
    let store = settled(2);
    let (found, geometry) = (Found::of(&store), *store.geometry());
    let mut disk = store.into_disk();
    damage(&mut disk, &geometry);
    repaired(name, disk, found, 1)
}

pub fn repair_of_a_dead_mirror() -> Operation {
    let mut store = settled(2);
    let found = dead(&mut store, 0);
    let mut disk = store.into_disk();
    disk.ops.clear();
    disk.bad_writes.clear();
    repaired("repair of a dead mirror", disk, found, 0)
}

fn repaired(name: &'static str, mut disk: Recorder, found: Found, faulty: usize) -> Operation {
    let start = disk.image.clone();
    let (_, after) = repair(&mut disk, &expect()).unwrap();
    assert!(after.is_clean(), "{:?}", after.findings);
    let superblock = identify(&mut disk).unwrap();
    assert_eq!((superblock.live, superblock.clean), ([true; 2], true));
    let (before, after) = (Some(found.clone()), found);
    let (ops, unlabelled, faulty, expect) = (disk.ops, false, Some(faulty), expect());
    Operation { name, start, ops, before, after, superblock, unlabelled, faulty, expect }
}

pub fn take_over() -> Operation {
    const THEIRS: Uuid = Uuid([8; 16]);
    let theirs = || Expect { machine: Some(THEIRS), take_over: true, ..expect() };
    let mut operation = off("take-over", None, |disk| {
        let timid = Expect { machine: Some(THEIRS), ..expect() };
        assert!(Store::open(&mut *disk, &timid).is_err());
        let taken = Expect { take_over: true, ..timid };
        let (store, _) = Store::open(disk, &taken).unwrap();
        store.superblock().clone()
    });
    assert_eq!(operation.superblock.machine, Some(THEIRS));
    operation.expect = theirs();
    operation
}

pub fn close() -> Operation {
    off("close", None, |disk| {
        let (store, _) = Store::open(&mut *disk, &expect()).unwrap();
        store.close().unwrap();
        let superblock = identify(disk).unwrap();
        assert!(superblock.clean);
        superblock
    })
}

fn empty() -> Found {
    Found { table: Table::default(), sequence: 0 }
}

pub fn format_fresh() -> Operation {
    let mut disk = Recorder::default();
    let superblock = format(&mut disk, &request()).unwrap();
    let (start, ops, before, after) = (Image::default(), disk.ops, None, empty());
    let (name, unlabelled, faulty, expect) = ("format", true, None, expect());
    Operation { name, start, ops, before, after, superblock, unlabelled, faulty, expect }
}

pub fn format_over() -> Operation {
    let again = Format { nonce: 43, force: true, ..request() };
    let over = off("format over a label", None, |disk| {
        format(disk, &Format { nonce: 43, force: true, ..request() }).unwrap()
    });
    assert_eq!(over.superblock.label.nonce, again.nonce);
    Operation { after: empty(), unlabelled: true, ..over }
}

pub fn restore_anew() -> Operation {
    let mut store = settled(2);
    let (dumped, after) = (dump(&mut store.disk).unwrap(), Found::of(&store));
    let mut disk = Recorder::default();
    let superblock = restore(&mut disk, &dumped, spare_disk(), 44, false).unwrap();
    let (start, ops, before) = (Image::default(), disk.ops, None);
    let (name, unlabelled, faulty, expect) = ("restore", true, None, expect());
    Operation { name, start, ops, before, after, superblock, unlabelled, faulty, expect }
}
