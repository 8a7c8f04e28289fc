//! A disk that hangs costs its own device, and nothing else.
//!
//! The daemon once read the labels of all spares, opened them and reloaded between two looks at its signals: one spare that
//! took longer than the watchdog's time had systemd end the daemon for every device; and as the thread that waited for the disk
//! kept the process, its locks and its claims, no other could begin.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::case::Case;
use crate::guest::dm::Device;
use crate::guest::manager::{self, Manager};
use crate::guest::served::{self, Served, policyd};
use crate::guest::setup::Disks;
use crate::guest::{Ctx, Disk, spare, wait_until};

pub const CASES: &[Case] = &[Case::new("hung.a-spare-costs-its-own-device", 120, a_spare)];

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
