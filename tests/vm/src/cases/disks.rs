//! The disks that cases are built on fail exactly where they should.

use anyhow::{Result, ensure};
use nix::libc::EIO;

use crate::case::{Case, End, Phase};
use crate::guest::devices::{Brd, Loop, NullBlk};
use crate::guest::fs::{Mount, fio, fsck};
use crate::guest::scsi::ScsiDebug;
use crate::guest::stat::Stat;
use crate::guest::{Ctx, Disk, dm};
use crate::{case, guest};

const PERSISTS: &[Phase] = &[
    Phase { body: write_acknowledge_and_cut, end: End::CutOnRequest },
    Phase { body: write_until_cut, end: End::CutAfterAcks { least: 5, most: 20 } },
    Phase { body: read_what_was_acknowledged, end: End::Off },
];

const LOSES: &[Phase] = &[
    Phase { body: write_flush_write_and_cut, end: End::CutOnRequest },
    Phase { body: flushed_is_there_and_unflushed_is_not, end: End::Off },
];

pub const CASES: &[Case] = &[
    Case::new("disks.brd-roundtrip", 30, brd_roundtrip),
    Case::new("disks.loop-roundtrip", 30, loop_roundtrip),
    Case::new("disks.dm-bad-sectors", 60, dm_bad_sectors),
    Case::new("disks.dm-suspend-reload", 30, dm_suspend_reload),
    Case::new("disks.null-blk-badblocks", 30, null_blk_badblocks),
    Case::new("disks.scsi-medium-error", 30, scsi_medium_error),
    Case::new("disks.ext4-and-fio", 120, ext4_and_fio),
    Case::phased("disks.survive-a-cut", 60, PERSISTS).disks(&[case::Disk::Raw { mib: 16 }]),
    Case::phased("disks.volatile-loses-unflushed", 60, LOSES)
        .disks(&[case::Disk::Raw { mib: 1 }, case::Disk::Volatile { mib: 16 }]),
];

fn brd_roundtrip(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 16)?;
    let disk = Disk::open(brd.path(0))?;
    ensure!(disk.sectors()? == 16 * 2048, "not 16 MiB");
    disk.fill(100, 64, 1)?;
    disk.fill(110, 1, 2)?;
    disk.verify(100, 10, 1)?;
    disk.verify(110, 1, 2)?;
    disk.verify(111, 53, 1)?;
    ensure!(disk.verify(100, 64, 1).is_err(), "a stale sector went unnoticed");
    Ok(())
}

fn loop_roundtrip(_: &mut Ctx) -> Result<()> {
    let device = Loop::create("loop-roundtrip", 8)?;
    let disk = Disk::open(device.path())?;
    disk.fill(0, 256, 1)?;
    disk.flush()?;
    disk.verify(0, 256, 1)
}

fn dm_bad_sectors(_: &mut Ctx) -> Result<()> {
    let bad = [100, 101, 200, 300, 400];
    let brd = Brd::load(1, 16)?;
    let device = dm::disk_with_bad_sectors("bad", &brd.path(0), &bad)?;
    let disk = Disk::open(device.path())?;
    ensure!(disk.sectors()? == 16 * 2048, "not 16 MiB");
    let before = Stat::of(device.path())?;
    for sector in 90..410 {
        if bad.contains(&sector) {
            disk.write_fails(sector, 1, EIO)?;
            disk.read_fails(sector, 1, EIO)?;
        } else {
            disk.fill(sector, 1, 1)?;
            disk.verify(sector, 1, 1)?;
        }
    }
    let seen = Stat::of(device.path())? - before;
    // What device-mapper's error target ends is not counted.
    ensure!((seen.reads, seen.writes) == (315, 315), "counted {seen:?}");
    disk.write_fails(96, 8, EIO)
}

