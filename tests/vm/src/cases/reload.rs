//! A reload under load: a good file applies whole, while a writer never notices; of a bad one nothing does.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::case::Case;
use crate::cases::config;
use crate::guest::dm::Device;
use crate::guest::served::{self, NAME, Served, policyd};
use crate::guest::setup::Disks;
use crate::guest::{Cmd, Ctx, Disk, spare, wait_until};

pub const CASES: &[Case] = &[
    Case::new("reload.applies-whole-under-load", 120, applies_under_load),
    Case::new("reload.a-late-failure-undoes-all", 120, a_late_failure),
    Case::new("reload.dropped-io-is-seen", 90, dropped_io).must_fail("ing 8 sectors at"),
];

const PATIENCE: Duration = Duration::from_secs(30);

/// d1 has sectors 8, 16, ... that fail; d2 is formatted, d3 is not.
fn disks() -> Result<Disks> {
    let sectors: Vec<u64> = (1..256).map(|n| 8 * n).collect();
    Disks::two_formatted(6, &sectors)
}

/// A file for the first `devices`; `more` belongs to the sections of each.
fn configure(disks: &Disks, policy: &str, devices: usize, more: &str) -> Result<()> {
    let ram = |n| disks.brd.path(n);
    let pairs: [(&Path, &Path); 3] =
        [(disks.bad.path(), &ram(1)), (&ram(2), &ram(3)), (&ram(4), &ram(5))];
    served::configure_all(policy, &pairs[..devices], more)
}

fn status_of(name: &str) -> Result<Value> {
    let text = policyd(&["status", "--json"])?.end()?.stdout;
    for line in text.lines() {
        let value: Value = serde_json::from_str(line)?;
        if value["name"] == name {
            return Ok(value);
        }
    }
    bail!("{name} is not in {text}")
}

fn table(name: &str) -> Result<String> {
    Cmd::new("dmsetup").args(["table", name]).env("DM_DISABLE_UDEV", "1").run()
}

/// Writes and reads back over good and bad sectors until `stop`; `rounds` counts.
fn write_on(disk: &Disk, stop: &AtomicBool, rounds: &AtomicU64) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        // First over bad sectors, each of them once, then over what they became.
        let at = 4 + 8 * (round % 255);
        disk.fill(at, 8, round)?;
        disk.verify(at, 8, round)?;
    }
    Ok(())
}

/// Runs `act` while a writer writes; it must write before, while and after.
fn under_load(served: &Served, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let disk = served.disk()?;
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let goes_on = |writer: &thread::ScopedJoinHandle<'_, Result<()>>| {
        let from = rounds.load(Ordering::Relaxed);
        wait_until("the writer's next rounds", PATIENCE, || {
            Ok(rounds.load(Ordering::Relaxed) >= from + 5 || writer.is_finished())
        })
    };
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(&disk, &stop, &rounds));
        let done = goes_on(&writer).and_then(|()| act()).and_then(|()| goes_on(&writer));
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))?;
        done
    })
}

fn applies_under_load(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    configure(&disks, "", 1, "")?;
    let served = Served::start()?;
    let second = Device::existing("d2");
    ensure!(status_of(NAME)?["policy"]["read_retries"] == 3, "{}", status_of(NAME)?["policy"]);
    let instance = status_of(NAME)?["kernel"]["instance"].clone();
    under_load(&served, || {
        configure(&disks, "[policy]\nread_retries = 7", 2, "max_held_bios = 77")?;
        policyd(&["reload"])?.run()?;
        Ok(())
    })?;
    wait_until("d2", PATIENCE, || {
        Ok(second.path().exists() && status_of("d2")?["phase"] == "serving")
    })?;
    for name in [NAME, "d2"] {
        ensure!(table(name)?.contains("max_held_bios 77"), "{name}: {}", table(name)?);
        let policy = status_of(name)?["policy"].clone();
        ensure!(policy["read_retries"] == 7, "{name}: {policy}");
        ensure!(policy["place_attempts"] == 4, "{name}: {policy}");
    }
    ensure!(status_of(NAME)?["kernel"]["instance"] == instance, "{NAME} was made anew");
    let disk = Disk::open(second.path())?;
    disk.fill(0, 64, 1)?;
    disk.verify(0, 64, 1)?;
    drop(disk);

    // Refused and accepted in turn, under load.
    under_load(&served, || {
        for retries in 8..12 {
            configure(&disks, "[policy]\nread_retries = 101", 2, "max_held_bios = 77")?;
            ensure!(!policyd(&["reload"])?.end()?.status.success(), "101 was accepted");
            // `status` looks in the file for the daemon's socket.
            configure(&disks, "", 1, "")?;
            ensure!(status_of(NAME)?["policy"]["read_retries"] == retries - 1, "it was applied");
            let (policy, options) = (
                format!("[policy]\nread_retries = {retries}"),
                format!("max_held_kib = {retries}"),
            );
            configure(&disks, &policy, 2, &options)?;
            policyd(&["reload"])?.run()?;
            ensure!(status_of(NAME)?["policy"]["read_retries"] == retries, "it was not applied");
            ensure!(table(NAME)?.contains(&options.replace("= ", "")), "{}", table(NAME)?);
        }
        Ok(())
    })?;
    served.down()?;
    second.remove()?;
    disks.remove()
}

