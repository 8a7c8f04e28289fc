//! A daemon that does not answer: what it would have mended fails at its deadline with the error it had, and once
//! the daemon goes on, so does the service.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::libc::{EIO, ENODATA};
use nix::sys::signal::Signal;

use crate::case::Case;
use crate::guest::checkers::HungTasks;
use crate::guest::deadline::ended_at;
use crate::guest::devices::Brd;
use crate::guest::kernel::slowness;
use crate::guest::owner::{Fence, Owner};
use crate::guest::scsi::ScsiDebug;
use crate::guest::served::Served;
use crate::guest::setup::{Disks, Setup};
use crate::guest::tracer::{Point, Tracer};
use crate::guest::{Ctx, Disk, disk::SECTOR, pattern, wait_until};

pub const CASES: &[Case] = &[
    Case::new("stopped.past-the-deadline", 120, past_the_deadline),
    Case::new("stopped.past-the-deadline-of-what-is-placed", 120, placed),
    Case::new("stopped.past-the-deadline-of-a-read", 60, medium_error),
    Case::new("stopped.and-killed-past-the-deadline-of-a-commit", 120, killed_after_the_deadline),
    Case::new("stopped.an-early-end-is-seen", 60, early_end).must_fail("before its deadline"),
];

const PATIENCE: Duration = Duration::from_secs(30);
const DEADLINE_MS: u64 = 2000;
/// Single ones, and a pair.
const BAD: [u64; 7] = [1000, 2000, 3000, 4000, 5000, 5001, 6000];

fn setup() -> Result<Setup> {
    Setup::new(64, &BAD, &format!("hold_deadline_ms = {DEADLINE_MS}"))
}

/// A write that ends with the error of the disk, at its deadline.
fn fails_at_its_deadline(device: &Path, sector: u64, count: usize) -> Result<()> {
    let disk = Disk::open(device)?;
    at_its_deadline(sector, || disk.write_fails(sector, count, EIO))
}

fn at_its_deadline(sector: u64, fails: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    fails()?;
    ended_at(begun, Duration::from_millis(DEADLINE_MS), &format!("what was sent to {sector}"))
}

/// All of them at once, each on a thread of its own.
fn all_fail(device: &Path, writes: &[(u64, usize)]) -> Result<()> {
    thread::scope(|scope| {
        let writers: Vec<_> = writes
            .iter()
            .map(|&(sector, count)| {
                scope.spawn(move || fails_at_its_deadline(device, sector, count))
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or_else(|_| bail!("a writer panicked")))
    })
}

/// A page of the cache, which nobody can be kept from waiting for.
fn buffered_fails_at_its_deadline(device: &Path, sector: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(device)?;
    at_its_deadline(sector, || {
        file.write_all_at(&pattern::sectors(sector, 8, u64::MAX), sector * SECTOR as u64)?;
        let synced = file.sync_all().map_err(|error| error.raw_os_error());
        ensure!(synced == Err(Some(EIO)), "the flush of the page at {sector} gave {synced:?}");
        Ok(())
    })
}

/// Those that are held for their own error, and those that wait behind them. Nobody counts as hung meanwhile: that takes
/// twice the deadline, as it does with the kernel's 120 seconds and the default of 60.
fn past_the_deadline(_: &mut Ctx) -> Result<()> {
    let setup = setup()?;
    let _hung = HungTasks::after(2 * DEADLINE_MS / 1000 * u64::from(slowness()))?;
    let (device, disk) = (setup.served.path(), setup.served.disk()?);
    disk.fill(5000, 2, 1)?;
    let before = Owner::onlooker()?.counters()?;
    setup.served.daemon.signal(Signal::SIGSTOP)?;
    let writes = [(1000, 1), (1000, 1), (1996, 8), (2000, 4), (3000, 8), (4000, 1)];
    thread::scope(|scope| {
        let failing = scope.spawn(|| all_fail(&device, &writes));
        while !failing.is_finished() {
            disk.verify(5000, 2, 1).context("what is mapped")?;
            disk.fill(1200, 8, 1).context("what is sound")?;
        }
        failing.join().unwrap_or_else(|_| bail!("a thread panicked"))
    })?;
    // By itself: its error is all of the device's cache's, and any writer's that comes.
    buffered_fails_at_its_deadline(&device, 6000)?;
    let after = Owner::onlooker()?.counters()?;
    ensure!(after.expired - before.expired == 7, "not seven that expired: {after:?} {before:?}");
    ensure!(after.installs == before.installs, "something was installed: {after:?} {before:?}");
    let fences = Owner::onlooker()?.fences()?;
    ensure!(fences.is_empty(), "fences outlive their writes: {fences:?}");

    setup.served.daemon.signal(Signal::SIGCONT)?;
    for (sector, count) in writes {
        disk.fill(sector, count, 2).context("after it was continued")?;
        disk.verify(sector, count, 2)?;
    }
    let mapped = setup.served.listed("mapped")?;
    let wanted = [(1000, 1), (2000, 1), (3000, 1), (4000, 1), (5000, 2)];
    ensure!(mapped == wanted, "mapped: {mapped:?}");
    drop(disk);
    setup.down()
}

/// Past its deadline the write is gone, and its fence is not: a commit may yet name it. Who comes meanwhile waits for its
/// own deadline.
fn placed(_: &mut Ctx) -> Result<()> {
    let setup = setup()?;
    let (device, disk) = (setup.served.path(), setup.served.disk()?);
    let (pid, spare) = (setup.served.daemon.pid(), setup.spare());
    let pinned = Fence { start: 1000, len: 1, placed: true, held: false, pinned: true };
    let tracer = Tracer::attach(pid, &spare, Some(Point::Placed))?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| fails_at_its_deadline(&device, 1000, 1));
        let tracer = tracer.wait(PATIENCE)?;
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))?;
        let fences = Owner::onlooker()?.fences()?;
        ensure!(fences == [pinned], "past the deadline: {fences:?}");
        all_fail(&device, &[(1000, 1), (996, 8)]).context("while the fence is there")?;
        disk.read_fails(1000, 1, EIO).context("while the fence is there")?;
        let status = setup.served.status()?;
        let line = ": 1 sectors at 1000: flushing, pinned";
        ensure!(status.contains(line), "no {line:?} in {status}");
        tracer.go_on().map(drop)
    })?;
    wait_until("the end of the fence", PATIENCE, || Ok(Owner::onlooker()?.fences()?.is_empty()))?;
    disk.fill(996, 8, 3)?;
    disk.verify(996, 8, 3)?;
    drop(disk);
    setup.down()
}

