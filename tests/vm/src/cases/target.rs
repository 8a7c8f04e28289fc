//! The target as device-mapper and the block layer see it: discards and zeroes, I/O that may not wait, tables that it
//! refuses, and what it says of itself. No case here needs a daemon, but where sectors are to be poisoned.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::libc::{EAGAIN, ENODATA};
use nix::sys::signal::Signal;
use nix::sys::stat::{major, minor};

use crate::case::Case;
use crate::guest::devices::NullBlk;
use crate::guest::disk::SECTOR;
use crate::guest::dm::{self, Device};
use crate::guest::kmsg::KernelLog;
use crate::guest::owner::Owner;
use crate::guest::served::{NAME, Served, policyd};
use crate::guest::stat::Stat;
use crate::guest::{Cmd, Ctx, Disk, modprobe, pattern, wait_until};

pub const CASES: &[Case] = &[
    Case::new("target.discards-leave-the-table-alone", 90, discards),
    Case::new("target.without-remapping-all-is-discarded", 30, linear_in_its_place)
        .must_fail("not version 1 but zeroes"),
    Case::new("target.what-may-not-wait-does-not", 120, at_once),
    Case::new("target.refuses-wrong-tables", 60, refusals),
    Case::new("target.keeps-its-length-and-its-block", 60, measures),
    Case::new("target.says-what-it-is", 60, says),
];

const PATIENCE: Duration = Duration::from_secs(30);
const SECTORS: u64 = 32 * 2048;

fn null_blk(name: &str) -> Result<NullBlk> {
    NullBlk::create(name, 32, &[("discard", "1")])
}

/// Mapped, and poisoned.
const MAPPED: (u64, usize) = (1000, 4);
const POISONED: u64 = 1500;
/// Becomes mapped while a discard waits.
const HELD: (u64, usize) = (1550, 4);
/// What is discarded and zeroed: all of these, and good sectors around them.
const RANGE: (u64, usize) = (900, 700);

/// `blkdiscard` of the range; with `-z` it is the ioctl BLKZEROOUT instead.
fn blkdiscard(device: &Path, options: &[&str]) -> Result<()> {
    let (start, count) = (RANGE.0 * SECTOR as u64, RANGE.1 * SECTOR);
    let range = ["--offset", &start.to_string(), "--length", &count.to_string()];
    let device = device.display().to_string();
    Cmd::new("blkdiscard").arg("--force").args(options).args(range).arg(device).run().map(drop)
}

fn expect_zeroes(disk: &Disk, start: u64, count: usize) -> Result<()> {
    let bytes = disk.read(start, count).with_context(|| format!("{count} sectors at {start}"))?;
    let found = bytes.iter().position(|&byte| byte != 0);
    ensure!(found.is_none(), "not zero at byte {found:?} of {count} sectors at {start}");
    Ok(())
}

