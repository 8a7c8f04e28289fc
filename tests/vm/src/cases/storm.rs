//! Errors that are not bad media: a large part of a disk gone, a disk that vanishes, one that does not answer for a
//! while. They are passed up; the breaker keeps them from becoming mappings, says so once, and closes by itself.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::libc::{EIO, ENODATA};

use crate::case::Case;
use crate::guest::devices::{Brd, NullBlk};
use crate::guest::dm::{self, Device};
use crate::guest::owner::Owner;
use crate::guest::scsi::ScsiDebug;
use crate::guest::served::{Served, configure};
use crate::guest::spare::{self, Frail};
use crate::guest::{Ctx, Disk, pattern, wait_until};

pub const CASES: &[Case] = &[
    Case::new("storm.fifty-thousand-errors", 300, |ctx| fifty_thousand(ctx, "")),
    Case::new("storm.a-slower-breaker-is-seen", 300, |ctx| {
        fifty_thousand(ctx, "[policy]\nbreaker_faults = 200")
    })
    .must_fail("sectors were changed"),
    Case::new("storm.a-spare-that-is-away-costs-no-slot", 120, spare_away),
    Case::new("storm.disk-deleted-under-load", 120, deleted),
    Case::new("storm.flakey-down-interval", 120, flakey),
];

const OPENED: &str = "d1: error storm: errors are passed up until the disk answers again";
const CLOSED: &str = "d1: the disk answers again";
/// In `status` while the breaker is open.
const OPEN: &str = "an error storm: nothing is mapped until the disk answers again";
/// `breaker_faults` as it is by default.
const BREAKER_FAULTS: usize = 64;
/// `breaker_pause` as it is by default, and a little.
const PAUSE: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(30);

/// What the daemon has told its operator about the breaker: so often that it opened, and that it closed.
fn alarms(served: &Served) -> Result<[usize; 2]> {
    let log = served.daemon.log()?;
    Ok([OPENED, CLOSED].map(|text| log.matches(text).count()))
}

fn expect_alarms(served: &Served, wanted: [usize; 2]) -> Result<()> {
    let found = alarms(served)?;
    ensure!(found == wanted, "opened and closed {found:?} times, and should be {wanted:?}");
    let open = served.status()?.contains(OPEN);
    ensure!(open == (wanted[0] > wanted[1]), "open: {open}, after {wanted:?}");
    Ok(())
}

/// Mapped and poisoned sectors together.
fn changed(served: &Served) -> Result<usize> {
    Ok(served.sectors_of(0, "mapped")?.len() + served.sectors_of(0, "poison-data")?.len())
}

/// What had been changed when the breaker opened. It has; what is under way still may have been judged before.
fn changed_before(served: &Served) -> Result<usize> {
    let under_way = Owner::onlooker()?.fences()?;
    wait_until("the end of what was under way", PATIENCE, || {
        let left = Owner::onlooker()?.fences()?;
        Ok(!left.iter().any(|fence| under_way.iter().any(|old| old.start == fence.start)))
    })?;
    changed(served)
}

/// A write to a bad sector is mapped at once: the trial that closes the breaker, a pause after the last one.
fn resumes_with(served: &Served, bad: u64) -> Result<()> {
    thread::sleep(PAUSE);
    let disk = served.disk()?;
    disk.fill(bad, 1, 77).context("the trial")?;
    disk.verify(bad, 1, 77)?;
    ensure!(served.sectors_of(0, "mapped")?.contains(&bad), "the trial was not mapped");
    expect_alarms(served, [1, 1])
}

