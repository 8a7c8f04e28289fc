//! The replayed spare at each flush, and what it must hold.

use std::fs::File;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use dmremap_disks::logwrites::{Entry, Log};
use serde_json::Value;

use super::{Acknowledged, Disks, FORMATTED, copy};
use crate::guest::Ctx;
use crate::guest::dm::Device;
use crate::guest::served::{self, Served, policyd};

/// What a spare says that is not formatted to the end.
const NOT_YET: &str = "no dm-remap label on this disk";
/// Every so many acknowledgements the state is served and read, as it is at the end.
const SERVED_EACH: usize = 30;

pub struct Replay<'a> {
    disks: &'a Disks,
    log: Log,
    spare: Device,
    /// To be served, as that changes it.
    copy: Device,
    acknowledged: Vec<Acknowledged>,
    formatted: bool,
    states: u64,
    refused: u64,
    served: u64,
}

impl<'a> Replay<'a> {
    pub fn new(disks: &'a Disks) -> Result<Self> {
        Ok(Self {
            disks,
            log: Log::open(File::open(disks.log())?)?,
            spare: disks.replica("replayed", 3)?,
            copy: disks.replica("copy", 4)?,
            acknowledged: Vec::new(),
            formatted: false,
            states: 0,
            refused: 0,
            served: 0,
        })
    }

    /// The entries that the last flush before the acknowledgement of that number made durable.
    pub fn flushed_last_before(&self, number: u64) -> Result<Range<u64>> {
        let mut flushes = (0, 0);
        let mut seen = 0;
        for entry in self.log.entries() {
            let entry = entry?;
            if entry.is_flush() {
                flushes = (flushes.1, entry.index);
            }
            seen += u64::from(acknowledged(&entry).is_some());
            if seen == number {
                return Ok(flushes.0 + 1..flushes.1 + 1);
            }
        }
        bail!("the log has {seen} acknowledgements")
    }

    /// Replays all but the `forgotten` entries.
    pub fn run(&mut self, ctx: &mut Ctx, forgotten: &Range<u64>) -> Result<()> {
        let mut disk = File::options().read(true).write(true).open(self.spare.path())?;
        let mut table = None;
        let entries: Vec<Entry> = self.log.entries().collect::<Result<_, _>>()?;
        for entry in &entries {
            if !forgotten.contains(&entry.index) {
                self.log.apply(entry, &mut disk)?;
            }
            if entry.is_flush() || entry.is_fua() {
                disk.sync_all()?;
                table = self.load().with_context(|| at(entry))?;
            }
            self.formatted |= entry.mark.as_deref() == Some(FORMATTED);
            ensure!(!self.formatted || table.is_some(), "{}: no label yet", at(entry));
            let Some(new) = acknowledged(entry) else { continue };
            self.acknowledged.push(new);
            let table = table.as_ref().context("nothing was loaded yet")?;
            self.acknowledged
                .iter()
                .try_for_each(|one| one.is_in(table))
                .with_context(|| at(entry))?;
            if self.acknowledged.len() % SERVED_EACH == 0 {
                self.serve().with_context(|| at(entry))?;
            }
        }
        self.serve().context("at the end of the log")?;
        ensure!(self.refused > 0, "no state before the end of the formatting was refused");
        ctx.note(format!(
            "{} entries, {} states loaded or refused, {} of them without a label; {} acknowledgements; {} states \
             served",
            entries.len(),
            self.states,
            self.refused,
            self.acknowledged.len(),
            self.served
        ))
    }

    /// The state as `dump` shows it; none while there is no label.
    fn load(&mut self) -> Result<Option<Vec<Extent>>> {
        self.states += 1;
        let dump = policyd(&["dump", &self.spare.dev()])?.arg("--json").end()?;
        if dump.status.success() {
            let table = extents(&dump.stdout)?;
            // Loaded by the daemon only if it is there; what is acknowledged must be too.
            self.acknowledged.iter().try_for_each(|one| one.is_in(&table))?;
            return Ok(Some(table));
        }
        ensure!(!self.formatted && dump.stderr.contains(NOT_YET), "refused: {}", dump.stderr);
        self.refused += 1;
        Ok(None)
    }

    fn serve(&mut self) -> Result<()> {
        copy(self.spare.path(), self.copy.path())?;
        served::configure(self.disks.bad.path(), self.copy.path(), "")?;
        let served = Served::start()?;
        let disk = served.disk()?;
        for (number, one) in self.acknowledged.iter().enumerate() {
            // Later ones say more.
            let later = &self.acknowledged[number + 1..];
            match *one {
                _ if later.iter().any(|later| later.sector() == one.sector()) => {}
                // The next version may have been sent already.
                Acknowledged::Written { sector, version } => {
                    let next = disk.verify(sector, 1, version + 1);
                    disk.verify(sector, 1, version).or(next)?;
                }
                Acknowledged::Poisoned { sector } => {
                    // Unless the write that heals it was sent already.
                    let healed = disk.verify(sector, 1, 1).is_ok();
                    ensure!(healed || disk.read(sector, 1).is_err(), "sector {sector} is readable");
                }
            }
        }
        self.served += 1;
        drop(disk);
        served.down()
    }
}

fn at(entry: &Entry) -> String {
    match &entry.mark {
        Some(mark) => format!("entry {}, mark {mark}", entry.index),
        None => format!("entry {}", entry.index),
    }
}

fn acknowledged(entry: &Entry) -> Option<Acknowledged> {
    entry.mark.as_deref().and_then(Acknowledged::parse)
}

/// An extent of a dump.
struct Extent {
    start: u64,
    len: u64,
    mapped: bool,
}

fn extents(dump: &str) -> Result<Vec<Extent>> {
    let dump: Value = serde_json::from_str(dump).context("the dump")?;
    let all = dump["extents"].as_array().context("the dump has no extents")?;
    let extent = |extent: &Value| {
        Some(Extent {
            start: extent["start"].as_u64()?,
            len: extent["len"].as_u64()?,
            mapped: extent["kind"].get("mapped").is_some(),
        })
    };
    all.iter().map(|one| extent(one).with_context(|| format!("an odd extent: {one}"))).collect()
}

impl Acknowledged {
    fn sector(self) -> u64 {
        match self {
            Acknowledged::Written { sector, .. } | Acknowledged::Poisoned { sector } => sector,
        }
    }

    fn is_in(self, table: &[Extent]) -> Result<()> {
        let sector = self.sector();
        let held = table.iter().find(|one| (one.start..one.start + one.len).contains(&sector));
        let good =
            held.is_some_and(|one| one.mapped || matches!(self, Acknowledged::Poisoned { .. }));
        ensure!(good, "{self:?} was acknowledged and is not there");
        Ok(())
    }
}
