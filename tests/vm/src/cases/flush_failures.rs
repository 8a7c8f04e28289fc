//! After a failed flush nothing may claim to be durable until one has succeeded on both disks.

use std::fs::File;
use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dmremap_disks::server::Side;
use nix::libc::EIO;

use crate::case::{self, Case};
use crate::guest::dm::{self, Device};
use crate::guest::fs::Kind;
use crate::guest::served::{NAME, Served, policyd};
use crate::guest::spare;
use crate::guest::steer::Steer;
use crate::guest::tracer::{Point, Tracer};
use crate::guest::{Ctx, Disk};

const DISKS: &[case::Disk] =
    &[case::Disk::Volatile { mib: 16 }, case::Disk::Volatile { mib: 16 }, case::Disk::Control];

pub const CASES: &[Case] = &[
    Case::new("flush-failures.stop-fua-until-both-disks-flush", 120, stop_fua).disks(DISKS),
    Case::new("flush-failures.of-an-unused-spare-only-alarm", 120, unused_spare).disks(DISKS),
    Case::new("flush-failures.of-the-daemons-own-are-told", 120, the_daemons_own).disks(DISKS),
    Case::new("flush-failures.at-the-end-of-the-daemon-are-told", 120, at_the_end).disks(DISKS),
    Case::new("flush-failures.of-the-daemons-own-fail-a-commit", 120, a_journals_commit)
        .disks(DISKS),
    Case::new("flush-failures.of-anothers-repeat-a-commit", 120, anothers).disks(DISKS),
    Case::new("flush-failures.behind-fua-are-no-bad-sectors", 120, behind_fua).disks(DISKS),
    Case::new("flush-failures.under-a-placed-write-repeat-it", 120, under_a_placed_write)
        .disks(DISKS),
    Case::new("flush-failures.a-linear-device-forgets-them", 60, linear_forgets)
        .disks(DISKS)
        .must_fail("succeeded, and should not"),
];

/// Indices among the disks.
const DATA: u8 = 0;
const SPARE: u8 = 1;
const STEER: u8 = 2;

const BAD: u64 = 1000;
const GOOD: u64 = 2000;
/// Bad too, each written once.
const NEW: [u64; 2] = [3000, 4000];
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked of the device, in the two ways of asking.
struct Asked {
    plain: Disk,
    durable: Disk,
    steer: Steer,
    version: u64,
}

impl Asked {
    fn of(ctx: &Ctx, device: &std::path::Path) -> Result<Self> {
        let (plain, durable) = (Disk::open(device)?, Disk::open_durable(device)?);
        Ok(Self { plain, durable, steer: Steer::open(ctx, STEER)?, version: 1 })
    }

    /// Both disks get something to flush, as the emulator leaves out a flush of what is flushed already.
    fn write(&mut self) -> Result<()> {
        self.version += 1;
        self.plain.fill(BAD, 1, self.version)?;
        self.plain.fill(GOOD, 1, self.version)
    }

    fn flush_fails(&mut self, disk: u8) -> Result<()> {
        self.write()?;
        let before = self.steer.counters(disk)?.flush_errors;
        self.steer.fail_flushes(disk, 1)?;
        let errno = self.plain.flush().err().and_then(|error| error.raw_os_error());
        ensure!(errno == Some(EIO), "a flush failed on disk {disk}; fsync says errno {errno:?}");
        let failed = self.steer.counters(disk)?.flush_errors - before;
        ensure!(failed == 1, "{failed} flushes failed on disk {disk}");
        Ok(())
    }

    /// Once the tracer has stopped the daemon on behalf of a write, an application's flush fails on a disk, and loses what it
    /// was to keep. The write succeeds all the same.
    fn flush_loses_meanwhile(
        &mut self,
        disk: u8,
        tracer: Tracer,
        write: impl FnOnce() -> Result<()> + Send,
    ) -> Result<()> {
        thread::scope(|scope| {
            let writer = scope.spawn(write);
            let tracer = tracer.wait(PATIENCE)?;
            self.write().context("while the daemon is about to flush")?;
            self.steer.lose_at_flush(disk)?;
            let errno = self.plain.flush().err().and_then(|error| error.raw_os_error());
            ensure!(errno == Some(EIO), "disk {disk} failed a flush; fsync says errno {errno:?}");
            tracer.go_on()?;
            writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
        })
    }