/// More at once than may be held: most errors are passed up as fast as they come, and each fault that ends makes room
/// for the next to be looked into.
fn fifty_thousand(ctx: &mut Ctx, policy: &str) -> Result<()> {
    // Little of the disk is gone: a place elsewhere answers, and what counts is how many faults in a row are unproved.
    const MIB: u32 = 4096;
    const GONE: Range<u64> = 1_000_000..1_210_000;
    const LATER: u64 = 5_000_000;
    const ERRORS: u64 = 50_000;
    const THREADS: u64 = 24;
    let spare = NullBlk::create("nullb0", 64, &[])?;
    // It takes memory only for what is written to it.
    let brd = Brd::load(1, MIB)?;
    let ram = brd.path(0).display().to_string();
    let gone: Vec<u64> = GONE.chain([LATER]).collect();
    let bad = dm::disk_with_bad_sectors("bad", &brd.path(0), &gone)?;
    let served = Served::new(bad.path(), spare.path(), &format!("max_held_bios = 16\n{policy}"))?;
    let disk = served.disk()?;

    // Two of three write. Each asks for a sector of its own, so that none meets another's fence.
    let [next, failed, written] = [const { AtomicU64::new(0) }; 3];
    let enough = AtomicBool::new(false);
    let work = || -> Result<()> {
        while !enough.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let sector = GONE.start + i;
            ensure!(GONE.contains(&sector), "all of it was asked for, and no end");
            let done = match i % 3 {
                0 => disk.read(sector, 1).map(drop),
                _ => disk.write(sector, &pattern::sectors(sector, 1, 5)),
            };
            match done.map_err(|error| error.raw_os_error()) {
                Ok(()) if i % 3 == 0 => bail!("sector {sector} was read, and is bad"),
                Ok(()) => drop(written.fetch_add(1, Ordering::Relaxed)),
                Err(Some(EIO | ENODATA)) => {
                    if failed.fetch_add(1, Ordering::Relaxed) > ERRORS {
                        thread::sleep(Duration::from_millis(20));
                    }
                }
                Err(error) => bail!("sector {sector}: errno {error:?}"),
            }
        }
        Ok(())
    };
    let before = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let stormed = wait_until("an open breaker", PATIENCE * 4, || Ok(alarms(&served)?[0] > 0))
            .and_then(|()| changed_before(&served))
            .and_then(|before| {
                wait_until("50,000 errors", PATIENCE * 4, || {
                    Ok(failed.load(Ordering::Relaxed) >= ERRORS)
                })?;
                // Trials come and go.
                many_errors(&failed)?;
                thread::sleep(PAUSE * 2);
                Ok(before)
            });
        enough.store(true, Ordering::Relaxed);
        let mut ends = workers.into_iter().map(|w| w.join().unwrap_or_else(|_| bail!("a panic")));
        ends.try_for_each(|end| end).and(stormed)
    })?;
    let (failed, written) = (failed.into_inner(), written.into_inner());
    let changed = changed(&served)?;
    ctx.note(format!("{failed} errors, {written} writes mapped, {changed} sectors changed"))?;
    // Of faults with one sector each. Fewer if two places far off were both in what is gone.
    ensure!((1..=BREAKER_FAULTS).contains(&changed), "{changed} sectors were changed");
    ensure!(changed == before, "{before} when the breaker opened, and {changed} in the end");
    let mapped = served.sectors_of(0, "mapped")?;
    ensure!(mapped.len() as u64 == written, "{written} writes succeeded, mapped: {mapped:?}");
    for &sector in &mapped {
        disk.verify(sector, 1, 5)?;
    }
    expect_alarms(&served, [1, 0])?;

    bad.load(&dm::table_with_bad_sectors(&ram, u64::from(MIB) * 2048, &[LATER])?)?;
    bad.suspend()?;
    bad.resume()?;
    // Each poisoned block of a write is held by itself, and a slow daemon would meet the bound.
    for start in (GONE.start..GONE.start + 2000).step_by(8) {
        disk.fill(start, 8, 6).context("the disk answers again")?;
    }
    resumes_with(&served, LATER)?;
    disk.verify(GONE.start, 2000, 6)?;
    drop(disk);
    served.down()
}

/// Each place on it fails, and what has failed is retired: a small spare was used up within seconds.
fn spare_away(_: &mut Ctx) -> Result<()> {
    let bad: Vec<u64> = (0..100).map(|i| 1000 + 50 * i).collect();
    let (first, later, last) = (bad[0], &bad[1..60], bad[99]);
    let brd = Brd::load(1, 64)?;
    let spare = Frail::new("frail", &brd.path(0))?;
    let data = NullBlk::create("nullb0", 64, &[])?;
    let device = dm::disk_with_bad_sectors("bad", data.path(), &bad)?;
    let served = Served::new(device.path(), spare.path(), "")?;
    let disk = served.disk()?;
    disk.fill(first, 1, 1)?;
    spare.fail_all()?;
    for &sector in later {
        disk.write_fails(sector, 1, EIO)?;
    }
    disk.read_fails(first, 1, EIO)?;
    expect_alarms(&served, [1, 0])?;

    spare.fail(&[])?;
    resumes_with(&served, last)?;
    disk.verify(first, 1, 1)?;
    for &sector in later {
        disk.fill(sector, 1, 2)?;
        disk.verify(sector, 1, 2)?;
    }
    drop(disk);
    served.down()?;
    let dump = spare::dump(spare.path())?;
    let count = |field: &str| dump[field].as_array().map(Vec::len);
    let found = (count("extents"), count("retired"));
    ensure!(found == (Some(2 + later.len()), Some(0)), "extents and retired slots: {found:?}");
    device.remove()?;
    spare.device.remove()
}

/// Blocks of 4 KiB of each writer.
const BLOCKS: u64 = 128;
const WRITERS: u64 = 4;

/// What a writer knows of its blocks: the last version that was acknowledged, and those that failed after it.
type Known = Vec<(Option<u64>, Vec<u64>)>;

fn place(writer: u64, block: u64) -> u64 {
    (writer * BLOCKS + block) * 8
}

