//! Disks as they come: several at once, partitions, blocks of 4 KiB, and pairs that differ.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::libc::{EINVAL, ENODATA};

use crate::case::Case;
use crate::guest::devices::{Brd, NullBlk};
use crate::guest::dm::{self, Device};
use crate::guest::scsi::ScsiDebug;
use crate::guest::served::{Served, policyd};
use crate::guest::stat::limit;
use crate::guest::{Ctx, Disk, run, wait_until};

pub const CASES: &[Case] = &[
    Case::new("geometry.four-devices-at-once", 180, four_devices),
    Case::new("geometry.partitions-as-data-and-spare", 90, partitions),
    Case::new("geometry.limits-suit-both-disks", 60, limits),
    Case::new("geometry.both-with-4k-sectors", 90, |_| blocks(Some(4096), Some(4096))),
    Case::new("geometry.data-with-4k-sectors", 90, |_| blocks(Some(4096), None)),
    Case::new("geometry.spare-with-4k-sectors", 90, |_| blocks(None, Some(4096))),
];

fn expect_mapped(served: &Served, index: usize, wanted: &[u64]) -> Result<()> {
    let mapped = served.sectors_of(index, "mapped")?;
    ensure!(mapped == wanted, "device {index}: mapped {mapped:?}, and should be {wanted:?}");
    Ok(())
}

/// Where the disk of that index is bad: apart from the others, so that a mix-up shows.
fn bad_of(index: usize) -> Vec<u64> {
    (0..12).map(|i| 1000 * (i + 1) + 7 * index as u64).collect()
}

fn four_devices(_: &mut Ctx) -> Result<()> {
    const ALL: [usize; 4] = [0, 1, 2, 3];
    let brd = Brd::load(8, 32)?;
    let ram = |index: usize| brd.path(index as u32);
    let disks: Vec<Device> = ALL
        .iter()
        .map(|&i| dm::disk_with_bad_sectors(&format!("bad{i}"), &ram(i), &bad_of(i)))
        .collect::<Result<_>>()?;
    let spares: Vec<PathBuf> = ALL.iter().map(|&i| ram(4 + i)).collect();
    let pairs: Vec<(&Path, &Path)> =
        disks.iter().zip(&spares).map(|(data, spare)| (data.path(), spare.as_path())).collect();
    let served = Served::several(&pairs)?;
    // All at once, each with versions of its own.
    let write = |index: usize| -> Result<()> {
        let disk = served.disk_of(index)?;
        for &sector in &bad_of(index)[..10] {
            disk.fill(sector - 3, 8, index as u64)?;
        }
        disk.read_fails(bad_of(index)[11], 1, ENODATA)
    };
    thread::scope(|scope| {
        let writers = ALL.map(|index| scope.spawn(move || write(index)));
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or_else(|_| bail!("a writer panicked")))
    })?;
    let check = |served: &Served| -> Result<()> {
        for index in ALL {
            let disk = served.disk_of(index)?;
            for &sector in &bad_of(index)[..10] {
                disk.verify(sector - 3, 8, index as u64)?;
            }
            expect_mapped(served, index, &bad_of(index)[..10])?;
            let poisoned = served.sectors_of(index, "poison-data")?;
            ensure!(poisoned == bad_of(index)[11..], "device {index}: poisoned {poisoned:?}");
        }
        Ok(())
    };
    check(&served)?;
    served.down()?;
    let served = Served::start()?;
    check(&served).context("after the devices were made anew")?;
    served.down()?;
    disks.into_iter().try_for_each(Device::remove)
}

/// Makes the disk two partitions, each start and length in sectors.
fn partition(disk: &Path, parts: [(u32, u32); 2]) -> Result<[PathBuf; 2]> {
    let mut table = vec![0; 512];
    for (entry, (start, len)) in table[446..].chunks_exact_mut(16).zip(parts) {
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&len.to_le_bytes());
    }
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    Disk::open(disk)?.write(0, &table)?;
    run(&["blockdev", "--rereadpt", &disk.display().to_string()])?;
    let names = [1, 2].map(|n| PathBuf::from(format!("{}p{n}", disk.display())));
    wait_until("the partitions", Duration::from_secs(10), || Ok(names.iter().all(|n| n.exists())))?;
    Ok(names)
}

/// Both on one disk, so that whatever leaves its partition lands in the other one or between the two.
fn partitions(_: &mut Ctx) -> Result<()> {
    const DATA: (u32, u32) = (2048, 40_000);
    const SPARE: (u32, u32) = (49_152, 65_536);
    const BETWEEN: u64 = 42_048;
    let null = NullBlk::create("nullb0", 64, &[])?;
    let [data, spare] = partition(null.path(), [DATA, SPARE])?;
    let whole = Disk::open(null.path())?;
    whole.fill(1, 2047, 9)?;
    let gap = u64::from(SPARE.0) - BETWEEN;
    whole.fill(BETWEEN, gap as usize, 9)?;

    let served = Served::new(&data, &spare, "")?;
    let disk = served.disk()?;
    ensure!(disk.sectors()? == u64::from(DATA.1), "the device is not as long as its partition");
    let last = u64::from(DATA.1) - 1;
    // Also the first and the last sector, and numbers that the disk's own count would put elsewhere.
    let bad = [0, 1, 2048, 5000, last - 1, last];
    for sector in bad {
        let at = u64::from(DATA.0) + sector;
        null.add_bad(at, at)?;
    }
    for start in (0..u64::from(DATA.1)).step_by(2000) {
        disk.fill(start, 2000, 1)?;
    }
    expect_mapped(&served, 0, &bad)?;
    for start in (0..u64::from(DATA.1)).step_by(2000) {
        disk.verify(start, 2000, 1)?;
    }
    disk.flush()?;
    drop(disk);
    served.down()?;

    whole.verify(1, 2047, 9).context("before the data")?;
    whole.verify(BETWEEN, gap as usize, 9).context("between data and spare")?;
    let served = Served::start()?;
    served.disk()?.verify(0, 2000, 1)?;
    served.disk()?.verify(last - 7, 8, 1)?;
    expect_mapped(&served, 0, &bad)?;
    served.down()
}