/// A discard is a hint: what is mapped or poisoned it leaves as it is, and the rest of it goes to the disk. Zeroes are data.
fn discards(_: &mut Ctx) -> Result<()> {
    let (null, spare) = (null_blk("nullb0")?, null_blk("nullb1")?);
    null.add_bad(MAPPED.0, MAPPED.0 + MAPPED.1 as u64 - 1)?;
    null.add_bad(POISONED, POISONED)?;
    let served = Served::new(null.path(), spare.path(), "")?;
    let (device, disk) = (Device::shared(NAME), served.disk()?);
    let end = RANGE.0 + RANGE.1 as u64;
    disk.fill(RANGE.0, (POISONED - RANGE.0) as usize, 1)?;
    disk.fill(POISONED + 1, (end - POISONED - 1) as usize, 1)?;
    disk.read_fails(POISONED, 1, ENODATA)?;
    // A heal waits for the daemon, and a read of poison does not.
    disk.fail_at_once(POISONED, 1, [EAGAIN, ENODATA])?;

    let told =
        || Ok::<_, anyhow::Error>((policyd(&["list", NAME])?.run()?, device.remap_status()?));
    let before = (Stat::of(null.path())?, Stat::of(spare.path())?, told()?);
    blkdiscard(device.path(), &[])?;
    let (sent, to_spare) = (Stat::of(null.path())? - before.0, Stat::of(spare.path())? - before.1);
    ensure!(told()? == before.2, "a discard has changed {:?} to {:?}", before.2, told()?);
    ensure!(sent.discard_sectors == RANGE.1 as u64 - 5, "not the good sectors: {sent:?}");
    ensure!(to_spare.discards == 0, "the spare was discarded: {to_spare:?}");
    disk.verify(MAPPED.0, MAPPED.1, 1)?;
    disk.read_fails(POISONED, 1, ENODATA)?;
    expect_zeroes(&disk, RANGE.0, (MAPPED.0 - RANGE.0) as usize)?;
    expect_zeroes(&disk, POISONED + 1, (end - POISONED - 1) as usize)?;

    null.add_bad(HELD.0, HELD.0 + HELD.1 as u64 - 1)?;
    discard_behind_a_fence(&served, &device, &disk)?;

    blkdiscard(device.path(), &["--zeroout"])?;
    expect_zeroes(&disk, RANGE.0, RANGE.1)?;
    let mapped = served.sectors_of(0, "mapped")?;
    let all = |(start, count): (u64, usize)| start..start + count as u64;
    let wanted: Vec<u64> = all(MAPPED).chain([POISONED]).chain(all(HELD)).collect();
    ensure!(mapped == wanted, "after the zeroes are mapped: {mapped:?}");
    drop(disk);
    served.down()
}

/// It finds there what the write that it waited for has become.
fn discard_behind_a_fence(served: &Served, device: &Device, disk: &Disk) -> Result<()> {
    served.daemon.signal(Signal::SIGSTOP)?;
    thread::scope(|scope| {
        let held = |count| {
            let there = || Ok(device.remap_status()?.held == count);
            wait_until("what is held", PATIENCE, there)
        };
        let writer = scope.spawn(|| disk.fill(HELD.0, HELD.1, 2));
        held(1)?;
        let discarder = scope.spawn(|| blkdiscard(device.path(), &[]));
        held(2)?;
        served.daemon.signal(Signal::SIGCONT)?;
        [writer, discarder]
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })?;
    disk.verify(HELD.0, HELD.1, 2)
}

/// The control of the case above.
fn linear_in_its_place(_: &mut Ctx) -> Result<()> {
    let null = null_blk("nullb0")?;
    let linear = dm::disk_with_bad_sectors("d", null.path(), &[])?;
    let disk = Disk::open(linear.path())?;
    disk.fill(RANGE.0, RANGE.1, 1)?;
    blkdiscard(linear.path(), &[])?;
    disk.verify(MAPPED.0, MAPPED.1, 1)
}

fn expect_words(device: &Device, words: &str) -> Result<()> {
    let found = device.remap_status()?.words;
    ensure!(found == words, "its status is {found:?}, and should be {words:?}");
    Ok(())
}

/// Behind a fence it ends, and is not one of those that are held; elsewhere it is I/O like any other.
fn at_once(_: &mut Ctx) -> Result<()> {
    let (null, spare) = (null_blk("nullb0")?, null_blk("nullb1")?);
    null.add_bad(1000, 1000)?;
    null.add_bad(2000, 2007)?;
    // If it waited here, it would not be for long.
    let device = Device::remap("d", null.path(), spare.path(), "2 ready_deadline_ms 3000")?;
    let disk = Disk::open(device.path())?;
    disk.fail_at_once(64, 8, [EAGAIN; 2]).context("while it is not ready")?;
    expect_words(&device, "not-ready no-owner 0 0 0 0 0")?;

    let mut owner = Owner::new()?;
    owner.start(64, 32768)?;
    owner.serve_during(|| disk.fill(1000, 1, 1))??;
    // What is good, what is mapped, and both.
    for (start, count) in [(64, 8), (1000, 1), (996, 8)] {
        let what = || format!("{count} sectors at {start}");
        disk.write_at_once(start, &pattern::sectors(start, count, 2)).with_context(what)?;
        let read = disk.read_at_once(start, count).with_context(what)?;
        pattern::check(&read, start, 2)?;
    }
    expect_words(&device, "ready owned 1 0 0 0 1")?;

    thread::scope(|scope| {
        let writer = scope.spawn(|| disk.fill(2000, 8, 1));
        let fenced = || Ok(device.remap_status()?.held == 1);
        wait_until("the fence", PATIENCE, fenced)?;
        disk.fail_at_once(2000, 8, [EAGAIN; 2]).context("at a fence")?;
        disk.fail_at_once(1996, 8, [EAGAIN; 2]).context("half at a fence")?;
        expect_words(&device, "ready owned 1 1 1 8 1")?;
        owner.serve_during(|| writer.join().unwrap_or_else(|_| bail!("the writer panicked")))?
    })?;
    disk.verify(2000, 8, 1)?;
    expect_words(&device, "ready owned 9 0 0 0 2")
}

