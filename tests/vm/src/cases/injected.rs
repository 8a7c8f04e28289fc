//! Allocations of the module, or requests to its disks, that fail at any moment: while it is suspended, reloaded, removed
//! and commits for many at once. A write may fail then; what it was told is still true, nothing hangs, and once nothing is
//! injected any more all is served as before. What the failures leak, or do in the wrong context, the kernel reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::libc::{EIO, ENODATA, ENOMEM};

use crate::case::{Case, Kind};
use crate::guest::devices::Brd;
use crate::guest::disk::SECTOR;
use crate::guest::dm::Device;
use crate::guest::inject::Injection;
use crate::guest::load::{self, Random, Runs};
use crate::guest::served::{NAME, Served};
use crate::guest::setup::Setup;
use crate::guest::{Cmd, Ctx, Disk, pattern, wait_until};

const fn on_debug(name: &'static str, body: crate::case::Body) -> Case {
    Case::new(name, 240, body).only(Kind::Debug)
}

pub const CASES: &[Case] = &[
    on_debug("injected.allocations-while-devices-are-made", made),
    on_debug("injected.allocations-while-suspended-and-reloaded", allocations_suspend),
    on_debug("injected.allocations-in-group-commits", allocations_commits),
    on_debug("injected.allocations-while-removed", allocations_removal),
    on_debug("injected.requests-while-suspended-and-reloaded", requests_suspend),
    on_debug("injected.requests-in-group-commits", requests_commits),
    on_debug("injected.requests-while-removed", requests_removal),
    on_debug("injected.a-lost-write-is-seen", lost_write).must_fail("is none of what was written"),
    on_debug("injected.nothing-injected-is-seen", nothing).must_fail("nothing was injected"),
];

const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: u64 = 8;
/// Writes that must have been acknowledged meanwhile.
const LEAST: u64 = 60;
/// What a caller may see while something is injected.
const ADMISSIBLE: [i32; 3] = [EIO, ENODATA, ENOMEM];

fn runs() -> Runs {
    load::runs(2000, 100, 101)
}

fn setup() -> Result<Setup> {
    Setup::new(64, &load::sectors(&runs()), "hold_deadline_ms = 20000")
}

fn some_allocations(_: &Setup) -> Result<Injection> {
    Injection::of_allocations(2)
}

/// Of the data disk's. Those of the spare are the daemon's, too.
fn some_requests(setup: &Setup) -> Result<Injection> {
    Injection::of_requests(&[setup.disks.bad.path()], 2)
}

/// The versions that a sector may have: the last that was acknowledged, and those since that were not.
type Versions = BTreeMap<u64, BTreeSet<u64>>;

fn admissible(error: &io::Error) -> Result<()> {
    let number = error.raw_os_error().unwrap_or(0);
    ensure!(ADMISSIBLE.contains(&number), "{error}, which nothing explains");
    Ok(())
}

