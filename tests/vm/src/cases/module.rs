//! The module under an owner that is not the daemon: it loads, maps what fails, and leaves nothing behind. And loaded
//! anew under a daemon that goes on.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::libc::EIO;
use nix::sys::signal::Signal;

use crate::case::Case;
use crate::guest::deadline::ended_at;
use crate::guest::dm::{self, Device};
use crate::guest::owner::{INSTANCE_GET, Owner};
use crate::guest::served::{NAME, configure_all, format, name, policyd};
use crate::guest::setup::Disks;
use crate::guest::{Ctx, Disk, modprobe, rmmod, run, wait_until};

pub const CASES: &[Case] = &[
    Case::new("module.loads-and-leaves", 20, loads_and_leaves),
    Case::new("module.unready-errors-after-its-deadline", 30, unready),
    Case::new("module.maps-bad-sectors", 60, maps_bad_sectors),
    Case::new("module.unmapped-sectors-are-missed", 60, linear_in_its_place)
        .must_fail("writing 1 sectors at 100"),
    Case::new("module.one-bio-over-five-bad-sectors", 60, one_bio),
    Case::new("module.owner-death-leaves-the-mappings", 60, owner_death),
    Case::new("module.removal-leaves-no-live-object", 30, no_live_object),
    Case::new("module.loaded-anew-under-the-daemon", 180, loaded_anew),
];

const BAD: [u64; 5] = [100, 101, 200, 300, 400];
/// The owner's slots: the spare past its first sectors.
const SLOTS: (u64, u64) = (64, 32768);
const PATIENCE: Duration = Duration::from_secs(30);
/// Within this time the daemon does everything once that it does from time to time.
const POLLED: Duration = Duration::from_secs(6);

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
    ensure!(!is_loaded()?, "unloaded, and still there");
    Ok(())
}

fn is_loaded() -> Result<bool> {
    Ok(fs::read_to_string("/proc/modules")?.contains("dm_remap_shim"))
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

/// A newer module is put in place while the daemon goes on. It asked a family that was gone, so what it had served before
/// was never claimed again; and unloading had ended its hearing of doorbells, so on devices new to it each fault was held
/// to its deadline, and failed.
fn loaded_anew(_: &mut Ctx) -> Result<()> {
    let disks = Disks::of(4, 32, &BAD)?;
    let bad = dm::disk_with_bad_sectors("bad2", &disks.brd.path(2), &BAD)?;
    let served = disks.serve("")?;
    let instance = || Ok::<_, anyhow::Error>(Owner::onlooker()?.instance());
    let (first, disk) = (instance()?, served.disk()?);
    disk.fill(100, 1, 1)?;
    drop(disk);

    // It sees the instance with the same number only, and the module has no table for that.
    served.daemon.signal(Signal::SIGSTOP)?;
    unload(NAME)?;
    make(&disks)?;
    ensure!(instance()? == first, "instances are numbered on, so nothing can be mistaken");
    served.daemon.signal(Signal::SIGCONT)?;
    served.until_ready()?;
    let disk = served.disk()?;
    disk.verify(100, 1, 1)?;
    disk.fill(200, 1, 2)?;
    drop(disk);

    // It sees that nothing is there, and leaves that to whoever unloaded it.
    unload(NAME)?;
    let until = Instant::now() + POLLED;
    while Instant::now() < until {
        ensure!(!is_loaded()?, "the daemon has loaded the module");
        thread::sleep(Duration::from_millis(50));
    }
    make(&disks)?;
    served.until_ready()?;
    let disk = served.disk()?;
    disk.verify(200, 1, 2)?;
    disk.fill(300, 1, 3)?;
    ensure!(served.sectors_of(0, "mapped")? == [100, 200, 300], "{:?}", served.listed("mapped")?);

    // One that is new to it, and that it makes itself.
    format(bad.path(), &disks.brd.path(3))?;
    let pairs = [(disks.bad.path(), &*disks.spare()), (bad.path(), &*disks.brd.path(3))];
    configure_all("", &pairs, "")?;
    policyd(&["reload"])?.run()?;
    let second = Device::existing(&name(1));
    wait_until("the second device", PATIENCE, || Ok(second.path().exists()))?;
    let new = Disk::open(second.path())?;
    new.fill(400, 1, 4)?;
    new.verify(400, 1, 4)?;
    drop((disk, new));
    served.down()?;
    second.remove()?;
    bad.remove()?;
    disks.remove()
}

fn unload(device: &str) -> Result<()> {
    Device::existing(device).remove()?;
    rmmod("dm_remap_shim")
}

/// By hand; it is taken down with what is served.
fn make(disks: &Disks) -> Result<()> {
    let deadline = "2 hold_deadline_ms 20000";
    Device::remap(NAME, disks.bad.path(), &disks.spare(), deadline).map(std::mem::forget)
}
