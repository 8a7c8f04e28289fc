//! The core's words in the kernel's, and back.

use std::time::Duration;

use dmremap_protocol::uapi::{
    FaultFlags, FaultState, InstanceFlags, Kind as Wire, Status as Ended,
};
use dmremap_protocol::{self as wire, FaultInfo, InstanceInfo, Message, Request, SlotArea};
use nix::libc;

use crate::core::{
    Action, Area, Event, FaultId, Flags, Instance, Listed, Load, Piece, Refusal, State, Status,
};
use crate::link::LinkError;
use crate::metadata::Failures;
use crate::table::Kind;
use crate::units::{Sector, Sectors, Slot};

type Answer = Result<Vec<Message>, LinkError>;

/// The request that the action stands for; none for one that is not the kernel's.
pub fn request(instance: u32, action: &Action) -> Option<Request> {
    Some(match action {
        Action::Claim { commit, area } => {
            Request::Claim { instance, slots: slot_area(area), commit: *commit }
        }
        Action::Load(extents) => {
            Request::Load { instance, extents: extents.iter().map(extent).collect() }
        }
        Action::Ready => Request::Ready { instance },
        Action::ListRetired => Request::ExtentGet { instance },
        Action::List => Request::FaultGet { instance },
        Action::Try { fault, pieces } => {
            Request::Try { instance, fault: fault.0, pieces: pieces.iter().map(piece).collect() }
        }
        Action::Place { fault, pieces } => {
            Request::Place { instance, fault: fault.0, pieces: pieces.iter().map(piece).collect() }
        }
        Action::Install { proof, faults } => Request::Install {
            instance,
            commit: proof.sequence(),
            faults: faults.iter().map(|fault| fault.0).collect(),
        },
        Action::Release { fault } => Request::Release { instance, fault: fault.0 },
        Action::Fail { fault } => Request::Fail { instance, fault: fault.0 },
        Action::Read { .. }
        | Action::FlushSpare
        | Action::Commit(_)
        | Action::Restate
        | Action::Alarm { .. }
        | Action::SetTimer(_) => return None,
    })
}

/// What the kernel's answer to the action's request means to the core; none for an action that is
/// not the kernel's.
pub fn event(action: &Action, answer: Answer) -> Option<Event> {
    let done = |answer: Answer| answer.map(drop).map_err(|error| refusal(&error));
    Some(match *action {
        Action::Claim { .. } => Event::Claimed(done(answer)),
        Action::Load(_) => Event::Loaded(done(answer)),
        Action::Ready => Event::ReadyDone(done(answer)),
        Action::Install { .. } => Event::InstallDone(done(answer)),
        Action::Try { fault, .. }
        | Action::Place { fault, .. }
        | Action::Release { fault }
        | Action::Fail { fault } => Event::VerdictDone { fault, result: done(answer) },
        Action::ListRetired => {
            Event::RetiredListed(answer.map(retired).map_err(|error| refusal(&error)))
        }
        Action::List => {
            Event::FaultsListed(answer.map_err(|error| refusal(&error)).and_then(faults))
        }
        _ => return None,
    })
}

pub fn instance(info: &InstanceInfo) -> Instance {
    Instance {
        id: info.instance,
        ready: info.flags.contains(InstanceFlags::READY),
        sectors: Sectors(info.sectors),
        block: Sectors(info.block.into()),
        spare_flush_fails: info.counters.spare_flush_fails,
        spare_flush_bad: info.flags.contains(InstanceFlags::SPARE_FLUSH_BAD),
    }
}

/// Of the flushes of the spare that it has sent. Each load of the module numbers its instances from 1.
pub fn failures(family: u16, user: &InstanceInfo) -> Failures {
    let sender = (family, user.instance);
    Failures { sender, count: user.counters.spare_flush_errors }
}

fn refusal(error: &LinkError) -> Refusal {
    match error.errno() {
        None => Refusal::Link,
        Some(libc::ESRCH) => Refusal::NoInstance,
        Some(libc::EACCES) => Refusal::NotOwner,
        Some(libc::ENOENT) => Refusal::NoFault,
        Some(libc::EBUSY) => Refusal::Busy,
        Some(libc::ESTALE) => Refusal::Stale,
        Some(libc::EEXIST) => Refusal::Exists,
        Some(libc::ENOMEM) => Refusal::NoMemory,
        Some(_) => Refusal::Invalid,
    }
}

