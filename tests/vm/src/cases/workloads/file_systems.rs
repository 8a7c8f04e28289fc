//! ext4, xfs and btrfs.

use std::path::Path;

use anyhow::{Result, ensure};

use super::decay::Decay;
use super::work::{Amount, Work, no_errors_on};
use crate::case::{Case, Disk};
use crate::guest::dm::Device;
use crate::guest::fs::Kind;
use crate::guest::served::Served;
use crate::guest::{Ctx, Disk as Open, spare};

/// Data, spare, control.
const SMALL: &[Disk] = &[Disk::Volatile { mib: 96 }, Disk::Volatile { mib: 32 }, Disk::Control];
/// The least that mkfs.xfs takes is 300 MiB; btrfs keeps two of each of its own blocks.
const LARGE: &[Disk] = &[Disk::Volatile { mib: 320 }, Disk::Volatile { mib: 32 }, Disk::Control];
const CONTROL: u8 = 2;

pub const EXT4: Case =
    Case::new("workloads.ext4", 300, |ctx| on_remap(ctx, Kind::Ext4)).disks(SMALL);
pub const XFS: Case = Case::new("workloads.xfs", 300, |ctx| on_remap(ctx, Kind::Xfs)).disks(LARGE);
pub const BTRFS: Case =
    Case::new("workloads.btrfs", 300, |ctx| on_remap(ctx, Kind::Btrfs)).disks(LARGE);
pub const LINEAR: Case = Case::new("workloads.ext4-without-remap", 300, on_linear)
    .disks(SMALL)
    .must_fail("the work while the disk went bad");

const AMOUNT: Amount = Amount { fio_mib: 8, fsx: 600, churn: 250 };
/// What tools look at before anything is written: beginning and end of a disk.
const EDGE: u64 = 4096;

fn decay(ctx: &Ctx, data: &Path) -> Result<Decay> {
    let sectors = Open::open(data)?.sectors()?;
    Decay::new(ctx, CONTROL, 0, EDGE..sectors - EDGE, ctx.seed)
}

fn on_remap(ctx: &mut Ctx, kind: Kind) -> Result<()> {
    let (data, its_spare) = (ctx.disk(0)?, ctx.disk(1)?);
    let mut decay = decay(ctx, &data)?;
    decay.spoil(64)?;
    let served = Served::new(&data, &its_spare, "")?;
    let path = served.path();
    kind.mkfs(&path)?;
    let mount = kind.mount(&path, "workloads")?;
    let work = Work::on(ctx, &mount, "work", AMOUNT, || decay.worsen())?;
    drop(mount);
    kind.check(&path)?;

    let mount = kind.mount(&path, "workloads")?;
    let bytes = work.verify()?;
    drop(mount);
    no_errors_on(&path)?;
    let mapped = decay.expect_mapped(&served, 0, 0, 20)?;
    ctx.note(format!("{kind:?}: {bytes} bytes in files, {mapped} sectors mapped"))?;
    served.down()?;
    spare::is_clean(&its_spare)
}

fn on_linear(ctx: &mut Ctx) -> Result<()> {
    let data = ctx.disk(0)?;
    let mut decay = decay(ctx, &data)?;
    let table = format!("0 {} linear {} 0\n", Open::open(&data)?.sectors()?, data.display());
    let linear = Device::create("plain", &table)?;
    Kind::Ext4.mkfs(linear.path())?;
    let mount = Kind::Ext4.mount(linear.path(), "workloads")?;
    let work = Work::on(ctx, &mount, "work", AMOUNT, || decay.worsen())?;
    ensure!(work.verify()? > 0, "nothing was written");
    Ok(())
}
