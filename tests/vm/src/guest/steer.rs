//! Steering a case's volatile disks from inside the guest.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use dmremap_disks::server::{Answer, CONTROL_SIZE, Command, Side};
use dmremap_disks::volatile::Counters;

use super::disk::SECTOR;
use super::{Ctx, Disk};

/// The disk for control of a case.
pub struct Steer(Disk);

impl Steer {
    /// By its index among the case's disks.
    pub fn open(ctx: &Ctx, index: u8) -> Result<Self> {
        Ok(Self(Disk::open(ctx.disk(index)?)?))
    }

    /// Returns when the command has been carried out.
    pub fn ask(&self, command: &Command) -> Result<Answer> {
        let mut bytes = serde_json::to_vec(command)?;
        bytes.resize(CONTROL_SIZE, 0);
        self.0.write(0, &bytes).context("steering the disks")?;
        let bytes = self.0.read(0, CONTROL_SIZE / SECTOR).context("steering the disks")?;
        let text = String::from_utf8_lossy(&bytes);
        match serde_json::from_str(text.trim_end_matches('\0')).context("the disks' answer")? {
            Answer::Error(error) => bail!("{command:?}: {error}"),
            answer => Ok(answer),
        }
    }

    /// What the case's disk of that index was asked so far.
    pub fn counters(&self, index: u8) -> Result<Counters> {
        match self.ask(&Command::Counters { disk: name(index) })? {
            Answer::Counters(counters) => Ok(counters),
            other => bail!("counters were asked for, and the answer is {other:?}"),
        }
    }

    /// These sectors of it fail from now on, until somebody says otherwise.
    pub fn bad(&self, index: u8, sectors: Range<u64>, side: Side) -> Result<()> {
        self.ask(&Command::Bad { disk: name(index), sectors, side }).map(drop)
    }

    /// So many of its flushes fail from now on.
    pub fn fail_flushes(&self, index: u8, count: u32) -> Result<()> {
        self.ask(&Command::FailFlushes { disk: name(index), count, lose: false }).map(drop)
    }

    /// Its next flush fails, and loses what it was to make durable.
    pub fn lose_at_flush(&self, index: u8) -> Result<()> {
        self.ask(&Command::FailFlushes { disk: name(index), count: 1, lose: true }).map(drop)
    }

    /// Its flushes do nothing from now on, and say that all is well.
    pub fn lie(&self, index: u8) -> Result<()> {
        self.ask(&Command::LyingFlush { disk: name(index), lies: true }).map(drop)
    }
}

/// As the host names it.
fn name(index: u8) -> String {
    format!("disk{index}")
}
