//! A disk that hangs costs its own device, and nothing else.
//!
//! The daemon once read the labels of all spares, opened them and reloaded between two looks at its signals: one spare that
//! took longer than the watchdog's time had systemd end the daemon for every device; and as the thread that waited for the disk
//! kept the process, its locks and its claims, no other could begin.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::case::Case;
use crate::guest::dm::{self, Device};
use crate::guest::manager::{self, Manager};
use crate::guest::served::{self, Served, policyd};
use crate::guest::setup::Disks;
use crate::guest::{Ctx, Disk, spare, wait_until};

pub const CASES: &[Case] = &[
    Case::new("hung.a-spare-costs-its-own-device", 120, a_spare),
    Case::new("hung.a-data-disk-costs-its-own-device", 60, a_data_disk),
];

const PATIENCE: Duration = Duration::from_secs(30);
/// The daemon tells the watchdog each half of this.
const WATCHDOG: &str = "1000000";

/// The spare of d2 does not answer, from before the daemon starts until after it was told to stop.
fn a_spare(_: &mut Ctx) -> Result<()> {
    let disks = Disks::of(4, 16, &[100, 200])?;
    let (data, below) = (disks.brd.path(2), disks.brd.path(3));
    let sectors = Disk::open(&below)?.sectors()?;
    let slow = Device::create("slow", &format!("0 {sectors} linear {} 0\n", below.display()))?;
    served::format(disks.bad.path(), &disks.spare())?;
    served::format(&data, slow.path())?;
    let first = (disks.bad.path(), disks.spare());
    let both = [(first.0, first.1.as_path()), (data.as_path(), slow.path())];
    served::configure_all("", &both, "")?;
    let manager = Manager::new()?;

    slow.suspend()?;
    let env = [("NOTIFY_SOCKET", manager::SOCKET), ("WATCHDOG_USEC", WATCHDOG)];
    let served = Served::start_in_env(1, &env)?;
    ensure!(manager.news()? == "READY=1");
    served.disk()?.fill(100, 1, 1)?;
    served.disk()?.verify(100, 1, 1)?;
    ensure!(served.listed("mapped")? == [(100, 1)], "{:?}", served.listed("mapped")?);

    // It is tried again and again, and a reload that changes it waits for it: all that is heard meanwhile is the watchdog's due.
    let words = "the spare /dev/mapper/slow has not answered a read for 4 s";
    served::configure_all("", &both, "max_held_bios = 77")?;
    spare::says(&["reload"], 1, &format!("nothing was changed: d2: {words}"))?;
    ensure!(policyd(&["status"])?.end()?.stdout.contains(&format!("d2: not served: {words}")));
    let beats = manager.heard().iter().filter(|said| *said == "WATCHDOG=1").count();
    ensure!(beats >= 3, "the watchdog heard of it {beats} times in four seconds");
    // One that leaves it as it is applies to the others.
    served::configure_all("[policy]\nread_retries = 7", &both, "")?;
    policyd(&["reload"])?.run()?;
    let status = policyd(&["status", "--json"])?.end()?.stdout;
    ensure!(status.contains("\"read_retries\":7") && status.contains(words), "{status}");
    served::configure_all("", &both[..1], "")?;
    policyd(&["reload"])?.run()?;

    // The daemon is told to stop, and closes what it can.
    served.daemon.signal(Signal::SIGTERM)?;
    while manager.news()? != "STOPPING=1" {}
    let first = first.1.display().to_string();
    wait_until("the spare of d1 to be closed", PATIENCE, || {
        Ok(!policyd(&["check", &first])?.run()?.contains("was not closed"))
    })?;
    slow.resume()?;
    served.down()?;
    slow.remove()?;
    disks.remove()
}

/// The data disk of d2 says at once that a sector is bad, and then answers none of the reads by which the daemon wants to
/// know whether it answers.
fn a_data_disk(_: &mut Ctx) -> Result<()> {
    let disks = Disks::of(4, 16, &[100, 200])?;
    let worn = dm::disk_with_bad_sectors("worn", &disks.brd.path(2), &[100])?;
    let (sectors, below) = (Disk::open(worn.path())?.sectors()?, worn.path().display());
    let reads_hang = format!("0 {sectors} delay {below} 0 600000 {below} 0 0\n");
    let slow = Device::create("slow", &reads_hang)?;
    let (first, spare) = (disks.spare(), disks.brd.path(3));
    let served = Served::several(&[(disks.bad.path(), &first), (slow.path(), &spare)])?;
    let (sound, hangs) = (served.disk()?, served.disk_of(1)?);
    thread::scope(|scope| {
        let held = scope.spawn(|| hangs.fill(100, 1, 1));
        let is_held = || Ok(Device::shared("d2").remap_status()?.held == 1);
        wait_until("the write to d2 to be held", PATIENCE, is_held)?;
        for sector in [100, 200] {
            sound.fill(sector, 1, 1)?;
            sound.verify(sector, 1, 1)?;
        }
        ensure!(served.listed("mapped")? == [(100, 1), (200, 1)], "{:?}", served.listed("mapped")?);
        policyd(&["reload"])?.run()?;
        ensure!(!held.is_finished(), "the disk of d2 has answered");
        // Whoever waits for it is answered now.
        slow.load(&format!("0 {sectors} linear {below} 0\n"))?;
        slow.suspend()?;
        slow.resume()?;
        held.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    hangs.verify(100, 1, 1)?;
    ensure!(served.sectors_of(1, "mapped")? == [100], "{:?}", served.sectors_of(1, "mapped")?);
    drop((sound, hangs));
    served.down()?;
    slow.remove()?;
    worn.remove()?;
    disks.remove()
}
