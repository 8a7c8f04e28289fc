//! What the core hears and what it asks for.
//!
//! Every action that has an answer gets exactly one, errors and lost claims included. Requests to
//! the kernel are sent in the order given and answered in that order; reads, flushes and commits
//! may be answered whenever they end.

use std::time::Duration;

use serde::Serialize;

use super::durable::Durable;
use super::policy::Policy;
use crate::table::{Change, Extent, Kind};
use crate::units::{Sector, Sectors, Slot};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// Names one [`Action::Read`], so that an answer that comes late is known as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// `enum dm_remap_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Ok,
    Medium,
    IoErr,
    Other,
    NotDone,
}

/// `enum dm_remap_fault_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Open,
    Busy,
    Placed,
}

/// `enum dm_remap_fault_flags`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Flags {
    pub write: bool,
    pub held: bool,
    pub pinned: bool,
    pub fence: bool,
    pub heal: bool,
}

/// A piece of a fault; no kind is DIRECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Piece {
    pub offset: Sectors,
    pub len: Sectors,
    pub kind: Option<Kind>,
}

/// A fault or fence as FAULT_GET shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: FaultId,
    pub start: Sector,
    pub len: Sectors,
    pub state: State,
    pub flags: Flags,
    pub status: Status,
    /// What is left of the held bio's time.
    pub deadline: Option<Duration>,
    /// Of the last TRY or PLACE, each with the result of its I/O.
    pub pieces: Vec<(Piece, Status)>,
}

impl Listed {
    /// The kernel has retired a slot of its last PLACE.
    pub fn slot_failed(&self) -> bool {
        let failed = |(piece, status): &(Piece, Status)| {
            matches!(piece.kind, Some(Kind::Mapped(_))) && *status != Status::Ok
        };
        self.pieces.iter().any(failed)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    pub id: u32,
    pub ready: bool,
    pub sectors: Sectors,
    /// Its logical block.
    pub block: Sectors,
    pub spare_flush_fails: u64,
    /// No flush of the spare has succeeded since one failed.
    pub spare_flush_bad: bool,
}

/// The slot area of the spare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    pub start: Slot,
    pub len: Sectors,
    pub unit: Sectors,
}

/// An error of a request to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// ESRCH
    NoInstance,
    /// EACCES
    NotOwner,
    /// ENOENT
    NoFault,
    /// EBUSY
    Busy,
    /// ESTALE
    Stale,
    /// EEXIST
    Exists,
    /// ENOMEM
    NoMemory,
    /// EINVAL, ERANGE and whatever else says that the request was wrong.
    Invalid,
    /// The answer never came.
    Link,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFailure {
    /// It may or may not be durable; the same is restated.
    Unknown,
    /// Nothing was written: the log has no room.
    Full,
    /// It may or may not be durable, and no mirror can be written any more.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Data(Sector),
    Spare(Slot),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub at: At,
    pub len: Sectors,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    Extent(Extent),
    Retired { slot: Slot, len: Sectors },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The instance is there.
    Instance(Instance),
    /// The instance is no longer there.
    Gone,
    /// The claim was lost while the instance stays.
    OwnerLost,
    Doorbell,
    /// The time of the last [`Action::SetTimer`] has come.
    Tick,
    PolicyChanged(Policy),
    Claimed(Result<(), Refusal>),
    Loaded(Result<(), Refusal>),
    ReadyDone(Result<(), Refusal>),
    /// Answers [`Action::ListRetired`].
    RetiredListed(Result<Vec<(Slot, Sectors)>, Refusal>),
    /// Answers [`Action::List`].
    FaultsListed(Result<(Instance, Vec<Listed>), Refusal>),
    /// Answers Try, Place, Release and Fail.
    VerdictDone {
        fault: FaultId,
        result: Result<(), Refusal>,
    },
    InstallDone(Result<(), Refusal>),
    /// One result a span. Offline and transport errors are [`Status::Other`].
    ReadDone {
        id: ReadId,
        results: Vec<Status>,
    },
    FlushDone {
        ok: bool,
    },
    /// A flush of the spare has failed, whatever it was for, and the kernel knows; comes before the answer to that.
    FlushFailed,
    /// Answers Commit and Restate.
    CommitDone(Result<Durable, CommitFailure>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Claim {
        commit: u64,
        area: Area,
    },
    Load(Vec<Load>),
    Ready,
    ListRetired,
    List,
    Try {
        fault: FaultId,
        pieces: Vec<Piece>,
    },
    Place {
        fault: FaultId,
        pieces: Vec<Piece>,
    },
    Install {
        proof: Durable,
        faults: Vec<FaultId>,
    },
    Release {
        fault: FaultId,
    },
    Fail {
        fault: FaultId,
    },
    /// Reads each span directly from its device, again up to `retries` times while it fails. What has not been
    /// begun `until` then is not done: its fault has ended.
    Read {
        id: ReadId,
        spans: Vec<Span>,
        retries: u32,
        until: Option<Duration>,
    },
    FlushSpare,
    Commit(Vec<Change>),
    Restate,
    Alarm {
        alarm: Alarm,
        text: String,
    },
    /// Replaces the timer that was set before.
    SetTimer(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alarm {
    SpareLow,
    SpareFull,
    SpareFlush,
    LogFull,
    MetadataDead,
    Storm,
    StormOver,
    Refused,
}