    /// A flush of somebody else's has failed, and this caller has to hear of it.
    fn flush_owes_a_failure(&self) -> Result<()> {
        let errors = || -> Result<u64> {
            let (data, spare) = (self.steer.counters(DATA)?, self.steer.counters(SPARE)?);
            Ok(data.flush_errors + spare.flush_errors)
        };
        let before = errors()?;
        let errno = self.plain.flush().err().and_then(|error| error.raw_os_error());
        ensure!(errno == Some(EIO), "nobody was told of the failure; fsync says errno {errno:?}");
        ensure!(errors()? == before, "another flush failed on a disk");
        Ok(())
    }

    fn flush_succeeds(&mut self) -> Result<()> {
        self.write()?;
        self.plain.flush().context("flushing both disks")
    }

    /// Every FUA write fails, and none reaches a disk; other writes go on.
    fn expect_no_fua(&mut self) -> Result<()> {
        self.write().context("a plain write after a failed flush")?;
        let writes = |asked: &Self| -> Result<u64> {
            Ok(asked.steer.counters(DATA)?.writes + asked.steer.counters(SPARE)?.writes)
        };
        let before = writes(self)?;
        for sector in [GOOD, BAD, GOOD] {
            self.durable.write_fails(sector, 1, EIO)?;
        }
        let sent = writes(self)? - before;
        ensure!(sent == 0, "{sent} writes reached the disks");
        self.expect_content()
    }

    fn expect_fua(&mut self) -> Result<()> {
        self.version += 1;
        self.durable.fill(GOOD, 1, self.version)?;
        self.durable.fill(BAD, 1, self.version)?;
        self.expect_content()
    }

    fn expect_content(&self) -> Result<()> {
        self.plain.verify(GOOD, 1, self.version)?;
        self.plain.verify(BAD, 1, self.version)
    }
}

fn bad_disk(ctx: &Ctx) -> Result<Device> {
    dm::disk_with_bad_sectors("bad", &ctx.disk(DATA)?, &[BAD, NEW[0], NEW[1]])
}

fn stop_fua(ctx: &mut Ctx) -> Result<()> {
    let bad = bad_disk(ctx)?;
    let served = Served::new(bad.path(), &ctx.disk(SPARE)?, "")?;
    let mut asked = Asked::of(ctx, &served.path())?;
    asked.write()?;
    asked.expect_fua().context("before any failure")?;
    for disk in [DATA, SPARE] {
        asked.flush_fails(disk)?;
        asked.expect_no_fua().with_context(|| format!("a flush of disk {disk} failed"))?;
        // The other disk's success does not count for this one.
        asked.flush_fails(disk)?;
        asked.expect_no_fua().with_context(|| format!("two flushes of disk {disk} failed"))?;
        asked.flush_succeeds()?;
        asked.expect_fua().with_context(|| format!("disk {disk} has flushed again"))?;
    }
    // One fails, then the other: each has its success, and never both.
    asked.flush_fails(DATA)?;
    asked.flush_fails(SPARE)?;
    asked.expect_no_fua().context("first the data disk failed, then the spare")?;
    asked.flush_fails(DATA)?;
    asked.expect_no_fua().context("the spare has flushed, and the data disk has not")?;
    asked.flush_succeeds()?;
    asked.expect_fua().context("at the end")?;
    drop(asked);
    served.down()?;
    bad.remove()
}

fn unused_spare(ctx: &mut Ctx) -> Result<()> {
    let spare = ctx.disk(SPARE)?;
    let data = ctx.disk(DATA)?;
    let served = Served::new(&data, &spare, "")?;
    let mut asked = Asked::of(ctx, &served.path())?;
    // The spare has something to flush only if somebody else writes to it; its last sectors belong to nobody.
    let raw = Disk::open(&spare)?;
    let last = raw.sectors()? - 1;
    for _ in 0..3 {
        asked.write()?;
        raw.fill(last, 1, asked.version)?;
        let before = asked.steer.counters(SPARE)?.flush_errors;
        asked.steer.fail_flushes(SPARE, 1)?;
        asked.plain.flush().context("nothing is on the spare")?;
        let failed = asked.steer.counters(SPARE)?.flush_errors - before;
        ensure!(failed == 1, "{failed} flushes of the spare failed");
        let status = served.status()?;
        ensure!(status.contains("spare-flush-failed"), "no alarm: {status}");
        asked.durable.fill(GOOD, 1, asked.version).context("FUA needs the data disk alone")?;
    }
    asked.write()?;
    raw.fill(last, 1, asked.version)?;
    asked.plain.flush()?;
    let status = served.status()?;
    ensure!(!status.contains("spare-flush-failed"), "the alarm stays: {status}");
    // Nor is anything of its users lost once it is in use.
    asked.write()?;
    raw.fill(last, 1, asked.version)?;
    asked.steer.fail_flushes(SPARE, 1)?;
    asked.plain.flush().context("nothing is on the spare yet")?;
    asked.steer.bad(DATA, BAD..BAD + 1, Side::Write)?;
    asked.plain.fill(BAD, 1, asked.version)?;
    ensure!(served.listed("mapped")? == [(BAD, 1)], "the bad sector is not mapped");
    asked.expect_fua().context("the first mapping is on the spare")?;
    drop((asked, raw));
    served.down()
}

