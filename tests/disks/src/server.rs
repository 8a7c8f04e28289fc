//! Volatile disks as NBD exports: nbdkit speaks NBD, our plugin (`examples/volatile_disk.rs`) is the disks,
//! and a control socket steers them. QEMU attaches a disk with [`Server::qemu_drive`].
//!
//! Both ends of the control socket are here: one JSON [`Command`] a line, answered by one JSON [`Answer`].

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::volatile::{Counters, CutReport, Medium, Power};

/// The export through which a guest steers the disks: what is written to its only block is a [`Command`], which has
/// been carried out when the write returns; reading it gives the [`Answer`]. Both are JSON padded with zeroes.
pub const CONTROL: &str = "control";
/// Size of that block, in bytes.
pub const CONTROL_SIZE: usize = 4096;

/// How long nbdkit may take to open its sockets.
const START: Duration = Duration::from_secs(10);

/// Which requests a bad sector fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Read,
    Write,
    Both,
}

/// What can be asked of the disks while they run. Ranges are sectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Waits so long for something that it can lose.
    Cut {
        seed: u64,
        patience: Duration,
    },
    On,
    Counters {
        disk: String,
    },
    Bad {
        disk: String,
        sectors: Range<u64>,
        side: Side,
    },
    Good {
        disk: String,
        sectors: Range<u64>,
    },
    LyingFlush {
        disk: String,
        lies: bool,
    },
    FailFlushes {
        disk: String,
        count: u32,
        lose: bool,
    },
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    Cut(CutReport),
    Counters(Counters),
    Error(String),
}

/// Carries out one command.
pub fn obey<M: Medium>(power: &Power<M>, command: Command) -> io::Result<Answer> {
    match command {
        Command::Cut { seed, patience } => return power.cut(seed, patience).map(Answer::Cut),
        Command::On => power.on(),
        Command::Counters { disk } => {
            return power.steer(&disk, |disk| Answer::Counters(disk.counters()));
        }
        Command::Bad { disk, sectors, side } => power.steer(&disk, |disk| {
            if side != Side::Write {
                disk.faults.bad_reads.add(sectors.clone());
            }
            if side != Side::Read {
                disk.faults.bad_writes.add(sectors);
            }
        })?,
        Command::Good { disk, sectors } => power.steer(&disk, |disk| {
            disk.faults.bad_reads.clear(&sectors);
            disk.faults.bad_writes.clear(&sectors);
        })?,
        Command::LyingFlush { disk, lies } => {
            power.steer(&disk, |disk| disk.faults.lying_flush = lies)?
        }
        Command::FailFlushes { disk, count, lose } => power.steer(&disk, |disk| {
            disk.faults.failing_flushes = count;
            disk.faults.losing_flush = lose;
        })?,
    }
    Ok(Answer::Done)
}

/// Answers commands, one connection at a time, for as long as the process lives.
pub fn listen<M: Medium>(listener: &UnixListener, power: &Power<M>) {
    for stream in listener.incoming().flatten() {
        if let Err(error) = converse(&stream, power) {
            eprintln!("control connection: {error}");
        }
    }
}

fn converse<M: Medium>(mut stream: &UnixStream, power: &Power<M>) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        writeln!(stream, "{}", serde_json::to_string(&answer(power, &line?))?)?;
    }
    Ok(())
}

/// Carries out a command in JSON, whatever comes of it.
pub fn answer<M: Medium>(power: &Power<M>, command: &str) -> Answer {
    match serde_json::from_str(command) {
        Ok(command) => {
            obey(power, command).unwrap_or_else(|error| Answer::Error(error.to_string()))
        }
        Err(error) => Answer::Error(format!("not a command: {error}")),
    }
}

/// A running nbdkit with disks on one power. Dropping it kills nbdkit; what was not flushed is lost.
pub struct Server {
    nbdkit: Child,
    socket: PathBuf,
    control: PathBuf,
}

impl Server {
    /// Serves raw images, named for their exports, over sockets made in `dir`. `plugin` is the built
    /// `libvolatile_disk.so`; see [`plugin_beside`].
    pub fn start(dir: &Path, plugin: &Path, disks: &[(&str, &Path)]) -> Result<Self> {
        let (socket, control) = (dir.join("nbd.sock"), dir.join("control.sock"));
        let nbdkit = std::process::Command::new("nbdkit")
            .args(["--foreground", "--exit-with-parent", "--unix"])
            .arg(&socket)
            .arg(plugin)
            .arg(format!("control={}", control.display()))
            .args(disks.iter().map(|(name, image)| format!("{name}={}", image.display())))
            .spawn()
            .context("starting nbdkit (Debian package nbdkit)")?;
        let mut server = Self { nbdkit, socket, control };
        let start = Instant::now();
        while !(server.socket.exists() && server.control.exists()) {
            if let Some(status) = server.nbdkit.try_wait()? {
                bail!("nbdkit ended at its start: {status}");
            }
            if start.elapsed() > START {
                bail!("nbdkit opened no sockets in {} within {START:?}", dir.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// The NBD URI of a disk, as qemu-io and qemu-img take it.
    pub fn uri(&self, disk: &str) -> String {
        format!("nbd+unix:///{disk}?socket={}", self.socket.display())
    }

    /// QEMU's arguments for a virtio-blk disk; `blocks` is the logical and physical block size, in bytes.
    pub fn qemu_drive(&self, disk: &str, blocks: u32) -> [String; 4] {
        let socket = self.socket.display();
        [
            "-drive".into(),
            format!(
                "file=nbd:unix:{socket}:exportname={disk},format=raw,if=none,id={disk},cache=none"
            ),
            "-device".into(),
            format!(
                "virtio-blk-pci,drive={disk},serial={disk},logical_block_size={blocks},physical_block_size={blocks}"
            ),
        ]
    }

    /// Cuts the power of all disks; see [`Power::cut`].
    pub fn cut(&self, seed: u64, patience: Duration) -> Result<CutReport> {
        match self.ask(&Command::Cut { seed, patience })? {
            Answer::Cut(report) => Ok(report),
            other => bail!("the cut with seed {seed} was answered by {other:?}"),
        }
    }

    /// What the disk was asked so far.
    pub fn counters(&self, disk: &str) -> Result<Counters> {
        match self.ask(&Command::Counters { disk: disk.into() })? {
            Answer::Counters(counters) => Ok(counters),
            other => bail!("the counters of {disk} were answered by {other:?}"),
        }
    }

    /// Any command; [`Answer::Error`] comes back as an error.
    pub fn ask(&self, command: &Command) -> Result<Answer> {
        let mut stream = UnixStream::connect(&self.control).context("connecting to the disks")?;
        writeln!(stream, "{}", serde_json::to_string(command)?)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        match serde_json::from_str(&line).with_context(|| format!("answer {line:?}"))? {
            Answer::Error(error) => bail!("{command:?}: {error}"),
            answer => Ok(answer),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when nbdkit has already ended.
        let _ = self.nbdkit.kill();
        let _ = self.nbdkit.wait();
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.control);
    }
}

/// The plugin in the build directory of the running program (`cargo build -p dmremap-disks --examples` puts it there).
pub fn plugin_beside() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let found = program
        .ancestors()
        .map(|dir| dir.join("examples/libvolatile_disk.so"))
        .find(|path| path.exists());
    found.with_context(|| format!("no examples/libvolatile_disk.so beside {}", program.display()))
}
