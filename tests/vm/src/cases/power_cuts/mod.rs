//! Power cuts under load, over disks whose caches are volatile. The data disk gets worse at every boot, so that
//! faults, places, commits and installs are under way when the power goes.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use anyhow::{Context, Result};
use dmremap_disks::iocheck::Event;
use dmremap_disks::iocheck::workload::{self, Workload};

use crate::case::{Case, Disk, End, Phase};
use crate::guest::dm::{self, Device};
use crate::guest::journal::{Journal, regions};
use crate::guest::served::{self, Served};
use crate::guest::spare::{is_as_cut, is_clean};
use crate::guest::steer::Steer;
use crate::guest::{Ctx, Disk as Open};

/// The disks of the cases: data, spare, journal, control.
const DISKS: &[Disk] = &[
    Disk::Volatile { mib: 16 },
    Disk::Volatile { mib: 16 },
    Disk::Raw { mib: JOURNAL_MIB },
    Disk::Control,
];
const JOURNAL_MIB: u64 = 2 * 2 * (CUTS + 1);
const _: () = assert!(regions(JOURNAL_MIB) == 2 * (CUTS + 1));

const CUTS: u64 = 20;
/// Cuts of the negative control.
const CONTROL_CUTS: u64 = 2;

pub const CASES: &[Case] = &[
    Case::phased("power-cuts.under-load", 120, &boots::<{ CUTS as usize + 1 }>(load_until_the_cut))
        .disks(DISKS)
        .judge(judge::judge),
    Case::phased(
        "power-cuts.a-lying-disk-is-seen",
        120,
        &boots::<{ CONTROL_CUTS as usize + 1 }>(load_until_the_cut_over_a_lying_disk),
    )
    .disks(DISKS)
    .judge(judge::judge)
    .must_fail("a write was lost"),
];

/// All but the last end with a cut.
const fn boots<const N: usize>(body: fn(&mut Ctx) -> Result<()>) -> [Phase; N] {
    let mut boots = [Phase { body, end: End::CutUnderLoad }; N];
    boots[N - 1] = Phase { body: after_the_last_cut, end: End::Off };
    boots
}

/// What is written to and judged.
const SECTORS: Range<u64> = 1000..5096;
const THREADS: u64 = 6;
/// Ids of a region of the journal begin with its number times this.
const IDS: u64 = 100_000;

/// The regions of the journal: of what the cut before this boot left, and of this boot's load.
const fn look(boot: u64) -> u64 {
    2 * boot
}

const fn load(boot: u64) -> u64 {
    2 * boot + 1
}

const fn first_id(region: u64) -> u64 {
    region * IDS + 1
}

/// The sectors that go bad in a boot, before its load: twelve places of one to three sectors, near each other as
/// they are on real disks.
fn goes_bad(boot: u64) -> BTreeSet<u64> {
    let place = |n: u64| {
        let start =
            SECTORS.start + (boot * 997 + n * n * 41 + n * 23) % (SECTORS.end - SECTORS.start - 3);
        start..=start + n % 3
    };
    (0..12).flat_map(place).collect()
}

/// The bad sectors after the first `boots` boots, each with the first id of the load that met it first.
fn bad_sectors(boots: u64) -> BTreeMap<u64, u64> {
    let of = |boot| goes_bad(boot).into_iter().map(move |sector| (sector, first_id(load(boot))));
    // The first boot in which it goes bad counts.
    (0..boots).rev().flat_map(of).collect()
}

fn bad_list(boots: u64) -> Vec<u64> {
    bad_sectors(boots).into_keys().collect()
}

/// When a load asks for the cut: after a number of acknowledgements drawn from the seed. In every other pair of boots these
/// are few, and it waits for the first after them that comes while a write is under way to what is bad and unmapped.
struct Moment {
    /// Nothing once it has come.
    left: Option<u64>,
    with_a_fault: bool,
    unmapped: BTreeSet<u64>,
    faults: BTreeMap<u64, Range<u64>>,
}