/// A flush that the daemon sends by itself fails, and the spare loses what it was to keep: first the one for what was
/// placed, then the one of the commit. What the daemon had in it is written again before the write is acknowledged; what
/// an application had in it is gone, and its next fsync has to say so.
fn the_daemons_own(ctx: &mut Ctx) -> Result<()> {
    let (bad, spare) = (bad_disk(ctx)?, ctx.disk(SPARE)?);
    let served = Served::new(bad.path(), &spare, "")?;
    let mut asked = Asked::of(ctx, &served.path())?;
    for (point, sector) in [Point::Placed, Point::Submitted].into_iter().zip(NEW) {
        asked.flush_succeeds()?;
        let (flushed, disk) = (asked.version, served.disk()?);
        let errors = asked.steer.counters(SPARE)?.flush_errors;
        let tracer = Tracer::attach(served.daemon.pid(), &spare, Some(point))?;
        thread::scope(|scope| {
            let writer = scope.spawn(|| disk.fill(sector, 1, 7));
            let tracer = tracer.wait(PATIENCE)?;
            asked.write().context("while the daemon is about to flush")?;
            asked.steer.lose_at_flush(SPARE)?;
            tracer.go_on()?;
            writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
        })
        .with_context(|| format!("{point:?}"))?;
        let errors = asked.steer.counters(SPARE)?.flush_errors - errors;
        ensure!(errors == 1, "{point:?}: {errors} flushes of the spare failed");
        asked.plain.verify(BAD, 1, flushed).context("what the failed flush was to keep")?;
        asked.plain.verify(sector, 1, 7).with_context(|| format!("{point:?}"))?;
        let status = served.status()?;
        ensure!(status.contains("spare-flush-failed"), "{point:?}: no alarm: {status}");
        asked.expect_no_fua().with_context(|| format!("{point:?}"))?;
        asked.flush_owes_a_failure().with_context(|| format!("{point:?}"))?;
        asked.flush_succeeds().with_context(|| format!("{point:?}"))?;
        asked.expect_fua().with_context(|| format!("{point:?}"))?;
        let status = served.status()?;
        ensure!(!status.contains("spare-flush-failed"), "{point:?}: the alarm stays: {status}");
    }
    let version = asked.version;
    drop(asked);
    served.down()?;
    spare::is_clean(&spare)?;
    let served = Served::start()?;
    for (sector, version) in [(BAD, version), (GOOD, version), (NEW[0], 7), (NEW[1], 7)] {
        served.disk()?.verify(sector, 1, version).context("from the spare")?;
    }
    served.down()?;
    bad.remove()
}

/// The daemon's last flush, for the mark that it left in order, fails and loses what an application had on the spare.
fn at_the_end(ctx: &mut Ctx) -> Result<()> {
    let (bad, spare) = (bad_disk(ctx)?, ctx.disk(SPARE)?);
    let mut served = Served::new(bad.path(), &spare, "")?;
    let mut asked = Asked::of(ctx, &served.path())?;
    asked.flush_succeeds()?;
    let flushed = asked.version;
    asked.write()?;
    asked.steer.lose_at_flush(SPARE)?;
    served.daemon.stop(PATIENCE)?;
    asked.plain.verify(BAD, 1, flushed).context("what the failed flush was to keep")?;
    asked.flush_owes_a_failure()?;
    asked.flush_succeeds()?;
    drop(asked);
    served.again()?;
    served.down()?;
    bad.remove()
}

/// A file system's commit is one write with a flush before it and FUA. Of that flush device-mapper drops the error, and sends the
/// data, so that these have to fail: no other flush is sent by an fsync that hears of its journal's commit.
fn a_journals_commit(ctx: &mut Ctx) -> Result<()> {
    let bad = bad_disk(ctx)?;
    let mut served = Served::new(bad.path(), &ctx.disk(SPARE)?, "")?;
    // Something of the device is on the spare, where a flush may lose it.
    served.disk()?.fill(NEW[0], 1, 7)?;
    Kind::Ext4.mkfs(&served.path())?;
    let mount = Kind::Ext4.mount(&served.path(), "journal")?;
    let mut file = File::create(mount.path().join("file"))?;
    file.write_all(b"before")?;
    file.sync_all()?;
    Steer::open(ctx, STEER)?.lose_at_flush(SPARE)?;
    served.daemon.stop(PATIENCE)?;
    file.write_all(b"after")?;
    let error = file.sync_all().err().and_then(|error| error.raw_os_error());
    ensure!(error.is_some(), "the journal was told that all is well");
    drop((file, mount));
    served.again()?;
    served.down()?;
    bad.remove()
}

