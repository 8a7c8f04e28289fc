//! What a case knows about its run, and its line to the host.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};

use crate::proto::{PORT, Said};

/// The serial port to the host.
pub(super) struct Port(File);

impl Port {
    /// Opens it raw: neither side echoes or edits lines.
    pub(super) fn open() -> Result<Self> {
        let port = OpenOptions::new().read(true).write(true).open(PORT).context(PORT)?;
        let mut settings = tcgetattr(&port)?;
        cfmakeraw(&mut settings);
        tcsetattr(&port, SetArg::TCSANOW, &settings)?;
        Ok(Self(port))
    }

    pub(super) fn reader(&self) -> Result<File> {
        Ok(self.0.try_clone()?)
    }

    /// Returns when the host has every byte, and so nothing can take the line back.
    pub(super) fn say(&mut self, said: &Said) -> Result<()> {
        self.0.write_all(format!("{said}\n").as_bytes()).context("telling the host")?;
        tcdrain(&self.0)?;
        Ok(())
    }
}

/// A case's run.
pub struct Ctx {
    /// Which boot of the case this is, from 0.
    pub phase: usize,
    /// For whatever the case wants random; shown by the host and replayed with `--seed`.
    pub seed: u64,
    /// What earlier phases acknowledged, in order.
    pub acks: Vec<String>,
    port: Port,
}

impl Ctx {
    pub(super) fn new(phase: usize, seed: u64, acks: Vec<String>) -> Result<Self> {
        Ok(Self { phase, seed, acks, port: Port::open()? })
    }

    /// Has the host record a line outside of the guest; it is there when this returns.
    pub fn ack(&mut self, text: impl Into<String>) -> Result<()> {
        self.port.say(&Said::Ack(text.into()))
    }

    /// A line for the log.
    pub fn note(&mut self, text: impl Into<String>) -> Result<()> {
        self.port.say(&Said::Note(text.into()))
    }

    /// Asks for the power cut, which comes at any moment from now on.
    pub fn ask_for_cut(&mut self) -> Result<()> {
        self.port.say(&Said::Cut)
    }

    /// Asks for the power cut and waits for it.
    pub fn cut(&mut self) -> Result<()> {
        self.ask_for_cut()?;
        std::thread::sleep(super::kernel::scaled(Duration::from_secs(60)));
        anyhow::bail!("the power was not cut")
    }

    /// The case's virtio disk with that index.
    pub fn disk(&self, index: u8) -> Result<PathBuf> {
        super::load_virtio_blk()?;
        let path = PathBuf::from(format!("/dev/vd{}", char::from(b'a' + index)));
        super::wait_until(&path.display().to_string(), Duration::from_secs(10), || {
            Ok(path.exists())
        })?;
        Ok(path)
    }
}
