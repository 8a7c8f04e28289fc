//! A sector that is unreadable before anything was written to it: an error every time, never bytes that nobody wrote, and
//! no further I/O; an overwrite heals what it covers. The error is that of a bad medium, whatever the disk said.

use std::path::Path;

use anyhow::{Result, ensure};
use nix::libc::ENODATA;

use crate::case::{Case, Disk as Virtio, End, Phase};
use crate::guest::devices::{Brd, NullBlk};
use crate::guest::dm::{self, Device};
use crate::guest::scsi::ScsiDebug;
use crate::guest::served::{self, Served};
use crate::guest::stat::Stat;
use crate::guest::{Ctx, Disk};

pub const CASES: &[Case] = &[
    Case::new("poison.null-blk-reads-reach-it-once", 90, null_blk_poison),
    Case::new("poison.null-blk-writes-are-mapped", 90, null_blk_writes),
    Case::new("poison.medium-errors-poison-and-heal", 90, medium_errors),
    Case::new("poison.without-remapping-the-disk-is-asked", 60, without_remapping)
        .must_fail("a poisoned sector was looked for"),
    Case::new("poison.heals-by-logical-block", 90, logical_blocks),
    Case::phased("poison.survives-a-reboot", 120, PHASES)
        .disks(&[Virtio::Raw { mib: 64 }, Virtio::Raw { mib: 32 }]),
];

const PHASES: &[Phase] = &[
    Phase { body: poison_and_cut, end: End::CutOnRequest },
    Phase { body: heal_after_the_cut, end: End::CutOnRequest },
    Phase { body: look_after_the_second_cut, end: End::Off },
];

/// Exactly these sectors are poisoned, and these mapped.
fn expect(served: &Served, poisoned: &[u64], mapped: &[u64]) -> Result<()> {
    let found = served.sectors_of(0, "poison-data")?;
    ensure!(found == poisoned, "poisoned: {found:?}, and should be {poisoned:?}");
    let found = served.sectors_of(0, "mapped")?;
    ensure!(found == mapped, "mapped: {found:?}, and should be {mapped:?}");
    let found = served.sectors_of(0, "poison-slot")?;
    ensure!(found.is_empty(), "slots are poisoned: {found:?}");
    Ok(())
}

/// The sectors cannot be read, alone or among others, and nothing is sent to the disk to find that out.
fn unreadable_without_asking(disk: &Disk, below: &Path, sectors: &[u64]) -> Result<()> {
    let before = Stat::of(below)?;
    for _ in 0..3 {
        for &sector in sectors {
            disk.read_fails(sector, 1, ENODATA)?;
        }
    }
    let sent = Stat::of(below)? - before;
    ensure!((sent.reads, sent.writes) == (0, 0), "a poisoned sector was looked for: {sent:?}");
    Ok(())
}

fn null_blk_poison(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 32)?;
    let null = NullBlk::create("nullb0", 32, &[])?;
    // What a read that goes through would show: bytes of before the spare was there.
    Disk::open(null.path())?.fill(96, 32, 9)?;
    null.add_bad(100, 103)?;
    let served = Served::new(null.path(), &brd.path(0), "")?;
    let disk = served.disk()?;

    let before = Stat::of(null.path())?;
    disk.read_fails(101, 1, ENODATA)?;
    let sent = Stat::of(null.path())? - before;
    // null_blk counts a request that fails like any other, so the check below can fail.
    ensure!(sent.reads > 0, "the first read was not counted");
    expect(&served, &[101], &[])?;
    unreadable_without_asking(&disk, null.path(), &[101])?;
    // The rest of the run, as a part of a longer read; what is good around it stays readable.
    ensure!(disk.read(96, 16).is_err(), "bytes that nobody can have read");
    expect(&served, &[100, 101, 102, 103], &[])?;
    unreadable_without_asking(&disk, null.path(), &[100, 101, 102, 103])?;
    disk.verify(96, 4, 9)?;
    disk.verify(104, 8, 9)?;

    // The disk answers again, with what it had: poison is not lifted by that.
    null.clear_bad(100, 103)?;
    unreadable_without_asking(&disk, null.path(), &[100, 101, 102, 103])?;
    // An overwrite heals what it covers; it goes to a slot and leaves the disk alone.
    let before = Stat::of(null.path())?;
    disk.fill(102, 1, 2)?;
    disk.verify(102, 1, 2)?;
    let sent = Stat::of(null.path())? - before;
    ensure!((sent.reads, sent.writes) == (0, 0), "healed on the disk that was bad: {sent:?}");
    expect(&served, &[100, 101, 103], &[102])?;
    unreadable_without_asking(&disk, null.path(), &[100, 101, 103])?;
    // One that is longer than the run: the rest of it, and its neighbours where they are.
    disk.fill(96, 16, 3)?;
    disk.verify(96, 16, 3)?;
    expect(&served, &[], &[100, 101, 102, 103])?;
    drop(disk);
    served.down()
}

fn null_blk_writes(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 32)?;
    let null = NullBlk::create("nullb0", 32, &[])?;
    null.add_bad(50, 51)?;
    null.add_bad(1000, 1007)?;
    let served = Served::new(null.path(), &brd.path(0), "")?;
    let disk = served.disk()?;
    disk.fill(50, 1, 1)?;
    disk.fill(990, 100, 1)?;
    disk.verify(50, 1, 1)?;
    disk.verify(990, 100, 1)?;
    let mapped: Vec<u64> = std::iter::once(50).chain(1000..1008).collect();
    expect(&served, &[], &mapped)?;
    disk.read_fails(51, 1, ENODATA)?;
    expect(&served, &[51], &mapped)?;
    drop(disk);
    served.down()
}