/// An application's flush fails between the daemon's write of a record and its flush of that, and the spare drops the
/// record. The daemon's own flush succeeds then; the mapping must be there all the same.
fn anothers(ctx: &mut Ctx) -> Result<()> {
    let (bad, spare) = (bad_disk(ctx)?, ctx.disk(SPARE)?);
    let mut served = Served::new(bad.path(), &spare, "")?;
    let mut asked = Asked::of(ctx, &served.path())?;
    asked.flush_succeeds()?;
    let disk = served.disk()?;
    let tracer = Tracer::attach(served.daemon.pid(), &spare, Some(Point::Submitted))?;
    asked.flush_loses_meanwhile(SPARE, tracer, || disk.fill(NEW[0], 1, 7))?;
    let status = policyd(&["status", "--json"])?.run()?;
    ensure!(status.contains("\"commits_unknown\":1,"), "the commit was not repeated: {status}");
    asked.plain.verify(NEW[0], 1, 7)?;
    drop((asked, disk));
    served.kill()?;
    Device::shared(NAME).remove()?;
    let served = Served::start()?;
    served.disk()?.verify(NEW[0], 1, 7).context("from the spare")?;
    served.down()?;
    bad.remove()
}

/// No disk here has FUA itself, so it is a write and a flush. That flush fails and loses what others wrote before: who wrote
/// with FUA has to hear of it, although his sector is good, and would take the write the next time.
fn behind_fua(ctx: &mut Ctx) -> Result<()> {
    let bad = bad_disk(ctx)?;
    let served = Served::new(bad.path(), &ctx.disk(SPARE)?, "")?;
    let mut asked = Asked::of(ctx, &served.path())?;
    for (disk, sector) in [(DATA, GOOD), (SPARE, BAD)] {
        asked.flush_succeeds()?;
        let flushed = asked.version;
        asked.write()?;
        asked.steer.lose_at_flush(disk)?;
        asked.durable.write_fails(sector, 1, EIO).with_context(|| format!("FUA on disk {disk}"))?;
        asked.plain.verify(sector, 1, flushed).context("what the failed flush was to keep")?;
        asked.expect_no_fua().with_context(|| format!("disk {disk} failed a flush behind FUA"))?;
        asked.flush_succeeds()?;
        asked.expect_fua().with_context(|| format!("disk {disk} has flushed again"))?;
    }
    ensure!(served.listed("mapped")? == [(BAD, 1)], "a good sector is mapped");
    // A bad sector is still one.
    asked.durable.fill(NEW[0], 1, 7).context("FUA on a bad sector")?;
    asked.plain.verify(NEW[0], 1, 7)?;
    drop(asked);
    served.down()?;
    bad.remove()
}

/// A write is in part on the data disk and in part in its slot when a flush of the data disk fails, and loses its part. Nobody
/// was told yet that it is written, so it is not enough that he who flushed hears of the failure.
fn under_a_placed_write(ctx: &mut Ctx) -> Result<()> {
    let (bad, spare) = (bad_disk(ctx)?, ctx.disk(SPARE)?);
    let served = Served::new(bad.path(), &spare, "")?;
    let mut asked = Asked::of(ctx, &served.path())?;
    asked.flush_succeeds()?;
    let disk = served.disk()?;
    let tracer = Tracer::attach(served.daemon.pid(), &spare, Some(Point::Placed))?;
    asked.flush_loses_meanwhile(DATA, tracer, || disk.fill(NEW[0] - 8, 16, 7))?;
    asked.flush_succeeds()?;
    disk.verify(NEW[0] - 8, 16, 7).context("written, and flushed")?;
    ensure!(served.listed("mapped")?.contains(&(NEW[0], 1)), "the bad sector is not mapped");
    drop((asked, disk));
    served.down()?;
    bad.remove()
}

fn linear_forgets(ctx: &mut Ctx) -> Result<()> {
    let data = ctx.disk(DATA)?;
    ctx.disk(SPARE)?;
    let sectors = Disk::open(&data)?.sectors()?;
    let linear = Device::create("linear", &format!("0 {sectors} linear {} 0", data.display()))?;
    let mut asked = Asked::of(ctx, linear.path())?;
    asked.flush_fails(DATA)?;
    asked.expect_no_fua()
}
