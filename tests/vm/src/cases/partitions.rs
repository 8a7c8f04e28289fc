//! A partition as data device: what is held and sent again must not leave it.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::case::Case;
use crate::guest::devices::Brd;
use crate::guest::scsi::ScsiDebug;
use crate::guest::served::Served;
use crate::guest::{Ctx, Disk, wait_until};

pub const CASES: &[Case] = &[Case::new("partitions.a-held-read-stays-inside", 90, held_read)];

/// Where the bad sectors are, in the partition.
const AT: u64 = 200;

/// A clone of a bio inherits from block/blk-core.c the mark that its partition has been added already. Sent with it to
/// a partition, it read at the same sector of the whole disk: bytes that nobody had written to the device.
fn held_read(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 32)?;
    let scsi = ScsiDebug::load(16, &["num_parts=1"])?;
    let whole = scsi.disk(0)?;
    let part = PathBuf::from(format!("{}1", whole.display()));
    wait_until("the partition", Duration::from_secs(5), || Ok(part.exists()))?;
    let name = part.file_name().context("a nameless partition")?.to_string_lossy();
    let begins = std::fs::read_to_string(format!("/sys/class/block/{name}/start"))?;
    let begins: u64 = begins.trim().parse()?;
    ensure!(begins > 0, "the partition begins with its disk");
    // What the wrong place would show.
    Disk::open(&part)?.fill(AT - begins.min(AT), 16, 9)?;

    let served = Served::new(&part, &brd.path(0), "")?;
    let disk = served.disk()?;
    disk.fill(AT, 8, 1)?;
    scsi.set("medium_error_start", &(begins + AT).to_string())?;
    scsi.set("medium_error_count", "8")?;
    scsi.set("opts", "2")?;
    served.daemon.signal(Signal::SIGSTOP)?;
    thread::scope(|scope| {
        let held = scope.spawn(|| disk.verify(AT, 8, 1));
        thread::sleep(Duration::from_millis(500));
        ensure!(!held.is_finished(), "the read was not held");
        scsi.set("opts", "0")?;
        served.daemon.signal(Signal::SIGCONT)?;
        held.join().unwrap_or_else(|_| bail!("the reader panicked"))
    })?;
    ensure!(served.listed("poison-data")?.is_empty(), "it was poisoned, and not sent again");
    drop(disk);
    served.down()
}
