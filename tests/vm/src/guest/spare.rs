//! A spare's parts by `daemon/FORMAT.md`, so that cases can damage them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cmd::Ended;
use super::dm::{self, Device};
use super::served::policyd;
use super::{Disk, disk::SECTOR};

/// First sectors of the superblock copies.
pub const COPIES: [u64; 5] = [0, 1024, 2048, 4096, 8192];
/// Sectors of a block, on disks of small physical blocks.
pub const BLOCK: u64 = 8;

/// Where the areas are, as `dump` says.
#[derive(Debug, Clone, Copy)]
pub struct Areas {
    pub slots: u64,
    pub slot_sectors: u64,
    mirrors: [u64; 2],
    log_blocks: u64,
    checkpoint_blocks: u64,
}

impl Areas {
    pub fn of(spare: &Path) -> Result<Self> {
        let dump = dump(spare)?;
        let geometry = &dump["geometry"];
        let number = |value: &Value| value.as_u64().context("no number in `dump`");
        Ok(Self {
            slots: number(&geometry["slots"])?,
            slot_sectors: number(&geometry["slot_sectors"])?,
            mirrors: [number(&geometry["mirrors"][0])?, number(&geometry["mirrors"][1])?],
            log_blocks: number(&geometry["log_blocks"])?,
            checkpoint_blocks: number(&geometry["checkpoint_blocks"])?,
        })
    }

    /// First sector of a block of a mirror's log.
    #[must_use]
    pub fn log(&self, mirror: usize, block: u64) -> u64 {
        self.mirrors[mirror] + block * BLOCK
    }

    /// First sector of a block of one of a mirror's two checkpoint areas.
    #[must_use]
    pub fn checkpoint(&self, mirror: usize, area: u64, block: u64) -> u64 {
        self.log(mirror, self.log_blocks + area * self.checkpoint_blocks + block)
    }

    /// Every sector of a mirror's log and of both its checkpoint areas.
    #[must_use]
    pub fn mirror(&self, mirror: usize) -> std::ops::Range<u64> {
        self.log(mirror, 0)..self.checkpoint(mirror, 2, 0)
    }
}

/// The sectors of the blocks that begin there.
#[must_use]
pub fn blocks(starts: &[u64]) -> Vec<u64> {
    starts.iter().flat_map(|&start| start..start + BLOCK).collect()
}

pub fn dump(spare: &Path) -> Result<Value> {
    let text = policyd(&["dump", "--json", &spare.display().to_string()])?.run()?;
    serde_json::from_str(&text).context("what `dump` wrote")
}

/// `check`, however it ends.
pub fn check(spare: &Path) -> Result<Ended> {
    policyd(&["check", &spare.display().to_string()])?.end()
}

/// `check` finds nothing wrong.
pub fn is_clean(spare: &Path) -> Result<()> {
    let checked = check(spare)?;
    let clean = checked.status.success() && checked.stdout.ends_with("clean\n");
    ensure!(clean, "{}: not clean: {}{}", spare.display(), checked.stdout, checked.stderr);
    Ok(())
}

/// `check` finds nothing but superblock copies that a cut has kept the newest from. The next opening writes them all.
pub fn is_as_cut(spare: &Path) -> Result<()> {
    let checked = check(spare)?;
    let mut lines: Vec<&str> = checked.stdout.lines().filter(|l| !l.starts_with(' ')).collect();
    let verdict = lines.pop().unwrap_or_default();
    let extents = lines.pop().unwrap_or_default();
    let left =
        |line: &&str| line.starts_with("superblock copy ") || line.starts_with("label: is in");
    let sound = verdict == "clean" || verdict.starts_with("usable, ") && lines.iter().all(left);
    ensure!(
        sound && extents.contains(" extents, commit "),
        "{}: not as a cut leaves it: {}{}",
        spare.display(),
        checked.stdout,
        checked.stderr
    );
    Ok(())
}

/// A command that must end with that status, and say these words.
pub fn says(args: &[&str], code: i32, words: &str) -> Result<()> {
    let ended = policyd(args)?.end()?;
    ensure!(
        ended.status.code() == Some(code) && (ended.stdout.clone() + &ended.stderr).contains(words),
        "{args:?} should end with {code} and say {words:?}, and ended with {}: {}{}",
        ended.status,
        ended.stdout,
        ended.stderr
    );
    Ok(())
}

/// A disk below a mapped device of its own, in which other sectors can be made to fail at any time.
pub struct Frail {
    pub device: Device,
    below: String,
    sectors: u64,
}

impl Frail {
    pub fn new(name: &str, below: &Path) -> Result<Self> {
        Self::of_size(name, below, Disk::open(below)?.sectors()?)
    }

    /// Its first sectors only.
    pub fn of_size(name: &str, below: &Path, sectors: u64) -> Result<Self> {
        let below = below.display().to_string();
        let device = Device::create(name, &format!("0 {sectors} linear {below} 0\n"))?;
        Ok(Self { device, below, sectors })
    }

    /// From now on exactly these sectors fail.
    pub fn fail(&self, bad: &[u64]) -> Result<()> {
        self.change(&dm::table_with_bad_sectors(&self.below, self.sectors, bad)?)
    }

    /// From now on everything fails.
    pub fn fail_all(&self) -> Result<()> {
        self.change(&format!("0 {} error\n", self.sectors))
    }

    fn change(&self, table: &str) -> Result<()> {
        self.device.load(table)?;
        self.device.suspend()?;
        self.device.resume()
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.device.path()
    }
}

/// Everything on a disk, to be put back later.
#[derive(PartialEq, Eq)]
pub struct Image(Vec<u8>);

/// Sectors of one transfer.
const CHUNK: usize = 2048;

impl Image {
    pub fn of(disk: &Path) -> Result<Self> {
        let disk = Disk::open(disk)?;
        let sectors = usize::try_from(disk.sectors()?)?;
        let mut bytes = Vec::with_capacity(sectors * SECTOR);
        for at in (0..sectors).step_by(CHUNK) {
            bytes.extend(disk.read(at as u64, CHUNK.min(sectors - at))?);
        }
        Ok(Self(bytes))
    }

    pub fn put(&self, disk: &Path) -> Result<()> {
        let disk = Disk::open(disk)?;
        for (chunk, at) in self.0.chunks(CHUNK * SECTOR).zip((0..).step_by(CHUNK)) {
            disk.write(at, chunk)?;
        }
        disk.flush()?;
        Ok(())
    }

    /// The block that begins at a sector.
    pub fn block(&self, start: u64) -> Result<&[u8]> {
        let at = usize::try_from(start)? * SECTOR;
        self.0.get(at..at + BLOCK as usize * SECTOR).context("a block beyond the disk")
    }
}
