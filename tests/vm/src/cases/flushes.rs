//! Flush and FUA reach both disks, counted and traced below.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::guest::devices::NullBlk;
use crate::guest::dm::Device;
use crate::guest::scsi::ScsiDebug;
use crate::guest::served::{NAME, Served, policyd};
use crate::guest::stat::Stat;
use crate::guest::trace::{self, Trace, What};
use crate::guest::{Ctx, Disk};

pub const CASES: &[Case] = &[
    Case::new("flushes.fsync-reaches-both-disks", 90, fsync_over_null_blk),
    Case::new("flushes.fsync-reaches-both-scsi-disks", 90, fsync_over_scsi),
    Case::new("flushes.a-linear-device-flushes-one-disk", 60, fsync_over_linear)
        .must_fail("the spare got 0 flushes"),
    Case::new("flushes.fua-reaches-the-spare", 90, fua_to_a_mapped_block),
    Case::new("flushes.fua-survives-hold-and-reissue", 90, fua_that_is_held),
    Case::new("flushes.a-plain-write-is-not-durable", 90, plain_write)
        .must_fail("neither written with FUA nor flushed"),
];

const MIB: u64 = 32;
const BAD: u64 = 1000;

/// Two disks with write caches and FUA of their own; one sector of the first is bad.
struct Disks {
    data: NullBlk,
    spare: NullBlk,
}

impl Disks {
    fn new() -> Result<Self> {
        let cached = |name| NullBlk::create(name, 32, &[("cache_size", "8")]);
        let disks = Self { data: cached("nullb0")?, spare: cached("nullb1")? };
        disks.data.add_bad(BAD, BAD)?;
        Ok(disks)
    }

    fn served(&self) -> Result<Served> {
        Served::new(self.data.path(), self.spare.path(), "")
    }
}

/// Five times written and flushed: so often both disks are.
fn expect_flushes(device: &Path, data: &Path, spare: &Path) -> Result<()> {
    const TIMES: u64 = 5;
    let disk = Disk::open(device)?;
    let before = (Stat::of(data)?, Stat::of(spare)?);
    for version in 1..=TIMES {
        disk.fill(BAD + 8, 8, version)?;
        disk.flush()?;
    }
    let data = (Stat::of(data)? - before.0).flushes;
    let spare = (Stat::of(spare)? - before.1).flushes;
    ensure!(data == TIMES, "{TIMES} times fsync, and the data disk got {data} flushes");
    ensure!(spare == TIMES, "{TIMES} times fsync, and the spare got {spare} flushes");
    Ok(())
}

fn fsync_over_null_blk(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let served = disks.served()?;
    expect_flushes(&served.path(), disks.data.path(), disks.spare.path())
        .context("with nothing mapped")?;
    served.disk()?.fill(BAD, 1, 1)?;
    ensure!(served.listed("mapped")? == [(BAD, 1)], "{:?}", served.listed("mapped")?);
    expect_flushes(&served.path(), disks.data.path(), disks.spare.path())
        .context("with a sector mapped")?;
    served.down()
}

fn fsync_over_scsi(_: &mut Ctx) -> Result<()> {
    let scsi = ScsiDebug::load(32, &["add_host=2"])?;
    let (data, spare) = (scsi.disk(0)?, scsi.disk(1)?);
    let served = Served::new(&data, &spare, "")?;
    expect_flushes(&served.path(), &data, &spare)?;
    served.down()
}

fn fsync_over_linear(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let table = format!("0 {} linear {} 0", MIB * 2048, disks.data.path().display());
    let linear = Device::create("linear", &table)?;
    expect_flushes(linear.path(), disks.data.path(), disks.spare.path())
}

/// Where on the spare the bad sector is.
fn slot() -> Result<u64> {
    let text = policyd(&["list", NAME])?.run()?;
    let line = text.lines().find(|line| line.contains("mapped")).context("nothing is mapped")?;
    line.split_whitespace().nth(3).context("no slot")?.parse().context("an odd slot")
}

/// Writes eight sectors around the bad one with FUA; all of them must be durable when the bio is done, without the
/// flush that the kernel sends after it.
fn expect_durable_at_completion(
    served: &Served,
    disks: &Disks,
    durable: bool,
) -> Result<Vec<trace::Event>> {
    let path = served.path();
    let disk = if durable { Disk::open_durable(&path)? } else { Disk::open(&path)? };
    let trace = Trace::start()?;
    disk.fill(BAD - 4, 8, 7)?;
    let events = trace.end()?;
    let device = trace::number(&path)?;
    let done = events.iter().position(|event| {
        event.what == What::BioDone && event.device == device && event.write && event.fua == durable
    });
    let before = &events[..done.with_context(|| format!("the bio is not in {events:?}"))?];
    let slot = slot()?;
    trace::expect_durable(before, disks.spare.path(), slot..slot + 1)?;
    trace::expect_durable(before, disks.data.path(), BAD - 4..BAD)?;
    trace::expect_durable(before, disks.data.path(), BAD + 1..BAD + 4)?;
    disk.verify(BAD - 4, 8, 7)?;
    Ok(events)
}

fn fua_to_a_mapped_block(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let served = disks.served()?;
    served.disk()?.fill(BAD, 1, 1)?;
    let events = expect_durable_at_completion(&served, &disks, true)?;
    let (data, spare) = (trace::number(disks.data.path())?, trace::number(disks.spare.path())?);
    let writes = |device: &str| {
        let writes = events.iter().filter(|event| event.device == device && event.write);
        let issued = writes.filter(|event| event.what == What::Issued);
        issued.map(|event| (event.sectors.clone(), event.fua)).collect::<Vec<_>>()
    };
    let around = vec![(BAD - 4..BAD, true), (BAD + 1..BAD + 4, true)];
    ensure!(writes(&data) == around, "the data disk got {:?}", writes(&data));
    let slot = slot()?;
    ensure!(writes(&spare) == [(slot..slot + 1, true)], "the spare got {:?}", writes(&spare));
    served.down()
}

fn fua_that_is_held(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let served = disks.served()?;
    expect_durable_at_completion(&served, &disks, true)?;
    served.down()
}

fn plain_write(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    let served = disks.served()?;
    served.disk()?.fill(BAD, 1, 1)?;
    expect_durable_at_completion(&served, &disks, false)?;
    served.down()
}
