//! The daemon's log, its working directory and the swap of the whole system on the device that it serves, with memory
//! short and sectors bad.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::case::{Case, Disk as CaseDisk};
use crate::guest::dm::{self, Device};
use crate::guest::fs::{Mount, fsck};
use crate::guest::kernel::scaled;
use crate::guest::owner::Owner;
use crate::guest::served::Served;
use crate::guest::{Cmd, Ctx, Disk, LOGS, load, pattern, run};

pub const CASES: &[Case] = &[
    Case::new("pressure.the-daemon-lives-on-its-own-device", 600, own_device)
        .disks(DISKS)
        .append(MEMORY),
    Case::new("pressure.standing-still-is-seen", 120, standing_still)
        .disks(DISKS)
        .append(MEMORY)
        .must_fail("no progress within"),
];

const DISKS: &[CaseDisk] = &[CaseDisk::Raw { mib: 256 }, CaseDisk::Raw { mib: 64 }];
const MEMORY: &str = "mem=320M";
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a held bio; scaled it is still one that the module takes.
const DEADLINE: Duration = Duration::from_secs(19);
/// Something must go on within so many deadlines.
const DEADLINES: u32 = 2;

const MIB: u64 = 1 << 20;
/// Sectors of the file system; the rest of the device is swap.
const FILES: u64 = 64 * 2048;
/// Memory used beyond what there is.
const BEYOND: u64 = 96 * MIB;
/// How often it is gone through.
const PASSES: u64 = 2;

/// Fields are taken down in this order.
struct Setup {
    swap: Swap,
    mount: Mount,
    swap_volume: Device,
    file_volume: Device,
    served: Served,
    bad: Device,
}

struct Swap(PathBuf);

impl Drop for Swap {
    fn drop(&mut self) {
        // What stays keeps its device from being removed, which is found.
        let _ = run(&["swapoff", &self.0.display().to_string()]);
    }
}