fn dm_suspend_reload(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 4)?;
    let device = dm::disk_with_bad_sectors("reload", &brd.path(0), &[7])?;
    Disk::open(device.path())?.write_fails(7, 1, EIO)?;
    device.load(&dm::table_with_bad_sectors("/dev/ram0", 4 * 2048, &[])?)?;
    device.suspend()?;
    device.resume()?;
    Disk::open(device.path())?.fill(7, 1, 1)?;
    device.suspend_noflush()?;
    device.resume()?;
    ensure!(device.status()?.contains("linear"), "{}", device.status()?);
    device.remove()
}

fn null_blk_badblocks(_: &mut Ctx) -> Result<()> {
    let null = NullBlk::create("nullb0", 16, &[])?;
    let disk = Disk::open(null.path())?;
    disk.fill(0, 128, 1)?;
    null.add_bad(50, 51)?;
    for sector in [50, 51] {
        disk.read_fails(sector, 1, EIO)?;
        disk.write_fails(sector, 1, EIO)?;
    }
    disk.verify(0, 50, 1)?;
    disk.verify(52, 76, 1)?;
    null.clear_bad(50, 51)?;
    disk.verify(50, 2, 1)
}

fn scsi_medium_error(_: &mut Ctx) -> Result<()> {
    let scsi = ScsiDebug::with_medium_errors(16, 1000, 8)?;
    let disk = Disk::open(scsi.disk(0)?)?;
    disk.fill(992, 24, 1)?;
    for sector in 1000..1008 {
        // The block layer gives a medium error as ENODATA; a plain one is EIO.
        disk.read_fails(sector, 1, nix::libc::ENODATA)?;
    }
    disk.verify(992, 8, 1)?;
    disk.verify(1008, 8, 1)?;
    scsi.set("opts", "0")?;
    disk.verify(992, 24, 1)
}

fn ext4_and_fio(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 64)?;
    let args = ["--rw=randwrite", "--bs=4k", "--size=4M", "--iodepth=16", "--verify=crc32c"];
    fio(&brd.path(0), &args, 60)?;
    Mount::mkfs(&brd.path(0))?;
    let mount = Mount::new(&brd.path(0), "ext4")?;
    std::fs::write(mount.path().join("file"), "text")?;
    drop(mount);
    fsck(&brd.path(0)).map(drop)
}

fn write_acknowledge_and_cut(ctx: &mut Ctx) -> Result<()> {
    let disk = Disk::open_durable(ctx.disk(0)?)?;
    disk.fill(8, 8, 1)?;
    ctx.ack("8 1")?;
    ctx.cut()
}

fn write_until_cut(ctx: &mut Ctx) -> Result<()> {
    let disk = Disk::open_durable(ctx.disk(0)?)?;
    for sector in 100..1000 {
        disk.fill(sector, 1, 2)?;
        ctx.ack(format!("{sector} 2"))?;
    }
    Ok(())
}

fn read_what_was_acknowledged(ctx: &mut Ctx) -> Result<()> {
    let disk = Disk::open(ctx.disk(0)?)?;
    ensure!((6..100).contains(&ctx.acks.len()), "{} acknowledgements", ctx.acks.len());
    for ack in &ctx.acks {
        let numbers: Vec<u64> = ack.split(' ').flat_map(str::parse).collect();
        let [sector, version] = numbers[..] else { anyhow::bail!("an odd line: {ack}") };
        disk.verify(sector, 1, version)?;
    }
    guest::run(&["sync"]).map(drop)
}

fn write_flush_write_and_cut(ctx: &mut Ctx) -> Result<()> {
    let disk = Disk::open(ctx.disk(1)?)?;
    disk.fill(0, 64, 1)?;
    disk.flush()?;
    disk.fill(100, 64, 2)?;
    ctx.cut()
}

fn flushed_is_there_and_unflushed_is_not(ctx: &mut Ctx) -> Result<()> {
    let disk = Disk::open(ctx.disk(1)?)?;
    disk.verify(0, 64, 1)?;
    ensure!(disk.verify(100, 64, 2).is_err(), "everything survived: the cut lost nothing");
    Ok(())
}
