use std::sync::{Arc, Mutex};

use super::*;
use crate::metadata::{Expect, Format, Identity, Uuid, format};
use crate::table::{Extent, Kind};
use crate::units::{Sector, Sectors, Slot};

const SPARE: Sectors = Sectors(32 << 10);

/// Memory that counts its flushes and fails those it is told to.
#[derive(Clone)]
struct Memory {
    bytes: Vec<u8>,
    flushes: usize,
    bad: Vec<usize>,
    /// Others' flushes fail too.
    doubt: bool,
}

/// Shared, so that a test can look at it under the writer.
#[derive(Clone)]
struct Shared(Arc<Mutex<Memory>>);

impl Shared {
    fn with<T>(&self, run: impl FnOnce(&mut Memory) -> T) -> T {
        run(&mut self.0.lock().expect("not poisoned"))
    }

    /// The flush after `skip` others fails.
    fn fail_flush(&self, skip: usize) {
        self.with(|memory| memory.bad.push(memory.flushes + skip));
    }
}

impl Disk for Shared {
    fn size(&self) -> Sectors {
        SPARE
    }
    fn physical_block(&self) -> u64 {
        4096
    }
    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        self.with(|m| buf.copy_from_slice(&m.bytes[at.bytes() as usize..][..buf.len()]));
        Ok(())
    }
    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        self.with(|m| m.bytes[at.bytes() as usize..][..buf.len()].copy_from_slice(buf));
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.with(|memory| {
            memory.flushes += 1;
            match memory.bad.contains(&(memory.flushes - 1)) {
                true => Err(io::Error::other("flush")),
                false if memory.doubt => Err(io::Error::other(Doubt::Failed)),
                false => Ok(()),
            }
        })
    }
}

fn disk() -> Shared {
    let bytes = vec![0; SPARE.bytes() as usize];
    let mut disk =
        Shared(Arc::new(Mutex::new(Memory { bytes, flushes: 0, bad: Vec::new(), doubt: false })));
    let request = Format {
        label: Uuid([1; 16]),
        nonce: 7,
        data: Identity::new(Sectors(1 << 20)),
        spare: Identity::new(SPARE),
        mapped: Sectors(1 << 20),
        block: Sectors(1),
        machine: None,
        weak_identity: true,
        force: false,
    };
    format(&mut disk, &request).expect("formatted");
    disk
}

fn writer() -> (Writer<Shared>, Shared) {
    let disk = disk();
    let expect = Expect::spare(Identity::new(SPARE));
    let (store, _) = Store::open(disk.clone(), &expect).expect("opens");
    (Writer::new(store), disk)
}

/// Mappings of `count` single sectors, in slots of their own.
fn mappings(writer: &Writer<Shared>, count: u64) -> Vec<Change> {
    let geometry = *writer.store.geometry();
    let unit = geometry.unit.0;
    (0..count)
        .map(|n| {
            let kind = Kind::Mapped(geometry.slots + Sectors(n * unit));
            Change::Set(Extent { start: Sector(n * 2), len: Sectors(1), kind })
        })
        .collect()
}

/// How many extents another opening finds.
fn recovered(disk: &Shared) -> usize {
    let copy = Shared(Arc::new(Mutex::new(disk.with(|memory| memory.clone()))));
    let expect = Expect::spare(Identity::new(SPARE));
    Store::open(copy, &expect).expect("opens").0.table().len()
}

#[test]
fn a_commit_longer_than_a_record_is_whole_or_unknown_and_restated_to_its_end() {
    let (mut writer, disk) = writer();
    let count = writer.store.max_changes() as u64 * 2 + 1;
    let changes = mappings(&writer, count);
    disk.fail_flush(1);
    assert_eq!(writer.commit(&changes), Err(CommitFailure::Unknown));
    writer.restate().expect("durable now");
    assert_eq!(recovered(&disk), count as usize);
    assert!(writer.idle());
}

/// The records that follow were admitted with the first; the log's reserve is for them too.
#[test]
fn a_commit_that_was_begun_goes_on_in_the_reserve() {
    let (mut writer, disk) = writer();
    let log = u64::from(writer.store.geometry().log_blocks);
    for n in 0..log / 2 {
        let change = mappings(&writer, n + 1).split_off(n as usize);
        writer.commit(&change).expect("durable");
    }
    let most = writer.store.max_changes() as u64;
    let clear = |n: u64| Change::Clear { start: Sector(100_000 + n), len: Sectors(1) };
    let changes: Vec<_> = (0..most * log / 4).map(clear).collect();
    disk.fail_flush(1);
    assert_eq!(writer.commit(&changes), Err(CommitFailure::Unknown));
    writer.restate().expect("durable now");
    assert!(writer.idle());
}

#[test]
fn a_failed_flush_is_told_before_the_answer_whatever_it_was_for() {
    let (writer, disk) = writer();
    let changes = mappings(&writer, 1);
    disk.fail_flush(0);
    let (send, jobs) = std::sync::mpsc::channel();
    let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
    for job in [Job::Commit(changes), Job::Restate, Job::Flush] {
        send.send(job).expect("sent");
    }
    drop(send);
    run(writer, &jobs, &events);
    drop(events);
    let told: Vec<Event> = std::iter::from_fn(|| told.blocking_recv()).collect();
    assert_eq!(told[..2], [Event::FlushFailed, Event::CommitDone(Err(CommitFailure::Unknown))]);
    assert!(matches!(told[2..], [Event::CommitDone(Ok(_)), Event::FlushDone { ok: true }]));
}

/// The core finds out by itself which places another's failure has voided; it is not told of a failure of ours.
#[test]
fn a_flush_in_doubt_is_one_that_succeeded() {
    let (mut writer, disk) = writer();
    disk.with(|memory| memory.doubt = true);
    assert_eq!(writer.work(Job::Flush), [Event::FlushDone { ok: true }]);
    let told = writer.work(Job::Commit(mappings(&writer, 1)));
    assert_eq!(told, [Event::CommitDone(Err(CommitFailure::Unknown))]);
}

#[test]
fn a_full_log_is_emptied_by_a_checkpoint_before_a_commit_fails() {
    let (mut writer, disk) = writer();
    for n in 0..200 {
        let change = mappings(&writer, n + 1).split_off(n as usize);
        writer.commit(&change).expect("room is made");
    }
    assert_eq!(recovered(&disk), 200);
}

#[test]
fn what_no_record_may_say_is_refused_before_anything_is_written() {
    let (mut writer, disk) = writer();
    let far = Slot(SPARE.0 * 2);
    let mut changes = mappings(&writer, 300);
    changes.push(Change::Retire { slot: far, len: Sectors(8) });
    assert_eq!(writer.commit(&changes), Err(CommitFailure::Full));
    assert_eq!(recovered(&disk), 0);
}

#[test]
fn a_writer_whose_driver_is_gone_closes_the_spare() {
    let (writer, disk) = writer();
    let (jobs, queue) = std::sync::mpsc::channel();
    let (events, told) = tokio::sync::mpsc::unbounded_channel();
    let (closing, mut closed) = oneshot::channel();
    let thread = start(writer.store, queue, events, closing).expect("a thread");
    drop((jobs, told));
    thread.join().expect("no panic");
    assert_eq!(closed.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    let report = crate::metadata::check(&mut disk.clone());
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}
