//! What can be asked of a kernel's side, and all that it answers.

use anyhow::{Context, Result, bail};
use dmremap_protocol::{Extent, FaultInfo, InstanceInfo, Message, Request};

/// The device, and the options of its table.
#[derive(Debug, Clone)]
pub struct Config {
    pub sectors: u64,
    pub spare: u64,
    pub hold_ms: u64,
    pub ready_ms: u64,
    pub max_held: u64,
    pub queue_unowned: bool,
    /// Bad sectors say that the medium is bad; otherwise nothing.
    pub says_medium: bool,
    /// The disks have no FUA themselves.
    pub emulated_fua: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            sectors: 2048,
            spare: 4096,
            hold_ms: 60_000,
            ready_ms: 60_000,
            max_held: 1024,
            queue_unowned: false,
            says_medium: false,
            emulated_fua: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Data,
    Spare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    ReadAhead,
    Write,
    /// With FUA.
    Durable,
    Flush,
}

/// An application's I/O; a write's content is its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    pub id: u64,
    pub access: Access,
    pub start: u64,
    pub len: u64,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// On a socket.
    Ask {
        port: u32,
        request: Request,
    },
    /// The socket ends.
    Close {
        port: u32,
    },
    Io(Io),
    Rest {
        ms: u64,
    },
    /// Sectors fail from now on, or work again.
    Bad {
        disk: Disk,
        start: u64,
        len: u64,
        reads: bool,
        writes: bool,
    },
    /// The disk does not answer for now.
    Stall {
        disk: Disk,
        stalls: bool,
    },
    /// So many of the disk's next flushes fail, whatever was said before.
    FailFlushes {
        disk: Disk,
        flushes: u32,
    },
    /// The next request's allocation of that number, from 1, finds no memory.
    NoMemory {
        nth: u64,
    },
    Suspend {
        noflush: bool,
    },
    /// Nothing unless it is suspended.
    Resume,
    Look {
        start: u64,
        len: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    Medium,
    Io,
    Other,
}

/// An I/O of an application has ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ended {
    pub id: u64,
    pub status: Status,
    /// Of a read that succeeded, sector by sector: who wrote it; none if nobody wrote that there.
    pub found: Vec<Option<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Data,
    Spare,
    Fenced,
    Poisoned,
}

/// What a lookup finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub what: What,
    /// On its disk.
    pub sector: Option<u64>,
    pub len: u64,
}

/// What a step led to, once nothing more happens by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Messages, or the number of the refusal.
    pub answer: Option<Result<Vec<Message>, i32>>,
    pub look: Option<Look>,
    /// In their order.
    pub ended: Vec<Ended>,
    /// The doorbell.
    pub rang: bool,
}

/// All that can be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub instance: InstanceInfo,
    pub faults: Vec<FaultInfo>,
    /// And the retired slots.
    pub extents: Vec<Extent>,
}

/// A kernel's side with one instance, numbered 1, that nobody has claimed.
pub trait Side {
    fn step(&mut self, step: &Step) -> Result<Outcome>;
    /// Seen by a socket that is not the owner's.
    fn state(&mut self) -> Result<State>;
}

/// The port of the socket that looks on.
pub const ONLOOKER: u32 = 9;

/// Lists everything.
pub fn list(
    instance: u32,
    mut ask: impl FnMut(Request) -> Result<Result<Vec<Message>, i32>>,
) -> Result<State> {
    let mut asked = |request: Request| {
        let answer = ask(request.clone())?;
        answer.map_err(|errno| anyhow::anyhow!("{request:?} is refused: {errno}"))
    };
    let mut infos = Vec::new();
    let mut faults = Vec::new();
    for message in asked(Request::FaultGet { instance })? {
        match message {
            Message::Instance(info) => infos.push(info),
            Message::Fault(fault) => faults.push(fault),
            other => bail!("in the list of faults: {other:?}"),
        }
    }
    let mut extents = Vec::new();
    for message in asked(Request::ExtentGet { instance })? {
        match message {
            Message::Extents { extents: more, .. } => extents.extend(more),
            other => bail!("in the list of extents: {other:?}"),
        }
    }
    Ok(State { instance: infos.pop().context("no instance")?, faults, extents })
}

/// The lines in which two values differ when they are written out.
pub fn differences(found: &impl std::fmt::Debug, expected: &impl std::fmt::Debug) -> String {
    let (found, expected) = (format!("{found:#?}"), format!("{expected:#?}"));
    let (found, expected): (Vec<_>, Vec<_>) = (found.lines().collect(), expected.lines().collect());
    let mut out = String::new();
    for at in 0..found.len().max(expected.len()) {
        let (a, b) = (found.get(at).unwrap_or(&""), expected.get(at).unwrap_or(&""));
        if a != b {
            out += &format!("\n  {} and not {}", a.trim(), b.trim());
        }
    }
    out
}