/// Each in the kernel's own words.
fn refusals(_: &mut Ctx) -> Result<()> {
    modprobe("dm_remap_shim", &[])?;
    let (null, spare) = (null_blk("nullb0")?, null_blk("nullb1")?);
    let zoned = NullBlk::create("nullb2", 32, &[("zoned", "1"), ("zone_size", "8")])?;
    let [d, s, z] = [&null, &spare, &zoned].map(|disk| disk.path().display().to_string());
    let (longer, half, rest) = (SECTORS + 1, SECTORS / 2, SECTORS / 2);
    let usage = "remap: Want <data_dev> <spare_dev> [<#opts> <opts>...] (";
    let length = "remap: Length is not of whole logical blocks inside the data device (";
    let alone = "target type remap must appear alone in table";
    let wrong = [
        (format!("0 {SECTORS} remap {d}"), usage),
        (format!("0 {SECTORS} remap /dev/none {s}"), "remap: Cannot open the data device ("),
        (format!("0 {SECTORS} remap {d} /dev/none"), "remap: Cannot open the spare ("),
        (format!("0 {SECTORS} remap {d} {d}"), "remap: Data and spare are the same device ("),
        (format!("0 {SECTORS} remap {z} {s}"), "remap: Zoned devices are not supported ("),
        (format!("0 {SECTORS} remap {d} {z}"), "remap: Zoned devices are not supported ("),
        (format!("0 {longer} remap {d} {s}"), length),
        (format!("0 {half} remap {d} {s}\n{half} {rest} linear {d} {half}"), alone),
        (
            format!("0 {half} linear {d} 0\n{half} {rest} remap {d} {s}"),
            "remap: singleton target type must appear alone in table (",
        ),
    ];
    let wrong = wrong.map(|(table, words)| (table, words.to_owned()));
    let options = OPTIONS.iter().flat_map(|(option, most)| {
        let words = format!("remap: Invalid {option} (1 to {most}) (");
        let table = |value| format!("0 {SECTORS} remap {d} {s} 2 {option} {value}");
        [0, most + 1].map(|value| (table(value), words.clone()))
    });
    let counts = [
        ("1 max_held_bio", "Unknown option"),
        ("1 max_held_bios", "Invalid max_held_bios (1 to 65536)"),
        ("2 max_held_bios", "Invalid number of options"),
        ("10 max_held_bios 1", "Invalid number of options"),
        ("2 max_held_kib many", "Invalid max_held_kib (1 to 4194304)"),
        ("many", "Invalid number of options"),
        ("0 queue_if_no_daemon", "Number of options does not match"),
        ("2 max_held_bios 1 queue_if_no_daemon", "Number of options does not match"),
    ];
    let counts = counts.map(|(options, words)| {
        (format!("0 {SECTORS} remap {d} {s} {options}"), format!("remap: {words} ("))
    });
    let (device, mut log) = (Device::create("d", "0 1 error\n")?, KernelLog::from_now_on()?);
    for (table, words) in wrong.into_iter().chain(options).chain(counts) {
        ensure!(device.load(&table).is_err(), "accepted: {table}");
        let said = log.said()?;
        ensure!(said.contains(&words), "{table}: no {words:?} in {said}");
    }
    // The most of each, and the same disks, are not refused.
    let most: String = OPTIONS.iter().map(|(name, most)| format!(" {name} {most}")).collect();
    device.load(&format!("0 {SECTORS} remap {d} {s} 8{most}"))
}

