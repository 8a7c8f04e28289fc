//! LVM on both sides: the data disk and the spare are logical volumes, and the device is a physical one of another group.

use anyhow::Result;

use super::decay::Decay;
use super::work::{Amount, Work, no_errors_on};
use crate::case::{Case, Disk};
use crate::guest::fs::Kind;
use crate::guest::lvm::Group;
use crate::guest::served::{self, Served, policyd};
use crate::guest::{Ctx, spare};

/// Data, spare, control.
const DISKS: &[Disk] = &[Disk::Volatile { mib: 64 }, Disk::Volatile { mib: 32 }, Disk::Control];
const CONTROL: u8 = 2;

pub const BELOW_AND_ABOVE: Case =
    Case::new("workloads.lvm-below-and-above", 300, below_and_above).disks(DISKS);

const AMOUNT: Amount = Amount { fio_mib: 4, fsx: 200, churn: 100 };
const DATA_MIB: u64 = 56;
/// Where the first volume of a physical one begins, in sectors.
const BEGIN: u64 = 2048;

fn below_and_above(ctx: &mut Ctx) -> Result<()> {
    let disks = [ctx.disk(0)?, ctx.disk(1)?];
    let mut decay = Decay::new(ctx, CONTROL, 0, BEGIN..BEGIN + DATA_MIB * 2048, ctx.seed)?;
    let mut below = Group::create("below", &[&disks[0], &disks[1]])?;
    let data = below.volume("data", DATA_MIB, &disks[0])?;
    let its_spare = below.volume("spare", 24, &disks[1])?;
    // Volumes have names of their own that last, and are known by them.
    let (data_name, spare_name) = (data.display().to_string(), its_spare.display().to_string());
    policyd(&["format", "--data", &data_name, "--spare", &spare_name])?.run()?;
    served::configure(&data, &its_spare, "")?;
    let served = Served::start()?;
    let path = served.path();
    let mut above = Group::create("above", &[&path])?;
    let volume = above.volume("files", 48, &path)?;
    Kind::Ext4.mkfs(&volume)?;
    let mount = Kind::Ext4.mount(&volume, "workloads")?;
    let work = Work::on(ctx, &mount, "work", AMOUNT, || decay.worsen())?;
    drop(mount);
    Kind::Ext4.check(&volume)?;
    let mapped = decay.expect_mapped(&served, 0, BEGIN, 5)?;
    no_errors_on(&path)?;
    no_errors_on(&volume)?;

    // All of it down and up again: the spare is known for what it is.
    above.down()?;
    served.down()?;
    spare::is_clean(&its_spare)?;
    below.down()?;
    below.up()?;
    let served = Served::start()?;
    above.up()?;
    let mount = Kind::Ext4.mount(&volume, "workloads")?;
    let bytes = work.verify()?;
    drop(mount);
    ctx.note(format!("LVM: {bytes} bytes in files, {mapped} sectors mapped"))?;
    above.down()?;
    served.down()?;
    below.down()
}
