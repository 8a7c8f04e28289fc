//! Writers over bad sectors that know what was acknowledged. Each sector has one writer, so what it must read as is
//! known exactly: the version acknowledged last.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::{Disk, pattern, wait_until};

const WRITERS: u64 = 4;
/// A writer may touch this many sectors before a run of bad ones, and behind it.
const MARGIN: u64 = 3;
/// Between two writes of a writer, so that there are bad sectors left for every round of a case.
const PAUSE: Duration = Duration::from_millis(2);

/// Version by sector.
pub type Acknowledged = BTreeMap<u64, u64>;

/// Runs of bad sectors.
pub type Runs = Vec<(u64, u64)>;

/// `count` runs of 1 to 4 bad sectors, one every `step` from `first` on.
#[must_use]
pub fn runs(first: u64, count: u64, step: u64) -> Runs {
    (0..count).map(|i| (first + i * step, 1 + i % 4)).collect()
}

#[must_use]
pub fn sectors(runs: &[(u64, u64)]) -> Vec<u64> {
    runs.iter().flat_map(|&(start, len)| start..start + len).collect()
}

/// The same numbers from the same seed.
pub struct Random(u64);

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

struct Writer {
    number: u64,
    plain: Disk,
    durable: Disk,
    runs: Runs,
    /// Runs that were written to so far.
    met: usize,
    random: Random,
    acknowledged: Acknowledged,
    versions: u64,
}

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<Acknowledged>>>,
}

impl Load {
    pub fn start(device: &Path, runs: &[(u64, u64)], seed: u64) -> Result<Load> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let mine = runs.iter().skip(number as usize).step_by(WRITERS as usize);
            let writer = Writer {
                number,
                plain: Disk::open(device)?,
                durable: Disk::open_durable(device)?,
                runs: mine.copied().collect(),
                met: 0,
                random: Random::new(seed ^ number << 32),
                acknowledged: Acknowledged::new(),
                versions: 0,
            };
            let (stop, done) = (stop.clone(), done.clone());
            writers.push(thread::spawn(move || writer.work(&stop, &done)));
        }
        Ok(Load { stop, done, writers })
    }

    /// Waits for so many more acknowledgements.
    pub fn progress(&self, writes: u64, limit: Duration) -> Result<()> {
        let wanted = self.done.load(Ordering::Relaxed) + writes;
        wait_until("the writers' progress", limit, || {
            let ended = self.writers.iter().any(JoinHandle::is_finished);
            Ok(ended || self.done.load(Ordering::Relaxed) >= wanted)
        })
    }

    /// Ends it; the first error that a writer met is this one's.
    pub fn stop(self) -> Result<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::new();
        for writer in self.writers {
            all.extend(writer.join().map_err(|_| anyhow!("a writer panicked"))??);
        }
        Ok(all)
    }
}

impl Writer {
    fn work(mut self, stop: &AtomicBool, done: &AtomicU64) -> Result<Acknowledged> {
        while !stop.load(Ordering::Relaxed) {
            self.step().with_context(|| format!("writer {}", self.number))?;
            done.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
        Ok(self.acknowledged)
    }

    /// Mostly a run not met before; the others are written over.
    fn step(&mut self) -> Result<()> {
        let fresh = self.met < self.runs.len() && (self.met == 0 || self.random.below(10) < 7);
        let index = match fresh {
            true => self.met,
            false => self.random.below(self.met as u64) as usize,
        };
        self.met += usize::from(fresh);
        let (start, len) = self.runs[index];
        let start = start - self.random.below(MARGIN + 1);
        let len = len + self.random.below(MARGIN + 1);
        self.versions += 1;
        let version = self.number << 32 | self.versions;
        let disk = if self.random.below(4) == 0 { &self.durable } else { &self.plain };
        disk.fill(start, len as usize, version)?;
        self.acknowledged.extend((start..start + len).map(|sector| (sector, version)));
        match self.random.below(8) {
            0 => self.plain.flush().context("a flush")?,
            1 => disk.verify(start, len as usize, version)?,
            _ => {}
        }
        Ok(())
    }
}

/// Every sector reads as what was acknowledged last.
pub fn verify(disk: &Disk, acknowledged: &Acknowledged) -> Result<()> {
    let mut left: Vec<(u64, u64)> = acknowledged.iter().map(|(&s, &v)| (s, v)).collect();
    while let Some(&(start, _)) = left.first() {
        let together = (start..).zip(&left).take_while(|(at, (sector, _))| at == sector).count();
        let bytes = disk.read(start, together).with_context(|| format!("reading {start}"))?;
        let found = bytes.chunks_exact(super::disk::SECTOR);
        for ((sector, version), bytes) in left.drain(..together).zip(found) {
            pattern::check(bytes, sector, version)?;
        }
    }
    Ok(())
}