/// A table for a device that there is may not change its measures, nor what is under it.
fn measures(_: &mut Ctx) -> Result<()> {
    modprobe("dm_remap_shim", &[])?;
    let (null, spare) = (null_blk("nullb0")?, null_blk("nullb1")?);
    let coarse = NullBlk::create("nullb2", 32, &[("blocksize", "4096")])?;
    let over = |disk: &NullBlk| format!("0 {SECTORS} linear {} 0", disk.path().display());
    let under = Device::create("under", &over(&null))?;
    let table = |sectors: u64| {
        let (data, spare) = (under.path().display(), spare.path().display());
        format!("0 {sectors} remap {data} {spare}")
    };
    let device = Device::create("d", &table(SECTORS))?;
    let mut log = KernelLog::from_now_on()?;
    let mut refused = |sectors: u64| -> Result<()> {
        ensure!(device.load(&table(sectors)).is_err(), "accepted: {}", table(sectors));
        let (said, words) =
            (log.said()?, "remap: Length or block differs from the one this device has (");
        ensure!(said.contains(words), "no {words:?} in {said}");
        Ok(())
    };
    refused(SECTORS - 8)?;
    let swap = |disk: &NullBlk| {
        under.load(&over(disk))?;
        under.suspend()?;
        under.resume()
    };
    swap(&coarse)?;
    refused(SECTORS)?;
    swap(&null)?;
    device.load(&table(SECTORS))
}

/// What can be set, and the most that it can be set to.
const OPTIONS: [(&str, u64); 4] = [
    ("hold_deadline_ms", 119_000),
    ("ready_deadline_ms", 119_000),
    ("max_held_bios", 65_536),
    ("max_held_kib", 4_194_304),
];

/// The options of a table that names none, as the manual has them: in its order, with its defaults.
fn documented() -> Result<String> {
    let rows = include_str!("../../../../README.md").lines().filter_map(|line| {
        let (option, rest) = line.strip_prefix("| `")?.split_once(" N` | ")?;
        Some(format!(" {option} {}", rest.split_once(' ')?.0))
    });
    let options: Vec<String> = rows.collect();
    ensure!(options.len() == OPTIONS.len(), "the manual's options: {options:?}");
    Ok(options.concat())
}

fn says(_: &mut Ctx) -> Result<()> {
    let (null, spare) = (null_blk("nullb0")?, null_blk("nullb1")?);
    let device = Device::remap("d", null.path(), spare.path(), "")?;
    let (data, spare) = (number(null.path())?, number(spare.path())?);
    let expect = |options: &str| -> Result<String> {
        let (table, wanted) =
            (device.table()?, format!("0 {SECTORS} remap {data} {spare} {options}\n"));
        ensure!(table == wanted, "its table is {table:?}, and should be {wanted:?}");
        Ok(table)
    };
    let reload = |table: &str| {
        device.load(table)?;
        device.suspend()?;
        device.resume()
    };
    let defaults = format!("8{}", documented()?);
    reload(&expect(&defaults)?)?;
    expect(&defaults)?;
    reload(&format!("0 {SECTORS} remap {data} {spare} 3 queue_if_no_daemon max_held_bios 7"))?;
    let changed = defaults.replacen('8', "9", 1).replace("bios 1024", "bios 7");
    expect(&format!("{changed} queue_if_no_daemon"))?;

    let measured = device.measurement()?;
    let wanted = format!(
        "0 {SECTORS} remap target_name=remap,target_version=1.0.0,data_device_name={data},\
         spare_device_name={spare};\n"
    );
    ensure!(measured == wanted, "measured is {measured:?}, and should be {wanted:?}");
    Ok(())
}

/// Major and minor number of a device.
fn number(device: &Path) -> Result<String> {
    let number = fs::metadata(device)?.rdev();
    Ok(format!("{}:{}", major(number), minor(number)))
}