fn setup(ctx: &Ctx) -> Result<Setup> {
    let (data, spare) = (ctx.disk(0)?, ctx.disk(1)?);
    let bad = load::sectors(&load::runs(2000, 1300, 401));
    let bad = dm::disk_with_bad_sectors("bad", &data, &bad)?;
    let deadline = format!("hold_deadline_ms = {}", scaled(DEADLINE).as_millis());
    let served = Served::new(bad.path(), &spare, &deadline)?;
    let device = served.path();
    let sectors = Disk::open(&device)?.sectors()?;
    let volume = |name, first: u64, end: u64| {
        let table = format!("0 {} linear {} {first}\n", end - first, device.display());
        Device::create(name, &table)
    };
    let file_volume = volume("files", 0, FILES)?;
    let swap_volume = volume("swap", FILES, sectors)?;
    // Nothing is left for ext4 to initialise, and so to read, later.
    let whole = ["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    Cmd::new("mkfs.ext4").args(whole).arg(file_volume.dev()).run()?;
    let mount = Mount::new(file_volume.path(), "own")?;
    run(&["mkswap", &swap_volume.dev()])?;
    run(&["swapon", &swap_volume.dev()])?;
    let swap = Swap(swap_volume.path().into());
    Ok(Setup { swap, mount, swap_volume, file_volume, served, bad })
}

/// Counts what gets done.
#[derive(Clone, Default)]
struct Progress(Arc<AtomicU64>);

impl Progress {
    fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A line such as `VmSwap:  12 kB`, in bytes.
fn field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let line = text.lines().find(|line| line.starts_with(name)).with_context(|| name.to_owned())?;
    let kib = line.split_whitespace().nth(1).with_context(|| line.to_owned())?;
    Ok(kib.parse::<u64>()? << 10)
}

/// Two things that go on at once, and how far they are.
struct Work {
    threads: Vec<(Progress, JoinHandle<Result<()>>)>,
    stop: Arc<AtomicBool>,
}

impl Work {
    fn start(dir: &Path, hogs: bool) -> Work {
        let mut work = Work { threads: Vec::new(), stop: Arc::default() };
        let dir = dir.to_owned();
        work.add(move |progress, stop| files(&dir, progress, stop));
        if hogs {
            work.add(hog);
        }
        work
    }

    fn add(&mut self, task: impl FnOnce(&Progress, &AtomicBool) -> Result<()> + Send + 'static) {
        let (progress, stop) = (Progress::default(), self.stop.clone());
        // Not scoped: one that is stuck must not keep the case from saying so.
        let thread = thread::spawn({
            let progress = progress.clone();
            move || task(&progress, &stop)
        });
        self.threads.push((progress, thread));
    }

    /// Until one has ended; fails if one stands still for `limit`. `between` is done every second.
    fn watch(&self, limit: Duration, mut between: impl FnMut() -> Result<()>) -> Result<()> {
        let mut seen = vec![(0, Instant::now()); self.threads.len()];
        let mut last = Instant::now();
        while !self.threads.iter().any(|(_, thread)| thread.is_finished()) {
            for ((progress, _), (before, since)) in self.threads.iter().zip(&mut seen) {
                if progress.now() != *before {
                    (*before, *since) = (progress.now(), Instant::now());
                }
                ensure!(since.elapsed() < scaled(limit), "no progress within {limit:?}");
            }
            if last.elapsed() > Duration::from_secs(1) {
                between()?;
                last = Instant::now();
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .try_for_each(|(_, thread)| thread.join().map_err(|_| anyhow!("a panic"))?)
    }
}

/// More memory than there is, each page known by its number and the pass.
fn hog(progress: &Progress, _: &AtomicBool) -> Result<()> {
    let mib = (field("/proc/meminfo", "MemAvailable:")? + BEYOND) / MIB;
    let mut memory: Vec<Vec<u8>> = Vec::new();
    for pass in 0..PASSES {
        for part in 0..mib {
            let first = part * (MIB / 512);
            let fresh = pattern::sectors(first, (MIB / 512) as usize, pass);
            match memory.get_mut(part as usize) {
                Some(bytes) => {
                    pattern::check(bytes, first, pass - 1).context("memory that was swapped")?;
                    *bytes = fresh;
                }
                None => memory.push(fresh),
            }
            progress.step();
        }
    }
    Ok(())
}

/// Files that are synced and read again.
fn files(dir: &Path, progress: &Progress, stop: &AtomicBool) -> Result<()> {
    let mut version = 0;
    while !stop.load(Ordering::Relaxed) {
        version += 1;
        let first = version % 16 * 512;
        let path = dir.join(format!("file-{first}"));
        let bytes = pattern::sectors(first, 512, version);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        fs::File::open(&path)?.sync_all().with_context(|| path.display().to_string())?;
        pattern::check(&fs::read(&path)?, first, version)?;
        progress.step();
    }
    Ok(())
}

fn own_device(ctx: &mut Ctx) -> Result<()> {
    let Setup { swap, mount, swap_volume, file_volume, mut served, bad } = setup(ctx)?;
    served.daemon.stop(PATIENCE)?;
    served.again_in(mount.path())?;
    let mut most = 0;
    let work = Work::start(mount.path(), true);
    let watched = work.watch(DEADLINE * DEADLINES, || {
        let total = field("/proc/meminfo", "SwapTotal:")?;
        most = most.max(total - field("/proc/meminfo", "SwapFree:")?);
        let own = format!("/proc/{}/status", served.daemon.pid());
        ensure!(field(&own, "VmSwap:")? == 0, "the daemon was swapped out");
        Ok(())
    });
    let ended = watched.and_then(|()| work.end());
    if ended.is_err() {
        fs::copy(served.daemon.log_path(), format!("{LOGS}/own.log"))?;
    }
    ended.with_context(|| format!("{:?}", Owner::onlooker().and_then(|mut o| o.counters())))?;
    ctx.note(format!("{} MiB were in swap", most / MIB))?;
    ensure!(most > BEYOND / 2, "only {most} bytes were swapped out");

    let counters = Owner::onlooker()?.counters()?;
    ensure!(counters.expired == 0 && counters.unowned == 0, "{counters:?}");
    let mapped = load::sectors(&served.listed("mapped")?);
    let in_swap = mapped.iter().filter(|&&sector| sector >= FILES).count();
    let in_files = mapped.len() - in_swap;
    ctx.note(format!(
        "{in_files} sectors of the file system and {in_swap} of the swap are mapped"
    ))?;
    ensure!(in_files > 50 && in_swap > 50, "few errors were met");
    let log = served.daemon.log()?;
    ensure!(log.contains("d1: ready"), "the log on the device says: {log}");

    drop(swap);
    served.daemon.stop(PATIENCE)?;
    served.again()?;
    drop(mount);
    fsck(file_volume.path())?;
    swap_volume.remove()?;
    file_volume.remove()?;
    served.down()?;
    bad.remove()
}

/// The file system suspended, so that nothing reaches it.
fn standing_still(ctx: &mut Ctx) -> Result<()> {
    let setup = setup(ctx)?;
    let work = Work::start(setup.mount.path(), false);
    let watched = work.watch(Duration::from_secs(3), || setup.file_volume.suspend());
    setup.file_volume.resume()?;
    work.end()?;
    watched
}
