//! The cases. Each leaves the guest as it found it, or fails.

use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::disks::{bad_disk, dm_create, open_direct, read_sector, run, write_sector};
use crate::owner::{INSTANCE_GET, Owner};

type Case = fn() -> Result<()>;

pub const CASES: &[(&str, Case)] = &[
    ("disk.fails-where-told", disk_fails_where_told),
    ("module.loads-and-leaves", module_loads_and_leaves),
    ("unready.errors-after-its-deadline", unready_errors_after_its_deadline),
    ("write.bad-sectors-are-mapped", bad_sectors_are_mapped),
    ("write.one-bio-over-five-bad-sectors", one_bio_over_five_bad_sectors),
    ("owner.death-leaves-the-mappings", owner_death_leaves_the_mappings),
    ("remove.leaves-no-live-object", remove_leaves_no_live_object),
];

const SECTORS: u64 = 65536;
const BAD: [u64; 5] = [100, 101, 200, 300, 400];

fn disks() -> Result<()> {
    run("modprobe", &["brd", "rd_nr=2", "rd_size=32768"])?;
    run("modprobe", &["dm_remap_shim"])?;
    bad_disk("bad", "/dev/ram0", SECTORS, &BAD)
}

fn remapped(options: &str) -> Result<()> {
    disks()?;
    let table = format!("0 {SECTORS} remap /dev/mapper/bad /dev/ram1 {options}\n");
    dm_create("d", &table)
}

fn clean_up() -> Result<()> {
    run("dmsetup", &["remove", "--noudevsync", "d"])?;
    run("dmsetup", &["remove", "--noudevsync", "bad"])?;
    run("rmmod", &["dm_remap_shim"])?;
    run("rmmod", &["brd"])?;
    Ok(())
}

/// Serves faults until the work on another thread is done.
fn served<T: Send>(owner: &mut Owner, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(work);
        let begun = Instant::now();
        while !worker.is_finished() {
            owner.serve()?;
            if begun.elapsed() > Duration::from_secs(50) {
                bail!("the work is not done after 50 s");
            }
            thread::sleep(Duration::from_millis(5));
        }
        worker.join().map_err(|_| anyhow::anyhow!("the work panicked"))
    })
}

fn disk_fails_where_told() -> Result<()> {
    disks()?;
    let disk = open_direct("/dev/mapper/bad")?;
    for sector in 98..103 {
        let bad = BAD.contains(&sector);
        ensure!(write_sector(&disk, sector, 1).is_err() == bad, "sector {sector}: {bad}");
    }
    drop(disk);
    run("dmsetup", &["remove", "--noudevsync", "bad"])?;
    run("rmmod", &["dm_remap_shim"])?;
    run("rmmod", &["brd"])?;
    Ok(())
}

fn module_loads_and_leaves() -> Result<()> {
    run("modprobe", &["dm_remap_shim"])?;
    let targets = run("dmsetup", &["targets"])?;
    ensure!(targets.lines().any(|l| l.starts_with("remap ")), "no target remap in {targets}");
    run("rmmod", &["dm_remap_shim"])?;
    Ok(())
}

fn unready_errors_after_its_deadline() -> Result<()> {
    remapped("2 ready_deadline_ms 1500")?;
    let begun = Instant::now();
    let error = read_sector(&open_direct("/dev/mapper/d")?, 0).err().context("it was served")?;
    ensure!(error.raw_os_error() == Some(5), "{error}");
    let waited = begun.elapsed();
    ensure!(waited >= Duration::from_millis(1400), "errored after only {waited:?}");
    let status = run("dmsetup", &["status", "d"])?;
    ensure!(status.contains("not-ready no-owner"), "{status}");
    clean_up()
}

fn bad_sectors_are_mapped() -> Result<()> {
    remapped("")?;
    let mut owner = Owner::new()?;
    owner.start(64, 32768)?;
    let device = open_direct("/dev/mapper/d")?;
    for (i, &sector) in BAD.iter().enumerate() {
        served(&mut owner, || write_sector(&device, sector, i as u8 + 1))?
            .with_context(|| format!("write of sector {sector}"))?;
        let read = read_sector(&device, sector)?;
        ensure!(read == [i as u8 + 1; 512], "sector {sector} reads back something else");
    }
    let mapped: Vec<_> = owner.extents()?.iter().map(|&(start, _, len)| (start, len)).collect();
    ensure!(mapped == BAD.map(|s| (s, 1)), "mapped: {mapped:?}");
    drop((device, owner));
    clean_up()
}

fn one_bio_over_five_bad_sectors() -> Result<()> {
    remapped("")?;
    let mut owner = Owner::new()?;
    owner.start(64, 32768)?;
    let device = open_direct("/dev/mapper/d")?;
    // Aligned to a page, for direct I/O.
    let mut memory = vec![0u8; 256 * 1024 + 4096];
    let skip = memory.as_ptr().align_offset(4096);
    let data = &mut memory[skip..skip + 256 * 1024];
    for (i, byte) in data.iter_mut().enumerate() {
        *byte = (i / 512 * 7 + i) as u8;
    }
    served(&mut owner, || device.write_all_at(data, 0))??;
    for sector in 0..512u64 {
        let at = sector as usize * 512;
        ensure!(read_sector(&device, sector)? == data[at..at + 512], "sector {sector} differs");
    }
    let mut memory = vec![0u8; 256 * 1024 + 4096];
    let skip = memory.as_ptr().align_offset(4096);
    let whole = &mut memory[skip..skip + 256 * 1024];
    device.read_exact_at(whole, 0)?;
    ensure!(whole == data, "one read over mapped and direct sectors differs");
    let mapped: Vec<_> = owner.extents()?.iter().map(|&(start, _, len)| (start, len)).collect();
    ensure!(mapped == BAD.map(|s| (s, 1)), "mapped: {mapped:?}");
    drop((device, owner));
    clean_up()
}

fn owner_death_leaves_the_mappings() -> Result<()> {
    remapped("")?;
    let mut owner = Owner::new()?;
    owner.start(64, 32768)?;
    let device = open_direct("/dev/mapper/d")?;
    served(&mut owner, || write_sector(&device, 200, 9))??;
    drop(owner);
    ensure!(read_sector(&device, 200)? == [9; 512], "the mapping is gone");
    // A new fault has nobody to ask, and the option to wait is not set.
    let error = write_sector(&device, 300, 1).err().context("an error was hidden")?;
    ensure!(error.raw_os_error() == Some(5), "{error}");
    drop(device);
    clean_up()
}

fn remove_leaves_no_live_object() -> Result<()> {
    remapped("")?;
    ensure!(run("rmmod", &["dm_remap_shim"]).is_err(), "the module left while in use");
    ensure!(!Owner::new()?.ask(INSTANCE_GET, true, &[])?.is_empty(), "no instance is listed");
    run("dmsetup", &["remove", "--noudevsync", "d"])?;
    for name in ["live_instances", "live_faults", "live_bios"] {
        let path = format!("/sys/module/dm_remap_shim/parameters/{name}");
        let count = std::fs::read_to_string(&path).context(path)?;
        ensure!(count.trim() == "0", "{name} is {count}");
    }
    run("dmsetup", &["remove", "--noudevsync", "bad"])?;
    run("rmmod", &["dm_remap_shim"])?;
    run("rmmod", &["brd"])?;
    Ok(())
}
