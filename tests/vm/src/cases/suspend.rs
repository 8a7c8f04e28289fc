//! Suspending, resuming, reloading and removing a device while I/O fails and is held.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::libc::EIO;
use nix::sys::signal::Signal;

use crate::case::Case;
use crate::guest::dm::{self, Device};
use crate::guest::fs::{Kind, Mount, fio, fsck};
use crate::guest::served::NAME;
use crate::guest::setup::Setup;
use crate::guest::{Cmd, Ctx, Disk, rmmod, wait_until};

pub const CASES: &[Case] = &[
    Case::new("suspend.in-a-loop-under-load", 300, in_a_loop),
    Case::new("suspend.a-table-without-mappings-is-seen", 120, a_wrong_table)
        .must_fail(NOT_VERIFIED),
    Case::new("suspend.noflush-pushes-back-what-is-held", 60, pushes_back),
    Case::new("suspend.removal-of-a-device-in-use", 90, removal),
];

/// How fio ends, whatever it found in the place of what it wrote.
const NOT_VERIFIED: &str = "error=Invalid or incomplete multibyte or wide character";
/// How long a suspend waits for something to be held.
const HELD_WITHIN: Duration = Duration::from_millis(100);

/// Runs of 1 to 4 bad sectors all over a disk of 64 MiB.
fn bad_sectors() -> Vec<u64> {
    (0..300).flat_map(|i| (0..=i % 4).map(move |n| 2000 + i * 401 + n)).collect()
}

fn setup(options: &str) -> Result<Setup> {
    Setup::new(64, &bad_sectors(), options)
}

/// Waits until the module holds one bio.
fn wait_for_a_held_write(device: &Device) -> Result<()> {
    wait_until("a held write", Duration::from_secs(10), || Ok(device.remap_status()?.held == 1))
}

/// Loads another table for the same disks, that differs in one option; the words by which it is known.
fn load_another(device: &Device, turn: u64) -> Result<String> {
    let table = device.table()?;
    let mut words: Vec<String> = table.split_whitespace().map(str::to_owned).collect();
    let at = words.iter().position(|word| word == "max_held_bios").context("no max_held_bios")?;
    words[at + 1] = (1000 + turn).to_string();
    device.load(&format!("{}\n", words.join(" ")))?;
    Ok(words[at..=at + 1].join(" "))
}

/// ext4 on top, so that a flush suspend freezes a file system whose writes are held.
fn ext4(path: &Path) -> Result<Mount> {
    Kind::Ext4.mkfs(path)?;
    Mount::new(path, "suspend")
}

fn load(mount: &Mount, mib: u64, seed: u64) -> Result<String> {
    let args = ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=64", "--verify=crc32c"];
    let more = [format!("--size={mib}M"), format!("--randseed={seed}")];
    let all: Vec<&str> = args.into_iter().chain(more.iter().map(String::as_str)).collect();
    fio(&mount.path().join("file"), &all, 280)
}

/// One suspend, before which the daemon stands still until something is held; whether something was. It goes on while the
/// suspend waits for what is held, or after one that does not.
fn turn(setup: &Setup, device: &Device, number: u64) -> Result<bool> {
    let daemon = &setup.served.daemon;
    let known_by = if number % 3 == 2 { load_another(device, number)? } else { String::new() };
    daemon.signal(Signal::SIGSTOP)?;
    let end = Instant::now() + HELD_WITHIN;
    let mut held = false;
    while !held && Instant::now() < end {
        held = device.remap_status()?.held > 0;
    }
    if number % 3 == 1 {
        device.suspend_noflush()?;
        device.resume()?;
        daemon.signal(Signal::SIGCONT)?;
        return Ok(held);
    }
    thread::scope(|scope| {
        let going_on = scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            daemon.signal(Signal::SIGCONT)
        });
        let done = device.suspend().and_then(|()| device.resume());
        going_on.join().unwrap_or_else(|_| bail!("a panic")).and(done)
    })?;
    let table = device.table()?;
    ensure!(table.contains(&known_by), "no {known_by:?} in {table}");
    Ok(held)
}

fn in_a_loop(ctx: &mut Ctx) -> Result<()> {
    let setup = setup("")?;
    let path = setup.served.path();
    let mount = ext4(&path)?;
    let device = Device::shared(NAME);
    // Of each kind, and those with something held.
    let (mut turns, mut held) = ([0; 3], [0; 3]);
    thread::scope(|scope| -> Result<()> {
        let worker = scope.spawn(|| load(&mount, 40, ctx.seed));
        for number in 0.. {
            if worker.is_finished() {
                break;
            }
            let kind = (number % 3) as usize;
            turns[kind] += 1;
            held[kind] += u32::from(turn(&setup, &device, number)?);
            thread::sleep(Duration::from_millis(20));
        }
        worker.join().unwrap_or_else(|_| bail!("fio's thread panicked")).map(drop)
    })?;
    ctx.note(format!("{turns:?} times suspended and resumed, {held:?} times with something held"))?;
    ensure!(turns.iter().all(|&turns| turns >= 3), "only {turns:?} turns");
    ensure!(held.iter().all(|&held| held > 0), "something held: {held:?} times of {turns:?}");
    ensure!(setup.served.listed("mapped")?.len() > 50, "few errors were met");
    drop(mount);
    fsck(&path)?;
    setup.down()
}

