//! RAID 1 of md, with legs of remap, and below it.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use dmremap_disks::server::Side;

use super::decay::Decay;
use super::work::{Amount, Work, no_errors_on};
use crate::case::{Case, Disk};
use crate::guest::dm::Device;
use crate::guest::fs::{Kind, Mount};
use crate::guest::md::Raid1;
use crate::guest::served::{Served, name};
use crate::guest::{Ctx, Disk as Open, spare};

/// Both legs, both spares, control.
const LEGS: &[Disk] = &[
    Disk::Volatile { mib: 64 },
    Disk::Volatile { mib: 64 },
    Disk::Volatile { mib: 24 },
    Disk::Volatile { mib: 24 },
    Disk::Control,
];
/// Both legs, the spare, control.
const BELOW: &[Disk] = &[
    Disk::Volatile { mib: 64 },
    Disk::Volatile { mib: 64 },
    Disk::Volatile { mib: 24 },
    Disk::Control,
];

pub const OF_REMAP: Case = Case::new("workloads.md-of-remap", 300, of_remap).disks(LEGS);
pub const OF_LINEAR: Case =
    Case::new("workloads.md-without-remap", 300, of_linear).disks(LEGS).must_fail("md has ");
pub const BELOW_REMAP: Case = Case::new("workloads.remap-of-md", 300, below_remap).disks(BELOW);

const AMOUNT: Amount = Amount { fio_mib: 4, fsx: 200, churn: 100 };
/// Sectors of md's superblock.
const SUPERBLOCK: std::ops::Range<u64> = 8..10;

/// Both legs go bad, each elsewhere.
fn legs_going_bad(ctx: &Ctx, control: u8) -> Result<[Decay; 2]> {
    let sectors = Open::open(ctx.disk(0)?)?.sectors()?;
    let leg = |disk: u8| Decay::new(ctx, control, disk, 0..sectors, ctx.seed + u64::from(disk));
    Ok([leg(0)?, leg(1)?])
}

fn work_on(ctx: &Ctx, mount: &Mount, legs: &mut [Decay; 2]) -> Result<Work> {
    Work::on(ctx, mount, "work", AMOUNT, || legs.iter_mut().try_for_each(Decay::worsen))
}

/// What one leg cannot write it maps; what it cannot read md writes again from the other.
fn of_remap(ctx: &mut Ctx) -> Result<()> {
    let disks: Vec<PathBuf> = (0..4).map(|disk| ctx.disk(disk)).collect::<Result<_>>()?;
    let mut legs = legs_going_bad(ctx, 4)?;
    let served = Served::several(&[(&disks[0], &disks[2]), (&disks[1], &disks[3])])?;
    let devices = [0, 1].map(|index| Device::shared(&name(index)));
    let md = Raid1::create([devices[0].path(), devices[1].path()])?;
    legs[0].place(SUPERBLOCK, Side::Write)?;
    Kind::Ext4.mkfs(md.path())?;
    let mount = Kind::Ext4.mount(md.path(), "workloads")?;
    let work = work_on(ctx, &mount, &mut legs)?;
    drop(mount);
    md.expect_whole()?;

    // Few, or md has enough of the leg.
    let lost: Vec<u64> =
        (0..).map(|n| 40_000 + n * 501).filter(|&s| !legs[0].is_bad(s)).take(5).collect();
    for &sector in &lost {
        legs[0].place(sector..sector + 1, Side::Both)?;
    }
    // What it mends it counts as different.
    md.check()?;
    let differ = md.check()?;
    ensure!(differ == 0, "{differ} sectors differ between the legs");
    md.expect_whole()?;
    let mapped = served.sectors_of(0, "mapped")?;
    ensure!(lost.iter().all(|sector| mapped.contains(sector)), "{lost:?} are not all mapped");

    Kind::Ext4.check(md.path())?;
    let mount = Kind::Ext4.mount(md.path(), "workloads")?;
    let bytes = work.verify()?;
    drop(mount);
    no_errors_on(md.path())?;
    md.expect_whole()?;
    md.stop()?;
    let mapped =
        [legs[0].expect_mapped(&served, 0, 0, 5)?, legs[1].expect_mapped(&served, 1, 0, 5)?];
    ctx.note(format!("md: {bytes} bytes in files, {mapped:?} sectors mapped"))?;
    served.down()?;
    spare::is_clean(&disks[2])?;
    spare::is_clean(&disks[3])
}

fn of_linear(ctx: &mut Ctx) -> Result<()> {
    let disks = [ctx.disk(0)?, ctx.disk(1)?];
    let mut legs = legs_going_bad(ctx, 4)?;
    let sectors = Open::open(&disks[0])?.sectors()?;
    let linear = |index: usize| {
        Device::create(&name(index), &format!("0 {sectors} linear {} 0\n", disks[index].display()))
    };
    let devices = [linear(0)?, linear(1)?];
    let md = Raid1::create([devices[0].path(), devices[1].path()])?;
    Kind::Ext4.mkfs(md.path())?;
    let mount = Kind::Ext4.mount(md.path(), "workloads")?;
    // Only one leg: md copes, and does not forget.
    Work::on(ctx, &mount, "work", AMOUNT, || legs[0].worsen())?;
    drop(mount);
    let whole = md.expect_whole();
    md.stop()?;
    whole
}

/// What both legs cannot write, md passes up; what one cannot, and that one goes, nobody above notices.
fn below_remap(ctx: &mut Ctx) -> Result<()> {
    let disks: Vec<PathBuf> = (0..3).map(|disk| ctx.disk(disk)).collect::<Result<_>>()?;
    let md = Raid1::create([&disks[0], &disks[1]])?;
    let offset = md.offset(&disks[0])?;
    let sectors = Open::open(&disks[0])?.sectors()?;
    // The same places on both, and more on one.
    let decay = |disk, seed| Decay::new(ctx, 3, disk, offset..sectors, seed);
    let (mut first, mut second) = (decay(0, ctx.seed)?, decay(1, ctx.seed)?);
    let mut alone = decay(0, ctx.seed + 1)?;

    let served = Served::new(md.path(), &disks[2], "")?;
    let path = served.path();
    Kind::Ext4.mkfs(&path)?;
    let mount = Kind::Ext4.mount(&path, "workloads")?;
    let work = Work::on(ctx, &mount, "both", AMOUNT, || {
        first.worsen()?;
        second.worsen()?;
        alone.worsen()
    })?;
    let on_both = second.expect_mapped(&served, 0, offset, 5)?;
    md.fail(&disks[0])?;
    let on_one = Work::on(ctx, &mount, "one", AMOUNT, || second.worsen())?;
    drop(mount);
    Kind::Ext4.check(&path)?;
    let mount = Kind::Ext4.mount(&path, "workloads")?;
    let bytes = work.verify()? + on_one.verify()?;
    drop(mount);
    no_errors_on(&path)?;
    let mapped = second.expect_mapped(&served, 0, offset, on_both + 1)?;
    ctx.note(format!(
        "over md: {bytes} bytes in files, {on_both} and then {mapped} sectors mapped"
    ))?;
    served.down()?;
    spare::is_clean(&disks[2])?;
    md.stop()
}