/// Options were changed, and a device was begun, when the last device refuses.
fn a_late_failure(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    configure(&disks, "", 2, "max_held_bios = 77")?;
    let served = Served::start_first(1)?;
    let second = Device::existing("d2");
    let before = (table(NAME)?, status_of(NAME)?["policy"].clone());
    let unchanged = || {
        let now = (table(NAME)?, status_of(NAME)?["policy"].clone());
        ensure!(now == before, "{now:?}, and was {before:?}");
        Ok(())
    };
    let refused = |words: &str| {
        let said = policyd(&["reload"])?.end()?;
        ensure!(
            !said.status.success()
                && said.stderr.contains("nothing was changed: ")
                && said.stderr.contains(words),
            "should be refused with {words:?}: {}: {}",
            said.status,
            said.stderr
        );
        unchanged()
    };
    // Only the daemon knows what it has in use. What it is told there is where it would be asked next.
    let text = std::fs::read_to_string(served::config_path())?.replace("control.sock", "x.sock");
    std::fs::write(served::config_path(), text + "[policy]\nread_retries = 9\n")?;
    let said = config::daemon_refuses()?;
    let words = "nothing was changed: [daemon] has changed; that takes a restart of the daemon";
    ensure!(said == words, "{said}");
    configure(&disks, "", 2, "max_held_bios = 77")?;
    unchanged()?;
    let (spare, bad) = (disks.brd.path(5), disks.bad.path());
    served::configure_all("[policy]\nread_retries = 9", &[(bad, &spare)], "max_held_bios = 88")?;
    refused("the disks of \"d1\" have changed while it is served")?;

    // What is no longer named is served until it is removed.
    configure(&disks, "", 1, "max_held_bios = 77")?;
    policyd(&["reload"])?.run()?;
    ensure!(status_of("d2")?["phase"] == "serving", "{}", status_of("d2")?);
    Disk::open(second.path())?.fill(0, 64, 1)?;
    configure(&disks, "", 2, "max_held_bios = 77")?;
    policyd(&["reload"])?.run()?;
    unchanged()?;

    // d3 has no label.
    configure(&disks, "[policy]\nread_retries = 9", 3, "max_held_bios = 88")?;
    refused("d3: /dev/ram5: no dm-remap label on this disk")?;
    ensure!(!Device::existing("d3").path().exists(), "d3 is there");

    // With one it is begun; but d2 is gone, and cannot be changed.
    served::format(&disks.brd.path(4), &disks.brd.path(5))?;
    second.remove()?;
    under_load(&served, || refused("d2: its options: "))?;
    let left = Cmd::new("dmsetup").arg("ls").env("DM_DISABLE_UDEV", "1").run()?;
    ensure!(!left.contains("d3"), "{left}");

    // No longer named, it is let go, and its name is free for other disks.
    configure(&disks, "", 1, "max_held_bios = 77")?;
    policyd(&["reload"])?.run()?;
    let closed = || Ok(spare::is_clean(&disks.brd.path(3)).is_ok());
    wait_until("the spare of d2 to be closed", PATIENCE, closed)?;
    ensure!(status_of("d2").is_err(), "d2 is served on");
    let pairs = [(bad, &*disks.brd.path(1)), (&*disks.brd.path(4), &*disks.brd.path(5))];
    served::configure_all("", &pairs, "max_held_bios = 77")?;
    policyd(&["reload"])?.run()?;
    let second = Device::existing("d2");
    Disk::open(second.path())?.fill(0, 64, 1)?;
    second.remove()?;
    served.down()?;
    disks.remove()
}

fn dropped_io(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    configure(&disks, "", 1, "")?;
    let served = Served::start()?;
    under_load(&served, || {
        let device = std::mem::ManuallyDrop::new(Device::existing(NAME));
        let sectors = Disk::open(device.path())?.sectors()?;
        device.load(&format!("0 {sectors} error\n"))?;
        device.suspend()?;
        device.resume()
    })
}
