//! The main job: the daemon and the module keep a disk with bad sectors in service.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::case::Case;
use crate::guest::dm::Device;
use crate::guest::served::{self, NAME, Served, config_path, policyd};
use crate::guest::setup::Disks;
use crate::guest::{Ctx, Disk, wait_until};

pub const CASES: &[Case] = &[
    Case::new("daemon.maps-bad-sectors", 90, maps_bad_sectors),
    Case::new("daemon.one-bio-over-five-bad-sectors", 90, one_bio),
    Case::new("daemon.reads-poison-and-writes-heal", 90, poison_and_heal),
    Case::new("daemon.mappings-outlive-the-device", 120, outlive_the_device),
    Case::new("daemon.killed-while-a-write-waits", 120, killed_while_a_write_waits),
    Case::new("daemon.reload-is-all-or-nothing", 90, reload),
    Case::new("daemon.no-thread-waits-for-its-own-device", 60, no_thread_waits),
];

const PATIENCE: Duration = Duration::from_secs(30);
const BAD: [u64; 10] = [100, 101, 200, 300, 400, 50000, 50001, 75000, 100_000, 150_000];

/// Neighbours are listed as one or as two extents; the sectors are what counts.
fn sectors(extents: &[(u64, u64)]) -> Vec<u64> {
    extents.iter().flat_map(|&(start, len)| start..start + len).collect()
}

fn disks() -> Result<Disks> {
    Disks::new(128, &BAD)
}

fn expect_mapped(served: &Served, wanted: &[u64]) -> Result<()> {
    let mapped = sectors(&served.listed("mapped")?);
    ensure!(mapped == wanted, "mapped: {mapped:?}, and should be {wanted:?}");
    Ok(())
}

fn maps_bad_sectors(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let served = disks.serve("")?;
    let disk = served.disk()?;
    for (&sector, version) in BAD.iter().zip(1..) {
        disk.fill(sector, 1, version)?;
        disk.verify(sector, 1, version)?;
    }
    expect_mapped(&served, &BAD)?;
    drop(disk);
    served.down()
}

fn one_bio(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let served = disks.serve("")?;
    let disk = served.disk()?;
    disk.fill(0, 512, 1)?;
    disk.verify(0, 512, 1)?;
    expect_mapped(&served, &BAD[..5])?;
    drop(disk);
    served.down()
}

fn poison_and_heal(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let served = disks.serve("")?;
    let disk = served.disk()?;
    for _ in 0..3 {
        ensure!(disk.read(100, 1).is_err(), "bytes that nobody wrote");
        ensure!(disk.read(96, 8).is_err(), "bytes that nobody wrote, among others");
    }
    ensure!(
        sectors(&served.listed("poison-data")?) == [100, 101],
        "{:?}",
        served.listed("poison-data")?
    );
    disk.fill(101, 1, 2)?;
    disk.verify(101, 1, 2)?;
    ensure!(disk.read(100, 1).is_err(), "healing 101 healed 100");
    expect_mapped(&served, &[101])?;
    ensure!(sectors(&served.listed("poison-data")?) == [100], "100 is not poisoned any more");
    drop(disk);
    served.down()
}

fn outlive_the_device(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let served = disks.serve("")?;
    served.disk()?.fill(0, 512, 7)?;
    ensure!(served.disk()?.read(75000, 1).is_err(), "bytes that nobody wrote");
    served.down()?;
    let spare = disks.spare().display().to_string();
    let checked = policyd(&["check", &spare])?.run()?;
    ensure!(checked.contains("clean"), "{checked}");

    let served = Served::start()?;
    served.disk()?.verify(0, 512, 7)?;
    ensure!(served.disk()?.read(75000, 1).is_err(), "the poison is gone");
    expect_mapped(&served, &BAD[..5])?;
    served.down()
}