/// scsi_debug answers with the sense data of a real disk, and fails reads only.
fn medium_errors(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 32)?;
    let scsi = ScsiDebug::with_medium_errors(16, 1000, 8)?;
    let below = scsi.disk(0)?;
    Disk::open(&below)?.fill(992, 24, 9)?;
    let served = Served::new(&below, &brd.path(0), "")?;
    let disk = served.disk()?;
    for sector in [1000, 1007] {
        disk.read_fails(sector, 1, ENODATA)?;
    }
    expect(&served, &[1000, 1007], &[])?;
    disk.read_fails(992, 24, ENODATA)?;
    let all: Vec<u64> = (1000..1008).collect();
    expect(&served, &all, &[])?;
    unreadable_without_asking(&disk, &below, &all)?;
    disk.verify(992, 8, 9)?;
    disk.verify(1008, 8, 9)?;

    disk.fill(1002, 2, 2)?;
    disk.verify(1002, 2, 2)?;
    expect(&served, &[1000, 1001, 1004, 1005, 1006, 1007], &[1002, 1003])?;
    disk.fill(992, 24, 3)?;
    disk.verify(992, 24, 3)?;
    expect(&served, &[], &all)?;
    drop(disk);
    served.down()
}

/// The control of the cases above.
fn without_remapping(_: &mut Ctx) -> Result<()> {
    let scsi = ScsiDebug::with_medium_errors(16, 1000, 8)?;
    let sectors = 16 * 2048;
    let table = format!("0 {sectors} linear {} 0\n", scsi.disk(0)?.display());
    let linear = Device::create("linear", &table)?;
    unreadable_without_asking(&Disk::open(linear.path())?, &scsi.disk(0)?, &[1000, 1007])
}

/// The unit of poison is the logical block of the mapped device, here the spare's.
fn logical_blocks(_: &mut Ctx) -> Result<()> {
    let spare = NullBlk::create("nullb1", 32, &[("blocksize", "4096")])?;
    let null = NullBlk::create("nullb0", 32, &[])?;
    null.add_bad(803, 803)?;
    null.add_bad(812, 820)?;
    let served = Served::new(null.path(), spare.path(), "")?;
    let disk = served.disk()?;
    disk.read_fails(792, 40, ENODATA)?;
    let all: Vec<u64> = (800..824).collect();
    expect(&served, &all, &[])?;
    disk.fill(808, 8, 1)?;
    disk.verify(808, 8, 1)?;
    let healed: Vec<u64> = (808..816).collect();
    let rest: Vec<u64> = all.iter().copied().filter(|sector| !healed.contains(sector)).collect();
    expect(&served, &rest, &healed)?;
    for sector in [800, 816] {
        disk.read_fails(sector, 8, ENODATA)?;
    }
    drop(disk);
    served.down()
}

const BAD: [u64; 4] = [5000, 5001, 5002, 70000];

fn bad_disk(ctx: &Ctx) -> Result<Device> {
    dm::disk_with_bad_sectors("bad", &ctx.disk(0)?, &BAD)
}

/// The device of an earlier boot, on a disk that meanwhile reads everywhere.
fn healthy_again(ctx: &Ctx) -> Result<(Device, Served)> {
    let device = dm::disk_with_bad_sectors("bad", &ctx.disk(0)?, &[])?;
    served::configure(device.path(), &ctx.disk(1)?, "")?;
    Ok((device, Served::start()?))
}

fn poison_and_cut(ctx: &mut Ctx) -> Result<()> {
    Disk::open(ctx.disk(0)?)?.fill(4992, 32, 9)?;
    let bad = bad_disk(ctx)?;
    let served = Served::new(bad.path(), &ctx.disk(1)?, "")?;
    let disk = served.disk()?;
    for sector in [5000, 5001, 5002] {
        disk.read_fails(sector, 1, ENODATA)?;
    }
    disk.fill(5001, 1, 2)?;
    disk.fill(70000, 1, 2)?;
    disk.flush()?;
    expect(&served, &[5000, 5002], &[5001, 70000])?;
    ctx.cut()
}

fn heal_after_the_cut(ctx: &mut Ctx) -> Result<()> {
    let (_device, served) = healthy_again(ctx)?;
    let disk = served.disk()?;
    expect(&served, &[5000, 5002], &[5001, 70000])?;
    unreadable_without_asking(&disk, &ctx.disk(0)?, &[5000, 5002])?;
    disk.verify(5001, 1, 2)?;
    disk.verify(70000, 1, 2)?;
    disk.fill(5002, 1, 3)?;
    disk.flush()?;
    expect(&served, &[5000], &[5001, 5002, 70000])?;
    ctx.cut()
}

fn look_after_the_second_cut(ctx: &mut Ctx) -> Result<()> {
    let (device, served) = healthy_again(ctx)?;
    let disk = served.disk()?;
    expect(&served, &[5000], &[5001, 5002, 70000])?;
    unreadable_without_asking(&disk, &ctx.disk(0)?, &[5000])?;
    for (sector, version) in [(5001, 2), (5002, 3), (70000, 2)] {
        disk.verify(sector, 1, version)?;
    }
    disk.verify(4992, 8, 9)?;
    disk.verify(5003, 8, 9)?;
    drop(disk);
    served.down()?;
    device.remove()
}