/// The control of the case above: a table that leads past the mappings to what is stale.
fn a_wrong_table(ctx: &mut Ctx) -> Result<()> {
    let setup = setup("")?;
    let mount = ext4(&setup.served.path())?;
    let device = Device::shared(NAME);
    let mapped = || setup.served.listed("mapped").map(|mapped| mapped.len());
    let before = mapped()?;
    let linear =
        dm::table_with_bad_sectors(&setup.disks.brd.path(0).display().to_string(), 64 * 2048, &[])?;
    thread::scope(|scope| {
        let worker = scope.spawn(|| load(&mount, 16, ctx.seed));
        // Some are the journal's.
        wait_until("mappings of the file's", Duration::from_secs(60), || {
            Ok(worker.is_finished() || mapped()? > before + 8)
        })?;
        device.load(&linear)?;
        device.suspend()?;
        device.resume()?;
        worker.join().unwrap_or_else(|_| bail!("fio's thread panicked")).map(drop)
    })
}

/// A noflush suspend must not wait for the daemon, and what was held is served after the resume.
fn pushes_back(_: &mut Ctx) -> Result<()> {
    let setup = setup("")?;
    let device = Device::shared(NAME);
    let disk = setup.served.disk()?;
    setup.served.daemon.signal(Signal::SIGSTOP)?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| disk.fill(2000, 8, 5));
        wait_for_a_held_write(&device)?;
        device.suspend_noflush()?;
        ensure!(device.remap_status()?.held == 0, "still held: {}", device.status()?);
        ensure!(!writer.is_finished(), "the write ended in a noflush suspend");
        device.resume()?;
        wait_for_a_held_write(&device).context("after the resume")?;
        setup.served.daemon.signal(Signal::SIGCONT)?;
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    disk.verify(2000, 8, 5)?;
    drop(disk);
    setup.down()
}

fn removal(_: &mut Ctx) -> Result<()> {
    let setup = setup("hold_deadline_ms = 3000")?;
    let device = Device::shared(NAME);
    let disk = setup.served.disk()?;
    disk.fill(2401, 8, 1)?;
    let dmsetup = |args: &[&str]| Cmd::new("dmsetup").args(args).env("DM_DISABLE_UDEV", "1").end();
    let busy = dmsetup(&["remove", NAME])?;
    ensure!(!busy.status.success() && busy.stderr.contains("busy"), "{}", busy.stderr);
    disk.verify(2401, 8, 1).context("after a removal that was refused")?;
    ensure!(rmmod("dm_remap_shim").is_err(), "the module left while in use");

    // Forced, with a write held that nobody answers: it ends at its deadline, and so does the removal.
    setup.served.daemon.signal(Signal::SIGSTOP)?;
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| disk.write_fails(2802, 8, EIO));
        wait_for_a_held_write(&device)?;
        // Open still, so the error table stays; the instance and all that it held are gone.
        dmsetup(&["remove", "--force", NAME])?;
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    disk.read_fails(2401, 8, EIO).context("through the error table")?;
    let live = fs::read_to_string("/sys/module/dm_remap_shim/parameters/live_instances")?;
    ensure!(live.trim() == "0", "{live} instances live on");
    drop(disk);
    setup.served.daemon.signal(Signal::SIGCONT)?;
    wait_until("the removal", Duration::from_secs(10), || {
        dmsetup(&["remove", NAME])?;
        Ok(!dmsetup(&["info", NAME])?.status.success())
    })?;

    // Deferred: it goes with its last user. The daemon makes it again.
    let Setup { mut served, disks } = setup;
    served.kill()?;
    served.again()?;
    let disk = Disk::open(served.path())?;
    disk.verify(2401, 8, 1).context("made again")?;
    let deferred = dmsetup(&["remove", "--deferred", NAME])?;
    ensure!(deferred.status.success(), "{}", deferred.stderr);
    disk.verify(2401, 8, 1).context("between a deferred removal and its end")?;
    drop(disk);
    wait_until("the deferred removal", Duration::from_secs(10), || {
        Ok(!dmsetup(&["info", NAME])?.status.success())
    })?;
    served.daemon.stop(Duration::from_secs(30))?;
    drop(served);
    disks.remove()
}