fn killed_while_a_write_waits(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let mut served = disks.serve("")?;
    let disk = served.disk()?;
    disk.fill(200, 1, 1)?;
    served.kill()?;
    disk.verify(200, 1, 1).context("the fast path needs no daemon")?;
    thread::scope(|scope| {
        let held = scope.spawn(|| disk.fill(300, 1, 2));
        thread::sleep(Duration::from_millis(500));
        ensure!(!held.is_finished(), "a write to a bad sector ended without a daemon");
        // What was configured meanwhile holds as well, of options too: they are changed as by a reload.
        served::configure(disks.bad.path(), &disks.spare(), "max_held_bios = 77")?;
        served.again()?;
        held.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    let has_options = || Ok(Device::shared(NAME).table()?.contains("max_held_bios 77 "));
    wait_until("its options to be changed", PATIENCE, has_options)?;
    disk.verify(300, 1, 2)?;
    expect_mapped(&served, &[200, 300])?;
    drop(disk);
    served.down()
}

fn reload(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let served = disks.serve("")?;
    let good = std::fs::read_to_string(config_path())?;
    std::fs::write(config_path(), format!("{good}\n[policy]\nread_retires = 1\n"))?;
    let refused = policyd(&["reload"])?.end()?;
    let line = good.lines().count() + 3;
    ensure!(!refused.status.success(), "a wrong key was accepted");
    ensure!(
        refused.stderr.contains("read_retires") && refused.stderr.contains(&format!(":{line}")),
        "not at line {line}: {}",
        refused.stderr
    );
    let disk: Disk = served.disk()?;
    disk.fill(400, 1, 3)?;
    std::fs::write(config_path(), format!("{good}\n[policy]\nread_retries = 1\n"))?;
    policyd(&["reload"])?.run()?;
    disk.verify(400, 1, 3)?;
    ensure!(served.status()?.contains(NAME), "it is not served any more");
    drop(disk);
    served.down()
}

/// Of PR_SET_IO_FLUSHER: PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE. Its field in `stat`, after the name.
const IO_FLUSHER: u64 = 0x0018_0000;
const FLAGS: usize = 6;

/// SCHED_RR, and its field.
const REALTIME: u64 = 2;
const POLICY: usize = 38;

/// How many threads a process has, how many of them are I/O flushers, and how many are realtime.
fn threads(process: &Path) -> Result<(usize, usize, usize)> {
    let (mut all, mut flushers, mut realtime) = (0, 0, 0);
    for thread in fs::read_dir(process.join("task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        let fields = stat.rsplit(')').next().context("a thread without a name")?;
        let field = |n| {
            let field = fields.split_whitespace().nth(n).context("a thread that says little")?;
            Ok::<u64, anyhow::Error>(field.parse()?)
        };
        all += 1;
        flushers += usize::from(field(FLAGS)? & IO_FLUSHER == IO_FLUSHER);
        realtime += usize::from(field(POLICY)? == REALTIME);
    }
    Ok((all, flushers, realtime))
}

fn no_thread_waits(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let served = disks.serve("")?;
    let disk = served.disk()?;
    // Every thread there is has something to do for it.
    disk.fill(100, 1, 1)?;
    served.status()?;
    let process = Path::new("/proc").join(served.daemon.pid().to_string());
    let (all, flushers, realtime) = threads(&process)?;
    ensure!(all >= 3 && all == flushers, "{flushers} of {all} threads are I/O flushers");
    // The one that writes the log may wait.
    ensure!(all == realtime + 1, "{realtime} of {all} threads are realtime");
    let (_, flushers, realtime) = threads(Path::new("/proc/self"))?;
    ensure!((flushers, realtime) == (0, 0), "threads of anybody are I/O flushers, or realtime");
    let score = fs::read_to_string(process.join("oom_score_adj"))?;
    ensure!(score.trim() == "-999", "its out-of-memory score is {score}");
    let status = fs::read_to_string(process.join("status"))?;
    let size = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
        Ok::<u64, anyhow::Error>(line.trim().trim_end_matches(" kB").parse()?)
    };
    ensure!(size("VmLck:")? >= size("VmRSS:")?, "some of its memory is not locked");
    drop(disk);
    served.down()
}