/// Its error is the one that the disk gave: that of the medium, and not that something has failed. It was nobody's decision,
/// so it leaves no poison.
fn medium_error(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 32)?;
    let scsi = ScsiDebug::with_medium_errors(16, 1000, 8)?;
    let options = format!("hold_deadline_ms = {DEADLINE_MS}");
    let served = Served::new(&scsi.disk(0)?, &brd.path(0), &options)?;
    let disk = served.disk()?;
    let before = Owner::onlooker()?.counters()?;
    served.daemon.signal(Signal::SIGSTOP)?;
    at_its_deadline(1000, || disk.read_fails(1000, 1, ENODATA))?;
    let after = Owner::onlooker()?.counters()?;
    let (faults, expired) = (after.faults - before.faults, after.expired - before.expired);
    ensure!((faults, expired) == (1, 1), "{faults} faults, of which {expired} expired");
    let fences = Owner::onlooker()?.fences()?;
    ensure!(fences.is_empty(), "a fence outlives its read: {fences:?}");

    served.daemon.signal(Signal::SIGCONT)?;
    let poisoned = served.sectors_of(0, "poison-data")?;
    ensure!(poisoned.is_empty(), "an error that was passed up has poisoned {poisoned:?}");
    disk.read_fails(1000, 1, ENODATA).context("after it was continued")?;
    let poisoned = served.sectors_of(0, "poison-data")?;
    ensure!(poisoned == [1000], "poisoned: {poisoned:?}");
    drop(disk);
    served.down()
}

/// The commit is durable though its write has failed, so its new owner installs it: what was written is there, and stays.
fn killed_after_the_deadline(_: &mut Ctx) -> Result<()> {
    let mut setup = setup()?;
    let (pid, spare) = (setup.served.daemon.pid(), setup.spare());
    let device = setup.served.path();
    let tracer = Tracer::attach(pid, &spare, Some(Point::Submitted))?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| fails_at_its_deadline(&device, 1000, 1));
        let tracer = tracer.wait(PATIENCE)?;
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))?;
        tracer.kill().map(drop)
    })?;
    setup.served.kill()?;
    let before = Owner::onlooker()?.counters()?;
    setup.served.again()?;
    wait_until("the end of the fence", PATIENCE, || Ok(Owner::onlooker()?.fences()?.is_empty()))?;
    let after = Owner::onlooker()?.counters()?;
    let (installs, releases) = (after.installs - before.installs, after.releases - before.releases);
    ensure!((installs, releases) == (1, 0), "{installs} installs, {releases} releases");
    setup.served.disk()?.verify(1000, 1, u64::MAX)?;
    setup.served.down()?;
    setup.served = Served::start()?;
    setup.served.disk()?.verify(1000, 1, u64::MAX).context("from the spare")?;
    setup.down()
}

/// Nobody holds it: the disk itself answers at once.
fn early_end(_: &mut Ctx) -> Result<()> {
    fails_at_its_deadline(Disks::new(64, &BAD)?.bad.path(), 1000, 1)
}
