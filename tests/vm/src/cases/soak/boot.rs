//! One boot of a soak.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dmremap_disks::iocheck::Event;
use dmremap_disks::iocheck::workload::{self, Workload};

use super::act::{FRUGAL, Scene};
use super::judge::Line;
use super::{CONTROL, DATA_SECTORS, plan, region};
use crate::guest::journal::Journal;
use crate::guest::served::{self, Served};
use crate::guest::spare::{Areas, is_as_cut, is_clean};
use crate::guest::steer::Steer;
use crate::guest::{Ctx, wait_until};

pub type Rounds = u64;

const THREADS: u64 = 6;
/// Of a round.
const REQUESTS: u64 = 240;
const PATIENCE: Duration = Duration::from_secs(120);
/// Ids of a boot begin with its number times this, and those of a round with its number times the other.
const BOOT_IDS: u64 = 10_000_000;
const ROUND_IDS: u64 = 100_000;

/// How far the load has come.
#[derive(Default)]
struct Progress {
    answered: AtomicU64,
    ended: AtomicBool,
    /// An act has failed: there is nothing to wait for.
    failed: AtomicBool,
}

struct Boot<'a> {
    ctx: &'a mut Ctx,
    number: u64,
    scene: Scene,
    journal: Mutex<Journal>,
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn each_over_a_lying_disk(ctx: &mut Ctx, rounds: Rounds) -> Result<()> {
    Steer::open(ctx, CONTROL)?.lie(0)?;
    each(ctx, rounds)
}

/// Looks at what the last cut has left, goes through so many rounds, and does not come to the end of another one.
pub fn each(ctx: &mut Ctx, rounds: Rounds) -> Result<()> {
    let mut boot = Boot::begin(ctx)?;
    boot.look()?;
    for round in 1..=rounds {
        boot.round(round, false).with_context(|| format!("round {round}"))?;
        let sample = boot.scene.sample()?;
        lock(&boot.journal).line(&Line::Sample(sample).to_string())?;
    }
    boot.round(rounds + 1, true)
}

/// Looks at what the last cut has left, and ends in good order.
pub fn last(ctx: &mut Ctx) -> Result<()> {
    let mut boot = Boot::begin(ctx)?;
    boot.look()?;
    let sample = boot.scene.sample()?;
    lock(&boot.journal).line(&Line::Sample(sample).to_string())?;
    let Scene { served, disks, .. } = boot.scene;
    served.down()?;
    is_clean(&disks[1])
}

impl<'a> Boot<'a> {
    fn begin(ctx: &'a mut Ctx) -> Result<Self> {
        let number = ctx.phase as u64 / 2;
        let disks: [PathBuf; 2] = [ctx.disk(0)?, ctx.disk(1)?];
        match number {
            0 => drop(served::format(&disks[0], &disks[1])?),
            _ => is_as_cut(&disks[1])?,
        }
        Scene::configure(&disks, "")?;
        let served = Served::start_in_env(1, &FRUGAL)?;
        let slots = Areas::of(&disks[1])?;
        let steer = Steer::open(ctx, CONTROL)?;
        let journal = Mutex::new(Journal::in_sectors(&ctx.disk(2)?, region(number))?);
        Ok(Self { ctx, number, scene: Scene { served, disks, steer, slots }, journal })
    }

    fn first_id(&self, round: u64) -> u64 {
        self.number * BOOT_IDS + round * ROUND_IDS + 1
    }

    /// Every sector is read.
    fn look(&mut self) -> Result<()> {
        let mut emit =
            |event: &Event| lock(&self.journal).line(&event.to_string()).map_err(io::Error::other);
        let (path, id) = (self.scene.served.path(), self.first_id(0));
        workload::read_back(&path, 0..DATA_SECTORS, 1, id, &mut emit)
            .context("reading what there is")
    }

    /// The load, and the acts one after the other; of the round that is cut nobody sees the end.
    fn round(&mut self, round: u64, cut: bool) -> Result<()> {
        let (seed, number) = (self.ctx.seed, self.number);
        let workload = Workload {
            seed: seed ^ number << 32 ^ round,
            requests: if cut { u64::MAX } else { REQUESTS },
            sectors: 0..DATA_SECTORS,
            block: 1,
            threads: THREADS,
            // A flush of the caller's hides one that the daemon has left out.
            syncs: round % 2 == 0,
            first_id: self.first_id(round),
        };
        let path = self.scene.served.path();
        let progress = Progress::default();
        let (journal, scene, ctx) = (&self.journal, &mut self.scene, &mut *self.ctx);
        let cut_at = if cut { plan::cut_after(seed, number) } else { u64::MAX };
        let mut emit = |event: &Event| {
            lock(journal).line(&event.to_string()).map_err(io::Error::other)?;
            if progress.failed.load(Ordering::Relaxed) {
                return Err(io::Error::other("an act has failed"));
            }
            if matches!(event, Event::Ok { .. } | Event::Error { .. }) {
                let answered = progress.answered.fetch_add(1, Ordering::Relaxed) + 1;
                if answered == cut_at {
                    ctx.ask_for_cut().map_err(io::Error::other)?;
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let progress = &progress;
            let acting = scope.spawn(move || acts(scene, journal, progress, seed, number, round));
            let loaded = workload::run(&path, &workload, &mut emit).context("the load");
            progress.ended.store(true, Ordering::Relaxed);
            let acted = acting.join().unwrap_or_else(|_| bail!("an act panicked"));
            acted.and(loaded)
        })
    }
}

fn acts(
    scene: &mut Scene,
    journal: &Mutex<Journal>,
    progress: &Progress,
    seed: u64,
    boot: u64,
    round: u64,
) -> Result<()> {
    let tell = |line: Line| lock(journal).line(&line.to_string());
    let answered = || progress.answered.load(Ordering::Relaxed);
    for (index, (after, act)) in plan::round(seed, boot, round).into_iter().enumerate() {
        let wanted = answered() + after;
        wait_until("the load's progress", PATIENCE, || {
            Ok(answered() >= wanted || progress.ended.load(Ordering::Relaxed))
        })?;
        let mut dice = plan::dice(seed, boot, round, index as u64);
        scene.act(act, &mut dice, &tell).with_context(|| format!("{act:?}"))?;
    }
    Ok(())
}
