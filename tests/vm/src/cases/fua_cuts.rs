//! The power is cut right after FUA writes, with no flush behind them: asynchronous direct writes with O_DSYNC are
//! FUA alone, while the kernel sends a flush after each synchronous one.

use anyhow::{Context, Result, ensure};

use crate::case::{self, Case, End, Phase};
use crate::guest::dm::{self, Device};
use crate::guest::fs::fio;
use crate::guest::served::{self, Served};
use crate::guest::trace::{self, Trace};
use crate::guest::{Ctx, Disk};

const DISKS: &[case::Disk] = &[case::Disk::Volatile { mib: 16 }, case::Disk::Volatile { mib: 16 }];

pub const CASES: &[Case] = &[
    Case::phased("fua-cuts.acknowledged-is-durable", 180, FUA).disks(DISKS),
    Case::phased("fua-cuts.plain-writes-are-lost", 180, PLAIN).disks(DISKS).must_fail("was lost"),
];

const FUA: &[Phase] = &[
    Phase { body: |ctx| write_and_cut(ctx, &["--sync=dsync"]), end: End::CutOnRequest },
    Phase { body: all_is_there, end: End::Off },
];

const PLAIN: &[Phase] = &[
    Phase { body: |ctx| write_and_cut(ctx, &[]), end: End::CutOnRequest },
    Phase { body: all_is_there, end: End::Off },
];

/// What is written, in requests of eight sectors; one sector in every fourth of them is bad.
const SECTORS: u64 = 2048;
const BYTES: &str = "1m";
const HALF: &str = "512k";
/// The last content.
const LAST: u8 = 0x22;

fn bad_disk(ctx: &Ctx) -> Result<Device> {
    let bad: Vec<u64> = (0..SECTORS / 32).map(|n| n * 32 + n % 8).collect();
    dm::disk_with_bad_sectors("bad", &ctx.disk(0)?, &bad)
}

/// The first half is mapped when it is written for the last time; in the second, each write of a bad sector is held,
/// and its good sectors are issued again.
fn write_and_cut(ctx: &mut Ctx, how: &[&str]) -> Result<()> {
    let bad = bad_disk(ctx)?;
    let served = Served::new(bad.path(), &ctx.disk(1)?, "")?;
    let write = |size: &str, pattern: &str| {
        let (size, pattern) = (format!("--size={size}"), format!("--buffer_pattern={pattern}"));
        let mut args = vec!["--rw=write", "--bs=4k", "--iodepth=16", &size, &pattern];
        args.extend(how);
        fio(&served.path(), &args, 120)
    };
    let first = write(HALF, "0x11")?;
    ensure!(first.contains("err= 0"), "{first}");
    let trace = Trace::start()?;
    write(BYTES, "0x22")?;
    let events = trace.end()?;
    let device = trace::number(&served.path())?;
    let ours = || events.iter().filter(|event| event.device == device);
    let (fua, flushes) =
        (ours().filter(|event| event.fua).count(), ours().filter(|event| event.flush).count());
    let wanted = if how.is_empty() { 0 } else { SECTORS / 8 };
    ensure!(
        (fua as u64, flushes) == (wanted, 0),
        "{fua} FUA writes and {flushes} flushes were sent, and should be {wanted} and 0"
    );
    let mapped: u64 = served.listed("mapped")?.iter().map(|(_, len)| len).sum();
    ensure!(mapped == SECTORS / 32, "{mapped} sectors are mapped");
    ctx.cut()
}

fn all_is_there(ctx: &mut Ctx) -> Result<()> {
    let bad = bad_disk(ctx)?;
    served::configure(bad.path(), &ctx.disk(1)?, "")?;
    let served = Served::start()?;
    let disk = Disk::open(served.path())?;
    for sector in 0..SECTORS {
        let bytes = disk.read(sector, 1).with_context(|| format!("reading sector {sector}"))?;
        ensure!(bytes.iter().all(|&byte| byte == LAST), "sector {sector} was lost: {:x}", bytes[0]);
    }
    drop(disk);
    served.down()?;
    bad.remove()
}
