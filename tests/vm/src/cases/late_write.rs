//! A write that is still on its way when a read of the same sector fails for good.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::libc::ENODATA;

use crate::case::Case;
use crate::guest::devices::Brd;
use crate::guest::dm::{self, Device};
use crate::guest::served::Served;
use crate::guest::{Ctx, Disk, modprobe, wait_until};

pub const CASES: &[Case] =
    &[Case::new("late-write.is-not-hidden-by-poison", 120, poisoned_meanwhile)];

const BAD: u64 = 1000;
const LATE_MS: u64 = 6000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads find the bad sector, and writes reach a sound one, much later. So the write was sent before the sector was
/// fenced and poisoned, and succeeds after: acknowledged as it is, its data could not be read.
fn poisoned_meanwhile(_: &mut Ctx) -> Result<()> {
    modprobe("dm-delay", &[])?;
    let brd = Brd::load(2, 32)?;
    let bad = dm::disk_with_bad_sectors("bad", &brd.path(0), &[BAD])?;
    let (reads, writes, sectors) = (bad.dev(), brd.path(0), Disk::open(bad.path())?.sectors()?);
    let table = format!("0 {sectors} delay {reads} 0 0 {} 0 {LATE_MS}\n", writes.display());
    let slow = Device::create("slow", &table)?;
    let served = Served::new(slow.path(), &brd.path(1), "")?;
    let disk = served.disk()?;
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| disk.fill(BAD, 1, 1));
        // One write, and nothing else, waits in the target.
        wait_until("the write", PATIENCE, || Ok(slow.status()?.trim_end().ends_with(" 0 1 0")))?;
        disk.read_fails(BAD, 1, ENODATA)?;
        ensure!(served.listed("poison-data")? == [(BAD, 1)], "it is not poisoned");
        ensure!(!writer.is_finished(), "the write was not late");
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    disk.verify(BAD, 1, 1)?;
    let mapped = served.listed("mapped")?;
    ensure!(mapped == [(BAD, 1)], "mapped: {mapped:?}");
    drop(disk);
    served.down()?;
    slow.remove()?;
    bad.remove()
}