/// Writes its blocks over and over until it is told to stop.
fn write_on(disk: &Disk, writer: u64, stop: &AtomicBool, errors: &AtomicU64) -> Known {
    let mut known: Known = vec![(None, Vec::new()); BLOCKS as usize];
    for version in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let block = version % BLOCKS;
        let at = place(writer, block);
        let (last, failed) = &mut known[block as usize];
        match disk.write(at, &pattern::sectors(at, 8, version)) {
            Ok(()) => (*last, *failed) = (Some(version), Vec::new()),
            Err(_) => {
                failed.push(version);
                errors.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
    known
}

/// Runs the writers during `trouble`, which learns how many errors there were.
fn under_load(disk: &Disk, trouble: impl FnOnce(&AtomicU64) -> Result<()>) -> Result<Vec<Known>> {
    let (stop, errors) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (stop, errors) = (&stop, &errors);
                scope.spawn(move || write_on(disk, writer, stop, errors))
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        let told = ensure_none(&errors).and_then(|()| trouble(&errors));
        stop.store(true, Ordering::Relaxed);
        let known = writers.into_iter().map(|w| w.join().map_err(|_| anyhow!("a writer panicked")));
        told.and(known.collect())
    })
}

fn ensure_none(errors: &AtomicU64) -> Result<()> {
    let errors = errors.load(Ordering::Relaxed);
    ensure!(errors == 0, "{errors} errors before any trouble");
    Ok(())
}

/// Each sector holds the last acknowledged version, or one that failed after it.
fn judge(disk: &Disk, known: &[Known]) -> Result<()> {
    for (writer, blocks) in known.iter().enumerate() {
        for (block, (last, failed)) in blocks.iter().enumerate() {
            let at = place(writer as u64, block as u64);
            for sector in at..at + 8 {
                let bytes = disk.read(sector, 1).with_context(|| format!("sector {sector}"))?;
                let mut allowed = last.iter().chain(failed);
                let found = allowed.any(|&v| pattern::check(&bytes, sector, v).is_ok());
                ensure!(
                    found || (last.is_none() && bytes.iter().all(|&byte| byte == 0)),
                    "sector {sector} is neither version {last:?} nor one of {failed:?}"
                );
            }
        }
    }
    Ok(())
}

fn many_errors(errors: &AtomicU64) -> Result<()> {
    let before = errors.load(Ordering::Relaxed);
    wait_until("errors to be passed up", PATIENCE, || {
        Ok(errors.load(Ordering::Relaxed) >= before + 100)
    })
}

fn deleted(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 32)?;
    let scsi = ScsiDebug::load(16, &[])?;
    let served = Served::new(&scsi.disk(0)?, &brd.path(0), "")?;
    let disk = served.disk()?;
    let known = under_load(&disk, |errors| {
        scsi.delete(0)?;
        wait_until("the breaker to open", PATIENCE, || Ok(alarms(&served)?[0] > 0))?;
        many_errors(errors)?;
        // Trials come and go meanwhile.
        thread::sleep(PAUSE);
        many_errors(errors)
    })?;
    ensure!(disk.read(0, 1).is_err(), "a disk that is not there was read");
    ensure!(
        changed(&served)? == 0,
        "{} sectors of a vanished disk were changed",
        changed(&served)?
    );
    expect_alarms(&served, [1, 0])?;
    drop(disk);
    served.down()?;

    // It is plugged in again, under another name.
    let back = scsi.rescan(0)?;
    configure(&back, &brd.path(0), "")?;
    let served = Served::start()?;
    let disk = served.disk()?;
    judge(&disk, &known)?;
    disk.fill(0, 2000, 9)?;
    disk.verify(0, 2000, 9)?;
    ensure!(changed(&served)? == 0, "{} sectors were changed", changed(&served)?);
    expect_alarms(&served, [0, 0])?;
    drop(disk);
    served.down()
}

fn flakey(_: &mut Ctx) -> Result<()> {
    const SECTORS: u64 = 16 * 2048;
    const BAD: u64 = 30_000;
    let brd = Brd::load(2, 32)?;
    let medium = dm::disk_with_bad_sectors("medium", &brd.path(0), &[BAD])?;
    // Up and down are seconds of each round.
    let table = |up, down| format!("0 {SECTORS} flakey {} 0 {up} {down}\n", medium.dev());
    let cable = Device::create("cable", &table(3600, 0))?;
    let switch = |up, down| -> Result<()> {
        cable.load(&table(up, down))?;
        cable.suspend()?;
        cable.resume()
    };
    let served = Served::new(cable.path(), &brd.path(1), "")?;
    let disk = served.disk()?;
    let known = under_load(&disk, |errors| {
        switch(0, 3600)?;
        wait_until("the breaker to open", PATIENCE, || Ok(alarms(&served)?[0] > 0))?;
        many_errors(errors)?;
        ensure!(disk.read(BAD - 1, 1).is_err(), "a disk that does not answer was read");
        let status = served.status()?;
        ensure!(status.contains(OPEN), "{status}");
        thread::sleep(PAUSE);
        many_errors(errors)?;
        let changed = changed(&served)?;
        ensure!(changed == 0, "{changed} sectors of a disk that does not answer were changed");
        switch(3600, 0)
    })?;
    // A trial that failed before it answered again, and whose control did not.
    ensure!(changed(&served)? <= 8, "{} sectors were changed", changed(&served)?);
    judge(&disk, &known)?;
    resumes_with(&served, BAD)?;
    drop(disk);
    served.down()
}