/// Writers that take these errors for an answer.
fn write_on(
    device: &Path,
    number: u64,
    seed: u64,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> Result<Versions> {
    let (disk, durable) = (Disk::open(device)?, Disk::open_durable(device)?);
    let mine: Runs = runs().into_iter().skip(number as usize).step_by(WRITERS as usize).collect();
    let mut random = Random::new(seed ^ number << 32);
    let (mut versions, mut round) = (Versions::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let (start, len) = mine[random.below(mine.len() as u64) as usize];
        round += 1;
        let version = number << 32 | round;
        let bytes = pattern::sectors(start, len as usize, version);
        let to = if random.below(4) == 0 { &durable } else { &disk };
        let written = to.write(start, &bytes);
        for sector in start..start + len {
            let may = versions.entry(sector).or_insert_with(|| BTreeSet::from([0]));
            if written.is_ok() {
                may.clear();
            }
            may.insert(version);
        }
        match written {
            Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
            Err(error) => admissible(&error).with_context(|| format!("a write at {start}"))?,
        }
        if random.below(8) == 0 {
            // An error is for those whose data it concerns: here it only has to be one of these.
            disk.flush().or_else(|error| admissible(&error).context("a flush"))?;
        }
        if random.below(4) == 0 {
            match disk.read(start, len as usize) {
                Ok(bytes) => one_of(&bytes, start, &versions)?,
                Err(error) => admissible(&error).with_context(|| format!("a read at {start}"))?,
            }
        }
    }
    Ok(versions)
}

/// Each sector holds a version that it may have; 0 is the content before all.
fn one_of(bytes: &[u8], start: u64, versions: &Versions) -> Result<()> {
    for (bytes, sector) in bytes.chunks_exact(SECTOR).zip(start..) {
        let may = versions.get(&sector).with_context(|| format!("sector {sector} is nobody's"))?;
        let is = |version: &u64| match version {
            0 => bytes.iter().all(|&byte| byte == 0),
            _ => pattern::check(bytes, sector, *version).is_ok(),
        };
        ensure!(may.iter().any(is), "sector {sector} is none of what was written: {may:?}");
    }
    Ok(())
}

/// Runs `act` while they write; it gets what waits until enough was acknowledged.
fn under_load(
    setup: &Setup,
    seed: u64,
    act: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<Versions> {
    let device = setup.served.path();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (device, stop, done) = (&device, &stop, &done);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(move || write_on(device, number, seed, stop, done)))
            .collect();
        let acted = act(&|| {
            wait_until("the writers' progress", PATIENCE, || {
                let ended = writers.iter().any(thread::ScopedJoinHandle::is_finished);
                Ok(ended || done.load(Ordering::Relaxed) >= LEAST)
            })
        });
        stop.store(true, Ordering::Relaxed);
        let mut all = Versions::new();
        for writer in writers {
            all.extend(writer.join().map_err(|_| anyhow!("a writer panicked"))??);
        }
        acted.map(|()| all)
    })
}

/// Without injection every sector can be read, unless nothing was ever written there; can be written; and is there from
/// the spare.
fn all_is_well(mut setup: Setup, versions: &Versions) -> Result<()> {
    ensure!(setup.served.daemon.alive()?, "the daemon has ended");
    let disk = setup.served.disk()?;
    let mut unreadable = Vec::new();
    for (&sector, may) in versions {
        match disk.read(sector, 1) {
            Ok(bytes) => one_of(&bytes, sector, versions)?,
            // It is a bad one of the data disk, and no write of it was acknowledged.
            Err(_) if may.contains(&0) => unreadable.push(sector),
            Err(error) => bail!("sector {sector}: {error}, and it was written: {may:?}"),
        }
    }
    let poisoned = setup.served.sectors_of(0, "poison-data")?;
    let unknown = unreadable.iter().find(|sector| !poisoned.contains(sector));
    ensure!(unknown.is_none(), "sector {unknown:?} failed, and is not poisoned");
    for (start, len) in runs() {
        disk.fill(start, len as usize, 7).context("when nothing is injected any more")?;
        disk.verify(start, len as usize, 7)?;
    }
    drop(disk);
    let Setup { served, disks } = setup;
    served.down()?;
    let served = Served::start()?;
    let disk = served.disk()?;
    for (start, len) in runs() {
        disk.verify(start, len as usize, 7).context("from the spare")?;
    }
    drop(disk);
    served.down()?;
    disks.remove()
}

fn for_want_of_memory(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("Cannot allocate memory")
}

type Begin = fn(&Setup) -> Result<Injection>;

fn suspended(ctx: &mut Ctx, begin: Begin) -> Result<()> {
    let setup = setup()?;
    let device = Device::shared(NAME);
    let injection = begin(&setup)?;
    let (mut loaded, mut refused) = (0, 0);
    let versions = under_load(&setup, ctx.seed, |progress| {
        for turn in 0..12 {
            match turn % 3 {
                0 => device.suspend()?,
                1 => device.suspend_noflush()?,
                _ => {
                    let table = device.table()?.replace("max_held_bios 1024", "max_held_bios 1000");
                    match device.load(&table) {
                        Ok(()) => loaded += 1,
                        Err(error) if for_want_of_memory(&error) => refused += 1,
                        Err(error) => return Err(error),
                    }
                    device.suspend()?;
                }
            }
            device.resume()?;
        }
        progress()
    })?;
    let count = injection.end()?;
    ctx.note(format!("{count} failures; {loaded} tables loaded, {refused} refused"))?;
    all_is_well(setup, &versions)
}

