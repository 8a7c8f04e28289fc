//! Everything the spare was sent, from its formatting to its close, with a mark after each acknowledgement; then
//! every state in which the power could have failed at a flush.

mod replay;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Result, bail, ensure};

use crate::case::Case;
use crate::guest::devices::Brd;
use crate::guest::dm::{self, Device};
use crate::guest::served::{self, Served};
use crate::guest::{self, Ctx, Disk};
use replay::Replay;

pub const CASES: &[Case] = &[
    Case::new("log-writes.every-flush-of-the-spare", 300, every_flush),
    Case::new("log-writes.a-forgotten-flush-is-seen", 300, forget_a_flush)
        .must_fail("was acknowledged and is not there"),
];

/// Sectors of the spare: so few that its log is full, and a checkpoint due, after two dozen commits.
const SPARE: u64 = 16384;
/// Bad sectors, far from each other: a fault each.
const BAD: u64 = 60;
/// The first of them are written one after the other, so that nothing else is between two marks.
const ALONE: Range<u64> = 0..12;
/// Some are read, and so poisoned, before they are written.
const POISONED: Range<u64> = 12..18;
const REST: Range<u64> = 18..BAD;
const THREADS: u64 = 3;
/// The mark of the formatting's end.
const FORMATTED: &str = "formatted";

fn bad_sector(n: u64) -> u64 {
    100 + n * 101
}

/// What was acknowledged, as a mark names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acknowledged {
    /// The sector has this version or a later one.
    Written { sector: u64, version: u64 },
    /// A read of the sector failed.
    Poisoned { sector: u64 },
}

impl Acknowledged {
    fn mark(self) -> String {
        match self {
            Acknowledged::Written { sector, version } => format!("written:{sector}:{version}"),
            Acknowledged::Poisoned { sector } => format!("poisoned:{sector}"),
        }
    }

    fn parse(mark: &str) -> Option<Self> {
        let mut words = mark.split(':');
        let kind = words.next()?;
        let sector = words.next()?.parse().ok()?;
        match kind {
            "written" => {
                Some(Acknowledged::Written { sector, version: words.next()?.parse().ok()? })
            }
            "poisoned" => Some(Acknowledged::Poisoned { sector }),
            _ => None,
        }
    }
}

/// RAM disks: data, what is below the logged spare, its log, the replayed spare, a copy of that to serve.
struct Disks {
    bad: Device,
    brd: Brd,
}

impl Disks {
    fn new() -> Result<Self> {
        let brd = Brd::load(5, 32)?;
        let bad: Vec<u64> = (0..BAD).map(bad_sector).collect();
        Ok(Self { bad: dm::disk_with_bad_sectors("bad", &brd.path(0), &bad)?, brd })
    }

    fn log(&self) -> PathBuf {
        self.brd.path(2)
    }

    /// A device of the spare's size over a RAM disk.
    fn replica(&self, name: &str, index: u32) -> Result<Device> {
        Device::create(name, &format!("0 {SPARE} linear {} 0", self.brd.path(index).display()))
    }
}

struct Logged(Device);

impl Logged {
    fn mark(&self, text: &str) -> Result<()> {
        self.0.message(0, &format!("mark {text}")).map(drop)
    }

    fn acknowledged(&self, what: Acknowledged) -> Result<()> {
        self.mark(&what.mark())
    }
}

fn write(disk: &Disk, spare: &Logged, sector: u64, version: u64) -> Result<()> {
    disk.fill(sector, 1, version)?;
    spare.acknowledged(Acknowledged::Written { sector, version })
}

/// The daemon's life on a spare: formatted, served, killed and served again, closed.
fn record(disks: &Disks) -> Result<()> {
    guest::modprobe("dm-log-writes", &[])?;
    let (below, log) = (disks.brd.path(1), disks.log());
    let table = format!("0 {SPARE} log-writes {} {}", below.display(), log.display());
    let spare = Logged(Device::create("spare", &table)?);
    served::format(disks.bad.path(), spare.0.path())?;
    spare.mark(FORMATTED)?;
    served::configure(disks.bad.path(), spare.0.path(), "")?;
    let mut served = Served::start()?;
    let disk = served.disk()?;
    for n in ALONE {
        write(&disk, &spare, bad_sector(n), 1)?;
    }
    for sector in POISONED.map(bad_sector) {
        ensure!(disk.read(sector, 1).is_err(), "bytes that nobody wrote");
        spare.acknowledged(Acknowledged::Poisoned { sector })?;
    }
    served.kill()?;
    served.again()?;
    for sector in POISONED.map(bad_sector).step_by(2) {
        write(&disk, &spare, sector, 1)?;
    }
    thread::scope(|scope| {
        let one = |number| {
            let (disk, spare) = (&disk, &spare);
            let mine = REST.skip(number).step_by(THREADS as usize).map(bad_sector);
            scope.spawn(move || mine.into_iter().try_for_each(|at| write(disk, spare, at, 1)))
        };
        let threads: Vec<_> = (0..THREADS as usize).map(one).collect();
        let panicked = |_| bail!("a writer panicked");
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
    })?;
    let durable = Disk::open_durable(served.path())?;
    for n in ALONE.step_by(3) {
        write(&durable, &spare, bad_sector(n), 2)?;
    }
    drop((disk, durable));
    served.down()?;
    spare.0.remove()
}

fn every_flush(ctx: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    record(&disks)?;
    let mut replay = Replay::new(&disks)?;
    replay.run(ctx, &(0..0))
}

fn forget_a_flush(ctx: &mut Ctx) -> Result<()> {
    let disks = Disks::new()?;
    record(&disks)?;
    let mut replay = Replay::new(&disks)?;
    let forgotten = replay.flushed_last_before(ALONE.end / 2)?;
    replay.run(ctx, &forgotten)
}

/// Copies a device of the spare's size.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (Disk::open(from)?, Disk::open(to)?);
    for at in (0..SPARE).step_by(1024) {
        to.write(at, &from.read(at, 1024)?)?;
    }
    to.flush()?;
    Ok(())
}
