//! What the daemon asks of the kernel.

use crate::attribute::{MAX_BYTES, TooMany, put, put_array};
use crate::layout::{Extent, Piece, Wire};
use crate::uapi::{Attr, Command, GENL_VERSION, MAX_INSTALL, MAX_LOAD, MAX_PIECES};

const _: () = assert!(
    MAX_LOAD * Extent::SIZE <= MAX_BYTES
        && MAX_PIECES * Piece::SIZE <= MAX_BYTES
        && MAX_INSTALL * u64::SIZE <= MAX_BYTES,
    "a request at its limit does not fit into an attribute"
);

/// The part of the spare that slots are taken from, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotArea {
    pub start: u64,
    pub sectors: u64,
    /// The spare's physical block; slots start at its multiples.
    pub unit: u32,
}

/// A request. The header says what each does and which errors it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    InstanceGet,
    Claim { instance: u32, slots: SlotArea, commit: u64 },
    Load { instance: u32, extents: Vec<Extent> },
    Ready { instance: u32 },
    FaultGet { instance: u32 },
    ExtentGet { instance: u32 },
    Try { instance: u32, fault: u64, pieces: Vec<Piece> },
    Place { instance: u32, fault: u64, pieces: Vec<Piece> },
    Install { instance: u32, commit: u64, faults: Vec<u64> },
    Release { instance: u32, fault: u64 },
    Fail { instance: u32, fault: u64 },
    Fence { instance: u32, start: u64, len: u64 },
    FlushFailed { instance: u32 },
}

impl Request {
    pub fn command(&self) -> Command {
        match self {
            Self::InstanceGet => Command::InstanceGet,
            Self::Claim { .. } => Command::Claim,
            Self::Load { .. } => Command::Load,
            Self::Ready { .. } => Command::Ready,
            Self::FaultGet { .. } => Command::FaultGet,
            Self::ExtentGet { .. } => Command::ExtentGet,
            Self::Try { .. } => Command::Try,
            Self::Place { .. } => Command::Place,
            Self::Install { .. } => Command::Install,
            Self::Release { .. } => Command::Release,
            Self::Fail { .. } => Command::Fail,
            Self::Fence { .. } => Command::Fence,
            Self::FlushFailed { .. } => Command::FlushFailed,
        }
    }

    /// Whether the answer is a list of any length, ended by a message of its own.
    pub fn is_dump(&self) -> bool {
        matches!(self, Self::InstanceGet | Self::FaultGet { .. } | Self::ExtentGet { .. })
    }

    fn instance(&self) -> Option<u32> {
        match *self {
            Self::InstanceGet => None,
            Self::Claim { instance, .. }
            | Self::Load { instance, .. }
            | Self::Ready { instance }
            | Self::FaultGet { instance }
            | Self::ExtentGet { instance }
            | Self::Try { instance, .. }
            | Self::Place { instance, .. }
            | Self::Install { instance, .. }
            | Self::Release { instance, .. }
            | Self::Fail { instance, .. }
            | Self::Fence { instance, .. }
            | Self::FlushFailed { instance } => Some(instance),
        }
    }

    /// The generic netlink header and the attributes. Ranges are left to the kernel's judgement.
    pub fn encode(&self) -> Result<Vec<u8>, TooMany> {
        let mut out = vec![self.command() as u8, GENL_VERSION, 0, 0];
        let to = &mut out;
        if let Some(instance) = self.instance() {
            put(to, Attr::Instance, &instance);
        }
        match self {
            Self::InstanceGet
            | Self::Ready { .. }
            | Self::FaultGet { .. }
            | Self::ExtentGet { .. }
            | Self::FlushFailed { .. } => {}
            Self::Claim { slots, commit, .. } => {
                put(to, Attr::Commit, commit);
                put(to, Attr::SlotStart, &slots.start);
                put(to, Attr::SlotSectors, &slots.sectors);
                put(to, Attr::SlotUnit, &slots.unit);
            }
            Self::Load { extents, .. } => put_limited(to, Attr::Extents, extents, MAX_LOAD)?,
            Self::Try { fault, pieces, .. } | Self::Place { fault, pieces, .. } => {
                put(to, Attr::FaultId, fault);
                put_limited(to, Attr::Pieces, pieces, MAX_PIECES)?;
            }
            Self::Install { commit, faults, .. } => {
                put(to, Attr::Commit, commit);
                put_limited(to, Attr::FaultIds, faults, MAX_INSTALL)?;
            }
            Self::Release { fault, .. } | Self::Fail { fault, .. } => {
                put(to, Attr::FaultId, fault);
            }
            Self::Fence { start, len, .. } => {
                put(to, Attr::Start, start);
                put(to, Attr::Len, len);
            }
        }
        Ok(out)
    }
}

fn put_limited<T: Wire>(
    to: &mut Vec<u8>,
    attr: Attr,
    items: &[T],
    max: usize,
) -> Result<(), TooMany> {
    if items.len() > max {
        return Err(TooMany { attr, count: items.len(), max });
    }
    put_array(to, attr, items);
    Ok(())
}