fn committed(ctx: &mut Ctx, begin: Begin) -> Result<()> {
    let setup = setup()?;
    let injection = begin(&setup)?;
    let versions = under_load(&setup, ctx.seed, |progress| progress())?;
    ctx.note(format!("{} failures", injection.end()?))?;
    all_is_well(setup, &versions)
}

fn live(what: &str) -> Result<String> {
    let path = format!("/sys/module/dm_remap_shim/parameters/live_{what}");
    Ok(fs::read_to_string(&path).context(path)?.trim().into())
}

fn nothing_lives() -> Result<()> {
    for what in ["instances", "faults"] {
        ensure!(live(what)? == "0", "live {what}: {}", live(what)?);
    }
    Ok(())
}

/// By force, so that what is in flight meets an error table.
fn removed(ctx: &mut Ctx, begin: Begin) -> Result<()> {
    let mut setup = setup()?;
    let injection = begin(&setup)?;
    let dmsetup = |args: &[&str]| Cmd::new("dmsetup").args(args).env("DM_DISABLE_UDEV", "1").end();
    let versions = under_load(&setup, ctx.seed, |progress| {
        progress()?;
        dmsetup(&["remove", "--force", NAME]).map(drop)
    })?;
    nothing_lives()?;
    ctx.note(format!("{} failures", injection.end()?))?;
    setup.served.kill()?;
    wait_until("the removal", PATIENCE, || {
        dmsetup(&["remove", NAME])?;
        Ok(!dmsetup(&["info", NAME])?.status.success())
    })?;
    setup.served.again()?;
    all_is_well(setup, &versions)
}

fn allocations_suspend(ctx: &mut Ctx) -> Result<()> {
    suspended(ctx, some_allocations)
}

fn allocations_commits(ctx: &mut Ctx) -> Result<()> {
    committed(ctx, some_allocations)
}

fn allocations_removal(ctx: &mut Ctx) -> Result<()> {
    removed(ctx, some_allocations)
}

fn requests_suspend(ctx: &mut Ctx) -> Result<()> {
    suspended(ctx, some_requests)
}

fn requests_commits(ctx: &mut Ctx) -> Result<()> {
    committed(ctx, some_requests)
}

fn requests_removal(ctx: &mut Ctx) -> Result<()> {
    removed(ctx, some_requests)
}

/// A device that cannot be made for want of memory leaves nothing, whatever it was that failed.
fn made(ctx: &mut Ctx) -> Result<()> {
    let brd = Brd::load(2, 16)?;
    let injection = Injection::of_allocations(3)?;
    let (mut made, mut refused) = (0, 0);
    for _ in 0..25 {
        match Device::remap("d", &brd.path(0), &brd.path(1), "") {
            Ok(device) => {
                made += 1;
                device.remove()?;
            }
            Err(error) => {
                ensure!(for_want_of_memory(&error), "refused for another reason: {error:#}");
                refused += 1;
            }
        }
        nothing_lives()?;
    }
    let count = injection.end()?;
    ctx.note(format!("{count} failures; {made} devices made, {refused} refused"))?;
    ensure!(made > 0 && refused > 0, "{made} devices made, {refused} refused");
    Ok(())
}

/// The control: one sector changes behind everybody's back.
fn lost_write(ctx: &mut Ctx) -> Result<()> {
    let setup = setup()?;
    let injection = some_requests(&setup)?;
    let versions = under_load(&setup, ctx.seed, |progress| progress())?;
    injection.end()?;
    let sector = versions.keys().next().context("nothing was written")?;
    setup.served.disk()?.fill(*sector, 1, u64::MAX)?;
    all_is_well(setup, &versions)
}

/// The control of the injection itself: none of the requests is to this disk.
fn nothing(ctx: &mut Ctx) -> Result<()> {
    let setup = setup()?;
    let injection = Injection::of_requests(&[], 100)?;
    under_load(&setup, ctx.seed, |progress| progress())?;
    injection.end().map(drop)
}