/// What the block layer may send to the device is what it may send to both disks; but for discards, which the spare never
/// sees.
fn limits(_: &mut Ctx) -> Result<()> {
    let null = |name: &str, attributes: [(&str, &str); 3]| NullBlk::create(name, 32, &attributes);
    let small = [("blocksize", "512"), ("max_sectors", "256"), ("discard", "0")];
    let large = [("blocksize", "4096"), ("max_sectors", "128"), ("discard", "1")];
    let (small, large) = (null("nullb0", small)?, null("nullb1", large)?);
    // Its sectors are of 512 bytes, and its blocks of 4 KiB.
    let scsi = ScsiDebug::load(16, &["physblk_exp=3", "lbpu=1"])?;
    let disk = scsi.disk(0)?;
    let (small, large, scsi) = (small.path(), large.path(), disk.as_path());
    for (data, spare) in [(small, large), (large, small), (small, scsi), (scsi, small)] {
        let device = Device::remap("d", data, spare, "")?;
        suit_both(device.path(), data, spare)
            .with_context(|| format!("{} and {}", data.display(), spare.display()))?;
    }
    Ok(())
}

fn suit_both(device: &Path, data: &Path, spare: &Path) -> Result<()> {
    let all = |name: &str| -> Result<[u64; 3]> {
        Ok([limit(device, name)?, limit(data, name)?, limit(spare, name)?])
    };
    for name in ["logical_block_size", "physical_block_size", "minimum_io_size"] {
        let [found, data, spare] = all(name)?;
        ensure!(found == data.max(spare), "{name} is {found}, of {data} and {spare}");
    }
    for name in ["max_hw_sectors_kb", "max_sectors_kb", "max_segments", "max_segment_size"] {
        let [found, data, spare] = all(name)?;
        ensure!(found == data.min(spare), "{name} is {found}, of {data} and {spare}");
    }
    let [found, data, spare] = all("discard_max_bytes")?;
    let wanted = if spare == 0 { data } else { data.min(spare) };
    ensure!(found == wanted, "discard_max_bytes is {found}, of {data} and {spare}");
    let zeroes = limit(device, "write_zeroes_max_bytes")?;
    ensure!(zeroes == 0, "write_zeroes_max_bytes is {zeroes}");
    Ok(())
}

fn null_blk(name: &str, block: Option<u32>) -> Result<NullBlk> {
    let block = block.unwrap_or(512).to_string();
    NullBlk::create(name, 32, &[("blocksize", &block)])
}

/// A disk and a spare with sectors of these sizes in bytes, 512 where none is given. The device has the larger one.
fn blocks(data: Option<u32>, spare: Option<u32>) -> Result<()> {
    let (data, spare) = (null_blk("nullb0", data)?, null_blk("nullb1", spare)?);
    // 512 bytes that are bad make a block of 4 KiB bad; the second run is three blocks.
    data.add_bad(803, 803)?;
    data.add_bad(1607, 1616)?;
    data.add_bad(4000, 4000)?;
    let served = Served::new(data.path(), spare.path(), "")?;
    let disk = served.disk()?;
    let path = served.path().display().to_string();
    let block = run(&["blockdev", "--getss", &path])?;
    ensure!(block.trim() == "4096", "its sectors have {block} bytes");
    disk.write_fails(800, 1, EINVAL)?;

    disk.fill(800, 8, 1)?;
    disk.fill(1560, 160, 1)?;
    disk.verify(800, 8, 1)?;
    disk.verify(1560, 160, 1)?;
    let mapped: Vec<u64> = (800..808).chain(1600..1624).collect();
    expect_mapped(&served, 0, &mapped)?;
    disk.read_fails(4000, 8, ENODATA)?;
    let poisoned = served.sectors_of(0, "poison-data")?;
    ensure!(poisoned == (4000..4008).collect::<Vec<_>>(), "poisoned: {poisoned:?}");
    drop(disk);
    served.down()?;
    let checked = policyd(&["check", &spare.path().display().to_string()])?.run()?;
    ensure!(checked.contains("clean"), "{checked}");

    let served = Served::start()?;
    let disk = served.disk()?;
    disk.verify(1560, 160, 1)?;
    expect_mapped(&served, 0, &mapped)?;
    disk.fill(4000, 8, 2)?;
    disk.verify(4000, 8, 2)?;
    drop(disk);
    served.down()
}
