//! Suspending, resuming, reloading and removing a device while I/O fails and is held.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::libc::EIO;
use nix::sys::signal::Signal;

use crate::case::Case;
use crate::guest::dm::Device;
use crate::guest::fs::{Mount, fio, fsck};
use crate::guest::served::NAME;
use crate::guest::setup::Setup;
use crate::guest::{Cmd, Ctx, Disk, rmmod, wait_until};

pub const CASES: &[Case] = &[
    Case::new("suspend.in-a-loop-under-load", 300, in_a_loop),
    Case::new("suspend.noflush-pushes-back-what-is-held", 60, pushes_back),
    Case::new("suspend.removal-of-a-device-in-use", 90, removal),
];

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

/// Another table for the same disks, that differs in one option.
fn reload(device: &Device, turn: u64) -> Result<()> {
    let table = device.table()?;
    let mut words: Vec<String> = table.split_whitespace().map(str::to_owned).collect();
    let at = words.iter().position(|word| word == "max_held_bios").context("no max_held_bios")?;
    words[at + 1] = (1000 + turn).to_string();
    device.load(&format!("{}\n", words.join(" ")))?;
    device.suspend()?;
    device.resume()?;
    ensure!(device.table()?.contains(&words[at..=at + 1].join(" ")), "{}", device.table()?);
    Ok(())
}

/// ext4 on top, so that a flush suspend freezes a file system whose writes are held.
fn in_a_loop(ctx: &mut Ctx) -> Result<()> {
    let setup = setup("")?;
    let path = setup.served.path();
    // Nothing is left for ext4 to initialise, and so to read, later.
    let whole = ["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    Cmd::new("mkfs.ext4").args(whole).arg(path.display().to_string()).run()?;
    let mount = Mount::new(&path, "suspend")?;
    let device = Device::shared(NAME);
    let load = |file: &Path| {
        let args = ["--rw=randwrite", "--bs=4k", "--size=40M", "--iodepth=16", "--verify=crc32c"];
        let seed = format!("--randseed={}", ctx.seed);
        fio(file, &[&args[..], &["--fsync=64", &seed]].concat(), 280)
    };
    let file = mount.path().join("file");
    let turns = thread::scope(|scope| -> Result<u64> {
        let worker = scope.spawn(|| load(&file));
        let mut turn = 0;
        while !worker.is_finished() {
            match turn % 3 {
                0 => device.suspend().and_then(|()| device.resume())?,
                1 => {
                    setup.served.daemon.signal(Signal::SIGSTOP)?;
                    thread::sleep(Duration::from_millis(50));
                    device.suspend_noflush()?;
                    device.resume()?;
                    setup.served.daemon.signal(Signal::SIGCONT)?;
                }
                _ => reload(&device, turn)?,
            }
            turn += 1;
            thread::sleep(Duration::from_millis(20));
        }
        worker.join().unwrap_or_else(|_| bail!("fio's thread panicked"))?;
        Ok(turn)
    })?;
    ctx.note(format!("{turns} times suspended and resumed"))?;
    ensure!(turns >= 9, "only {turns} turns");
    ensure!(setup.served.listed("mapped")?.len() > 50, "few errors were met");
    drop(mount);
    fsck(&path)?;
    setup.down()
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
