//! Devices that nobody serves: before their table is loaded, and after their owner has died.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::libc::EIO;

use crate::case::Case;
use crate::guest::daemon::Daemon;
use crate::guest::deadline::ended_at;
use crate::guest::devices::{Brd, NullBlk};
use crate::guest::dm::{self, Device};
use crate::guest::owner::Owner;
use crate::guest::served::{NAME, Served, configure, configure_all};
use crate::guest::stat::Stat;
use crate::guest::{Ctx, Disk, wait_until};

pub const CASES: &[Case] = &[
    Case::new("no-daemon.nothing-is-served-before-loading", 120, before_loading),
    Case::new("no-daemon.a-device-made-by-hand-is-adopted-by-its-config", 120, by_config),
    Case::new("no-daemon.a-device-made-by-hand-is-adopted-by-its-label", 120, by_label),
    Case::new("no-daemon.a-device-made-anew-on-other-numbers-is-served", 120, made_anew),
    Case::new("no-daemon.a-second-one-waits-for-the-end-of-the-first", 120, a_second_daemon),
    Case::new("no-daemon.an-owner-that-dies-leaves-the-fast-path", 120, owner_dies),
    Case::new(
        "no-daemon.with-a-queue-faults-wait-for-their-deadline",
        120,
        owner_dies_with_a_queue,
    ),
    Case::new("no-daemon.stale-data-is-seen", 60, without_the_target).must_fail("not version 2"),
];

const PATIENCE: Duration = Duration::from_secs(30);
const BAD: [u64; 4] = [1000, 2000, 3000, 4000];
const READY_MS: u64 = 2000;

/// A disk with bad sectors and a spare that holds mappings of 1000 and 2000. Both are mapped devices, which count the I/O
/// that reaches them, and the disk has a write cache, so that it is sent flushes. Fields are taken down in this order.
struct Disks {
    bad: Device,
    data: NullBlk,
    spare: Device,
    brd: Brd,
}

impl Disks {
    fn new() -> Result<Disks> {
        let brd = Brd::load(1, 64)?;
        let spare = dm::disk_with_bad_sectors("spare", &brd.path(0), &[])?;
        let data = NullBlk::create("cached", 64, &[("cache_size", "4")])?;
        let bad = dm::disk_with_bad_sectors("bad", data.path(), &BAD)?;
        let disks = Disks { bad, data, spare, brd };
        let served = Served::new(disks.bad.path(), disks.spare.path(), "")?;
        let disk = served.disk()?;
        // Stale on the data disk from here on, where an earlier version will lie.
        disk.fill(990, 20, 2)?;
        disk.fill(1990, 20, 2)?;
        drop(disk);
        served.down()?;
        Ok(disks)
    }

    /// By dmsetup, with no daemon there.
    fn by_hand(&self, options: &str) -> Result<Device> {
        let device = Device::remap(NAME, self.bad.path(), self.spare.path(), options)?;
        expect(&device, "not-ready no-owner 0 0 0 0 0")?;
        Ok(device)
    }

    fn reached(&self) -> Result<(Stat, Stat)> {
        Ok((Stat::of(self.bad.path())?, Stat::of(self.spare.path())?))
    }

    fn down(self) -> Result<()> {
        self.bad.remove()?;
        drop(self.data);
        self.spare.remove()?;
        drop(self.brd);
        Ok(())
    }
}

/// What `dmsetup status` says after the target's name; `words` is its beginning.
fn expect(device: &Device, words: &str) -> Result<()> {
    let said = device.remap_status()?.words;
    ensure!(said.starts_with(words), "status is {said:?}, not {words}");
    Ok(())
}

/// Reads and writes, of what is sound, mapped and bad, and a flush, which is one bio for each of the two disks.
fn before_loading(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let device = disks.by_hand(&format!("2 ready_deadline_ms {READY_MS}"))?;
    let before = disks.reached()?;
    let path = device.path();
    let fails = |what: &str, io: &dyn Fn(&Disk) -> Result<()>| -> Result<()> {
        let disk = Disk::open(path)?;
        let begun = Instant::now();
        io(&disk).with_context(|| what.to_owned())?;
        ended_at(begun, Duration::from_millis(READY_MS), what)
    };
    thread::scope(|scope| -> Result<()> {
        let all = [
            scope.spawn(|| fails("a read of what is sound", &|disk| disk.read_fails(100, 8, EIO))),
            scope.spawn(|| fails("a read of what is mapped", &|d| d.read_fails(1000, 1, EIO))),
            scope.spawn(|| fails("a read of what is bad", &|d| d.read_fails(3000, 1, EIO))),
            scope.spawn(|| fails("a write to what is sound", &|d| d.write_fails(200, 8, EIO))),
            scope.spawn(|| fails("a write to what is mapped", &|d| d.write_fails(2000, 1, EIO))),
            scope.spawn(|| {
                fails("a flush", &|disk| match disk.flush() {
                    Err(error) if error.raw_os_error() == Some(EIO) => Ok(()),
                    other => bail!("a flush gave {other:?}"),
                })
            }),
        ];
        let mut status = String::new();
        let held = wait_until("all of it to be held", PATIENCE, || {
            status = device.status()?;
            Ok(status.contains("remap not-ready no-owner 0 0 7 19 0"))
        });
        all.into_iter().try_for_each(|io| io.join().unwrap_or_else(|_| bail!("I/O panicked")))?;
        held.context(status)
    })?;
    expect(&device, "not-ready no-owner 0 0 0 0 0")?;
    let after = disks.reached()?;
    ensure!(after == before, "I/O reached a disk: {before:?} {after:?}");
    let expired = Owner::onlooker()?.counters()?.expired;
    ensure!(expired == 7, "{expired} expired, and not seven");
    device.remove()?;
    disks.down()
}

