//! The module under an owner that is not the daemon: it loads, maps what fails, and leaves nothing behind.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::libc::EIO;

use crate::case::Case;
use crate::guest::deadline::ended_at;
use crate::guest::dm::{self, Device};
use crate::guest::owner::{INSTANCE_GET, Owner};
use crate::guest::setup::Disks;
use crate::guest::{Ctx, Disk, modprobe, rmmod, run};

pub const CASES: &[Case] = &[
    Case::new("module.loads-and-leaves", 20, loads_and_leaves),
    Case::new("module.unready-errors-after-its-deadline", 30, unready),
    Case::new("module.maps-bad-sectors", 60, maps_bad_sectors),
    Case::new("module.unmapped-sectors-are-missed", 60, linear_in_its_place)
        .must_fail("writing 1 sectors at 100"),
    Case::new("module.one-bio-over-five-bad-sectors", 60, one_bio),
    Case::new("module.owner-death-leaves-the-mappings", 60, owner_death),
    Case::new("module.removal-leaves-no-live-object", 30, no_live_object),
];

const BAD: [u64; 5] = [100, 101, 200, 300, 400];
/// The owner's slots: the spare past its first sectors.
const SLOTS: (u64, u64) = (64, 32768);

/// A device over a disk with bad sectors. Fields are taken down in this order.
struct Remapped {
    device: Device,
    _disks: Disks,
}

fn remapped(options: &str) -> Result<Remapped> {
    let disks = Disks::new(32, &BAD)?;
    let device = Device::remap("d", disks.bad.path(), &disks.spare(), options)?;
    Ok(Remapped { device, _disks: disks })
}

impl Remapped {
    fn disk(&self) -> Result<Disk> {
        Disk::open(self.device.path())
    }
}

fn owner() -> Result<Owner> {
    let mut owner = Owner::new()?;
    owner.start(SLOTS.0, SLOTS.1)?;
    Ok(owner)
}

/// Exactly the bad sectors are mapped, no neighbour is.
fn expect_bad_mapped(owner: &mut Owner) -> Result<()> {
    let mapped: Vec<_> = owner.extents()?.iter().map(|&(start, _, len)| (start, len)).collect();
    ensure!(mapped == BAD.map(|sector| (sector, 1)), "mapped: {mapped:?}");
    Ok(())
}

fn loads_and_leaves(_: &mut Ctx) -> Result<()> {
    modprobe("dm_remap_shim", &[])?;
    let targets = run(&["dmsetup", "targets"])?;
    ensure!(targets.lines().any(|line| line.starts_with("remap ")), "no target in {targets}");
    rmmod("dm_remap_shim")?;
    let loaded = fs::read_to_string("/proc/modules")?;
    ensure!(!loaded.contains("dm_remap_shim"), "unloaded, and still there: {loaded}");
    Ok(())
}

fn unready(_: &mut Ctx) -> Result<()> {
    let remapped = remapped("2 ready_deadline_ms 1500")?;
    let start = Instant::now();
    remapped.disk()?.read_fails(0, 1, EIO)?;
    ended_at(start, Duration::from_millis(1500), "a read")?;
    let status = remapped.device.status()?;
    ensure!(status.contains("not-ready no-owner"), "{status}");
    Ok(())
}

fn write_bad_sectors(disk: &Disk) -> Result<()> {
    for (sector, version) in BAD.into_iter().zip(1..) {
        disk.fill(sector, 1, version)?;
        disk.verify(sector, 1, version)?;
    }
    Ok(())
}

fn maps_bad_sectors(_: &mut Ctx) -> Result<()> {
    let remapped = remapped("")?;
    let mut owner = owner()?;
    let disk = remapped.disk()?;
    owner.serve_during(|| write_bad_sectors(&disk))??;
    expect_bad_mapped(&mut owner)
}

/// The control of the case above.
fn linear_in_its_place(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new(32, &BAD)?;
    let linear = dm::disk_with_bad_sectors("d", disks.bad.path(), &[])?;
    write_bad_sectors(&Disk::open(linear.path())?)
}

fn one_bio(_: &mut Ctx) -> Result<()> {
    let remapped = remapped("")?;
    let mut owner = owner()?;
    let disk = remapped.disk()?;
    owner.serve_during(|| disk.fill(0, 512, 1))??;
    disk.verify(0, 512, 1).context("in one read")?;
    for sector in 0..512 {
        disk.verify(sector, 1, 1)?;
    }
    expect_bad_mapped(&mut owner)
}

fn owner_death(_: &mut Ctx) -> Result<()> {
    let remapped = remapped("")?;
    let mut owner = owner()?;
    let disk = remapped.disk()?;
    owner.serve_during(|| disk.fill(200, 1, 9))??;
    drop(owner);
    disk.verify(200, 1, 9)?;
    // A new fault has nobody to ask, and the option to wait is not set.
    disk.write_fails(300, 1, EIO)
}

fn no_live_object(_: &mut Ctx) -> Result<()> {
    let remapped = remapped("")?;
    if rmmod("dm_remap_shim").is_ok() {
        bail!("the module left while in use");
    }
    let instances = Owner::new()?.ask(INSTANCE_GET, true, &[])?;
    ensure!(!instances.is_empty(), "no instance is listed");
    drop(remapped);
    for name in ["live_instances", "live_faults"] {
        let path = format!("/sys/module/dm_remap_shim/parameters/{name}");
        let count = fs::read_to_string(&path).context(path)?;
        ensure!(count.trim() == "0", "{name} is {count}");
    }
    rmmod("dm_remap_shim")
}