fn slot_area(area: &Area) -> SlotArea {
    SlotArea { start: area.start.0, sectors: area.len.0, unit: narrow(area.unit) }
}

fn extent(load: &Load) -> wire::Extent {
    match *load {
        Load::Extent(extent) => {
            let (kind, slot) = kind(Some(extent.kind));
            wire::Extent { start: extent.start.0, slot, len: narrow(extent.len), kind }
        }
        Load::Retired { slot, len } => {
            wire::Extent { start: 0, slot: slot.0, len: narrow(len), kind: Wire::Retired }
        }
    }
}

fn piece(piece: &Piece) -> wire::Piece {
    let (kind, slot) = kind(piece.kind);
    let (offset, len) = (narrow(piece.offset), narrow(piece.len));
    wire::Piece { offset, len, slot, kind, result: Ended::Ok }
}

fn kind(kind: Option<Kind>) -> (Wire, u64) {
    match kind {
        None => (Wire::Direct, 0),
        Some(Kind::Mapped(slot)) => (Wire::Mapped, slot.0),
        Some(Kind::PoisonData) => (Wire::PoisonData, 0),
        Some(Kind::PoisonSlot(slot)) => (Wire::PoisonSlot, slot.0),
    }
}

/// A length that is too long for the wire is too long for any device, and refused by the kernel.
fn narrow(len: Sectors) -> u32 {
    u32::try_from(len.0).unwrap_or(u32::MAX)
}

fn retired(messages: Vec<Message>) -> Vec<(Slot, Sectors)> {
    let extents = messages.into_iter().flat_map(|message| match message {
        Message::Extents { extents, .. } => extents,
        _ => Vec::new(),
    });
    let retired = extents.filter(|extent| extent.kind == Wire::Retired);
    retired.map(|extent| (Slot(extent.slot), Sectors(extent.len.into()))).collect()
}

/// The instance comes first in a list of its faults.
fn faults(messages: Vec<Message>) -> Result<(Instance, Vec<Listed>), Refusal> {
    let mut messages = messages.into_iter();
    let Some(Message::Instance(info)) = messages.next() else { return Err(Refusal::Link) };
    let listed = messages.filter_map(|message| match message {
        Message::Fault(fault) => Some(listed(&fault)),
        _ => None,
    });
    Ok((instance(&info), listed.collect()))
}

fn listed(fault: &FaultInfo) -> Listed {
    let pieces = fault.pieces.iter().map(|piece| {
        let slot = Slot(piece.slot);
        let kind = match piece.kind {
            Wire::Direct | Wire::Retired => None,
            Wire::Mapped => Some(Kind::Mapped(slot)),
            Wire::PoisonData => Some(Kind::PoisonData),
            Wire::PoisonSlot => Some(Kind::PoisonSlot(slot)),
        };
        let (offset, len) = (Sectors(piece.offset.into()), Sectors(piece.len.into()));
        (Piece { offset, len, kind }, status(piece.result))
    });
    Listed {
        id: FaultId(fault.id),
        start: Sector(fault.start),
        len: Sectors(fault.len),
        state: match fault.state {
            FaultState::Open => State::Open,
            FaultState::Busy => State::Busy,
            FaultState::Placed => State::Placed,
        },
        flags: Flags {
            write: fault.flags.contains(FaultFlags::WRITE),
            held: fault.flags.contains(FaultFlags::HELD),
            pinned: fault.flags.contains(FaultFlags::PINNED),
            fence: fault.flags.contains(FaultFlags::FENCE),
            heal: fault.flags.contains(FaultFlags::HEAL),
        },
        status: status(fault.status),
        deadline: fault.deadline_ms.map(|ms| Duration::from_millis(ms.into())),
        pieces: pieces.collect(),
    }
}

fn status(status: Ended) -> Status {
    match status {
        Ended::Ok => Status::Ok,
        Ended::Medium => Status::Medium,
        Ended::Ioerr => Status::IoErr,
        Ended::Other => Status::Other,
        Ended::NotDone => Status::NotDone,
    }
}