fn by_config(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    configure(disks.bad.path(), disks.spare.path(), "")?;
    adopted(disks).map(drop)
}

/// The configuration names no device.
fn by_label(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    configure_all("", &[], "")?;
    let log = adopted(disks)?;
    ensure!(log.contains(&format!("{NAME}: adopted")), "{log}");
    Ok(())
}

/// A disk that was away is back under another number, and the device is made anew by hand. The daemon kept what it had, and
/// the device was not served until the daemon was restarted.
fn made_anew(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let [data, spare] = ["/run/vm/data", "/run/vm/spare"].map(Path::new);
    let lead = |from: &Path, to: &Path| -> Result<()> {
        let _ = fs::remove_file(from);
        symlink(to, from).with_context(|| from.display().to_string())
    };
    lead(data, disks.bad.path())?;
    lead(spare, disks.spare.path())?;
    configure(data, spare, "")?;
    let served = Served::start()?;
    served.disk()?.fill(3000, 1, 3)?;

    // The same bytes under other numbers, while the daemon has the former ones open.
    let Disks { bad, data: cached, spare: former, brd } = disks;
    let disks = Disks {
        bad: dm::disk_with_bad_sectors("bad2", cached.path(), &BAD)?,
        data: cached,
        spare: dm::disk_with_bad_sectors("spare2", &brd.path(0), &[])?,
        brd,
    };
    Device::existing(NAME).remove()?;
    lead(data, disks.bad.path())?;
    lead(spare, disks.spare.path())?;
    let device = disks.by_hand("0")?;
    wait_until("the device to be served", PATIENCE, || {
        Ok(device.status()?.contains("ready owned 3 "))
    })
    .with_context(|| served.daemon.log().unwrap_or_default())?;
    let log = served.daemon.log()?;
    ensure!(log.contains("d1: removed, and its paths lead to other disks now"), "{log}");
    // It has let go of them.
    bad.remove()?;
    former.remove()?;
    let disk = served.disk()?;
    disk.verify(3000, 1, 3)?;
    disk.fill(4000, 1, 4)?;
    disk.verify(4000, 1, 4)?;
    drop(disk);
    served.down()?;
    drop(device);
    disks.down()
}

/// A second daemon must not touch the spare while the first lives, and takes over when that dies. A lock is of an inode,
/// and `/dev/mapper/spare` is another one than `/dev/dm-0` where no udev runs: the second daemon opened the spare under a new
/// epoch, and what the first one acknowledged from then on was void. And an instance that could not be adopted was not looked
/// at again.
fn a_second_daemon(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let device = disks.by_hand("1 queue_if_no_daemon")?;
    configure(disks.bad.path(), disks.spare.path(), "")?;
    let mut served = Served::start()?;
    let config = Path::new("/run/vm/second.toml");
    fs::write(config, "[daemon]\ncontrol_socket = \"/run/vm/second.sock\"\n")?;
    let mut second = Daemon::start(config)?;
    wait_until("a refusal", PATIENCE, || Ok(second.log()?.contains("is not adopted")))?;
    let log = second.log()?;
    ensure!(log.contains("is used by another dmremap-policyd; stop that first"), "{log}");
    let disk = Disk::open(device.path())?;
    disk.fill(3000, 1, 3)?;
    served.kill()?;
    wait_until("the adoption", PATIENCE, || Ok(second.log()?.contains("d1: adopted")))?;
    wait_until("the claim", PATIENCE, || Ok(device.status()?.contains("ready owned 3 ")))?;
    let log = second.log()?;
    ensure!(log.matches("is not adopted").count() == 1, "it was said again: {log}");
    disk.fill(4000, 1, 4)?;
    second.stop(PATIENCE)?;
    drop(disk);
    drop(served);
    drop(device);

    let served = Served::start()?;
    let disk = served.disk()?;
    disk.verify(990, 20, 2)?;
    disk.verify(3000, 1, 3)?;
    disk.verify(4000, 1, 4)?;
    drop(disk);
    served.down()?;
    disks.down()
}