impl Moment {
    fn draw(ctx: &Ctx) -> Moment {
        let boot = ctx.phase as u64;
        let drawn = (ctx.seed ^ boot).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let with_a_fault = boot / 2 % 2 == 1;
        let left = Some(if with_a_fault { drawn % 40 } else { 20 + drawn % 200 });
        let mut unmapped = goes_bad(boot);
        unmapped.retain(|sector| !bad_sectors(boot).contains_key(sector));
        Moment { left, with_a_fault, unmapped, faults: BTreeMap::new() }
    }

    /// Whether it has come with this event.
    fn comes(&mut self, event: &Event) -> bool {
        match event {
            Event::Write { id, sectors, .. } => {
                if self.unmapped.range(sectors.clone()).next().is_some() {
                    self.faults.insert(*id, sectors.clone());
                }
                false
            }
            Event::Ok { id, contents } if contents.is_empty() => {
                if let Some(sectors) = self.faults.remove(id) {
                    self.unmapped.retain(|sector| !sectors.contains(sector));
                }
                let ripe = !self.with_a_fault || !self.faults.is_empty();
                match &mut self.left {
                    Some(0) if ripe => self.left.take().is_some(),
                    Some(left) => {
                        *left = left.saturating_sub(1);
                        false
                    }
                    None => false,
                }
            }
            _ => false,
        }
    }
}

fn load_until_the_cut_over_a_lying_disk(ctx: &mut Ctx) -> Result<()> {
    Steer::open(ctx, 3)?.lie(0)?;
    load_until_the_cut(ctx)
}

fn load_until_the_cut(ctx: &mut Ctx) -> Result<()> {
    let boot = ctx.phase as u64;
    let (bad, served) = serve(ctx)?;
    look_at_what_is_left(ctx, &served)?;

    let data = ctx.disk(0)?;
    let table = dm::table_with_bad_sectors(
        &data.display().to_string(),
        Open::open(&data)?.sectors()?,
        &bad_list(boot + 1),
    )?;
    bad.load(&table)?;
    bad.suspend()?;
    bad.resume()?;

    let mut journal = Journal::open(&ctx.disk(2)?, load(boot))?;
    let mut moment = Moment::draw(ctx);
    let workload = Workload {
        seed: ctx.seed.wrapping_add(boot << 16),
        requests: u64::MAX,
        sectors: SECTORS,
        block: 1,
        threads: THREADS,
        // A flush of the caller's hides one that the daemon has left out; without one, mappings must last all the same.
        syncs: boot % 2 == 0,
        first_id: first_id(load(boot)),
    };
    let mut emit = |event: &Event| {
        journal.line(&event.to_string()).map_err(io::Error::other)?;
        if moment.comes(event) {
            ctx.ask_for_cut().map_err(io::Error::other)?;
        }
        Ok(())
    };
    workload::run(&served.path(), &workload, &mut emit).context("the load")
}

fn after_the_last_cut(ctx: &mut Ctx) -> Result<()> {
    let (bad, served) = serve(ctx)?;
    look_at_what_is_left(ctx, &served)?;
    served.down()?;
    is_clean(&ctx.disk(1)?)?;
    bad.remove()
}

fn serve(ctx: &Ctx) -> Result<(Device, Served)> {
    let (data, spare) = (ctx.disk(0)?, ctx.disk(1)?);
    let bad = dm::disk_with_bad_sectors("bad", &data, &bad_list(ctx.phase as u64))?;
    if ctx.phase == 0 {
        let served = Served::new(bad.path(), &spare, "")?;
        return Ok((bad, served));
    }
    is_as_cut(&spare)?;
    served::configure(bad.path(), &spare, "")?;
    let served = Served::start()?;
    Ok((bad, served))
}

fn look_at_what_is_left(ctx: &Ctx, served: &Served) -> Result<()> {
    let region = look(ctx.phase as u64);
    let mut journal = Journal::open(&ctx.disk(2)?, region)?;
    let mut emit = |event: &Event| journal.line(&event.to_string()).map_err(io::Error::other);
    workload::read_back(&served.path(), SECTORS, 1, first_id(region), &mut emit)
        .context("reading what the cut has left")
}