/// I/O that waits for a table is served once a daemon has come. Returns what that logged.
fn adopted(disks: Disks) -> Result<String> {
    let device = disks.by_hand("0")?;
    let path: PathBuf = device.path().into();
    let served = thread::scope(|scope| -> Result<Served> {
        let read = scope.spawn(|| Disk::open(&path)?.verify(990, 20, 2));
        let write = scope.spawn(|| Disk::open(&path)?.fill(3000, 1, 3));
        wait_until("both to be held", PATIENCE, || {
            Ok(device.status()?.contains("remap not-ready no-owner 0 0 2 21 0"))
        })?;
        let served = Served::start_first(1)?;
        read.join().unwrap_or_else(|_| bail!("the reader panicked"))?;
        write.join().unwrap_or_else(|_| bail!("the writer panicked"))?;
        Ok(served)
    })?;
    expect(&device, "ready owned 3 0 0 0 ")?;
    let disk = served.disk()?;
    disk.verify(1990, 20, 2)?;
    disk.verify(3000, 1, 3)?;
    let mapped = served.listed("mapped")?;
    ensure!(mapped == [(1000, 1), (2000, 1), (3000, 1)], "mapped: {mapped:?}");
    drop(disk);
    let log = served.daemon.log()?;
    served.down()?;
    drop(device);
    disks.down()?;
    Ok(log)
}

/// What needs no daemon goes on without one.
fn fast_path(device: &Path, version: u64) -> Result<()> {
    let (disk, durable) = (Disk::open(device)?, Disk::open_durable(device)?);
    disk.verify(1990, 20, 2).context("mapped, and its neighbours")?;
    disk.fill(996, 8, version).context("over a mapping")?;
    disk.verify(996, 8, version)?;
    durable.fill(1000, 1, version + 1).context("FUA to a mapping")?;
    durable.fill(500, 8, version + 1).context("FUA to what is sound")?;
    disk.flush().context("a flush")?;
    disk.verify(1000, 1, version + 1)?;
    disk.verify(500, 8, version + 1)
}

fn owner_dies(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let device = disks.by_hand("0")?;
    configure(disks.bad.path(), disks.spare.path(), "")?;
    let mut served = Served::start()?;
    expect(&device, "ready owned 2 0 0 0 ")?;
    served.kill()?;
    expect(&device, "ready no-owner 2 0 0 0 ")?;
    fast_path(device.path(), 10)?;
    let before = Owner::onlooker()?.counters()?;
    let disk = Disk::open(device.path())?;
    disk.write_fails(3000, 1, EIO)?;
    disk.write_fails(3996, 8, EIO)?;
    disk.read_fails(4000, 1, EIO)?;
    let after = Owner::onlooker()?.counters()?;
    // At once: none of them was held.
    ensure!(after.unowned - before.unowned == 3, "not three unowned: {before:?} {after:?}");
    ensure!(after.faults == before.faults && after.expired == 0, "{before:?} {after:?}");
    fast_path(device.path(), 20)?;

    served.again()?;
    disk.fill(3000, 1, 30)?;
    disk.fill(3996, 8, 30)?;
    disk.verify(3000, 1, 30)?;
    disk.verify(3996, 8, 30)?;
    expect(&device, "ready owned 4 0 0 0 ")?;
    drop(disk);
    served.down()?;
    drop(device);
    disks.down()
}

fn owner_dies_with_a_queue(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let device = disks.by_hand("3 hold_deadline_ms 2000 queue_if_no_daemon")?;
    configure(disks.bad.path(), disks.spare.path(), "")?;
    let mut served = Served::start()?;
    served.kill()?;
    expect(&device, "ready no-owner 2 0 0 0 ")?;
    let before = Owner::onlooker()?.counters()?;
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| {
            let begun = Instant::now();
            Disk::open(device.path())?.write_fails(3000, 1, EIO)?;
            ended_at(begun, Duration::from_millis(2000), "a write")
        });
        while !writer.is_finished() {
            fast_path(device.path(), 10)?;
        }
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    let after = Owner::onlooker()?.counters()?;
    ensure!(after.expired - before.expired == 1, "not one expired: {before:?} {after:?}");
    ensure!(after.unowned == 0, "errors were passed up: {after:?}");
    expect(&device, "ready no-owner 2 0 0 0 ")?;
    served.again()?;
    served.disk()?.fill(3000, 1, 30)?;
    served.disk()?.verify(3000, 1, 30)?;
    served.down()?;
    drop(device);
    disks.down()
}

/// In the target's place: all of the data disk, at once.
fn without_the_target(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let linear = dm::disk_with_bad_sectors("linear", disks.data.path(), &[])?;
    Disk::open(linear.path())?.verify(990, 20, 2)
}
