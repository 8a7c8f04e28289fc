//! What the kernel tells the daemon.

use crate::attribute::{Attributes, DecodeError};
use crate::layout::{Counters, Extent, Piece};
use crate::request::SlotArea;
use crate::uapi::{Attr, Command, FaultFlags, FaultState, InstanceFlags, Status};

/// A message of the family, whether an answer or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Instance(InstanceInfo),
    Fault(FaultInfo),
    /// A part of the table.
    Extents {
        instance: u32,
        extents: Vec<Extent>,
    },
    /// The fault that FENCE made.
    FaultId(u64),
    /// There is something to list.
    Doorbell {
        instance: u32,
    },
}

/// One instance. Devices are `(major << 32) | minor`; lengths are in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceInfo {
    pub instance: u32,
    pub dm_dev: u64,
    pub data_dev: u64,
    pub spare_dev: u64,
    pub sectors: u64,
    /// Its logical block.
    pub block: u32,
    pub flags: InstanceFlags,
    pub generation: u64,
    /// The last installed commit; 0 before the first.
    pub commit: u64,
    pub counters: Counters,
    /// Set by the first claim.
    pub slots: Option<SlotArea>,
    /// Port id of the owner's socket.
    pub owner: Option<u32>,
}

/// One fault or fence. Ranges are in sectors of the mapped device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultInfo {
    pub instance: u32,
    pub id: u64,
    pub start: u64,
    pub len: u64,
    pub state: FaultState,
    pub flags: FaultFlags,
    /// The bio's original error.
    pub status: Status,
    /// What is left of the held bio's time; none when no bio is held.
    pub deadline_ms: Option<u32>,
    /// Of the last TRY or PLACE, with results; empty before one and while one runs.
    pub pieces: Vec<Piece>,
}

impl Message {
    /// Decodes a generic netlink header and the attributes behind it.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let &[command, _version, _, _, ref attributes @ ..] = payload else {
            return Err(DecodeError::NoHeader(payload.len()));
        };
        let attributes = Attributes::parse(attributes)?;
        match Command::from_wire(command) {
            Some(Command::InstanceGet) => Ok(Self::Instance(InstanceInfo::from(&attributes)?)),
            Some(Command::FaultGet) => Ok(Self::Fault(FaultInfo::from(&attributes)?)),
            Some(Command::ExtentGet) => Ok(Self::Extents {
                instance: attributes.get(Attr::Instance)?,
                extents: attributes.array(Attr::Extents)?,
            }),
            Some(Command::Fence) => Ok(Self::FaultId(attributes.get(Attr::FaultId)?)),
            Some(Command::Doorbell) => {
                Ok(Self::Doorbell { instance: attributes.get(Attr::Instance)? })
            }
            _ => Err(DecodeError::Command(command)),
        }
    }
}

impl InstanceInfo {
    fn from(attributes: &Attributes) -> Result<Self, DecodeError> {
        let slots = match attributes.get_if_there(Attr::SlotUnit)? {
            None => None,
            Some(unit) => Some(SlotArea {
                start: attributes.get(Attr::SlotStart)?,
                sectors: attributes.get(Attr::SlotSectors)?,
                unit,
            }),
        };
        Ok(Self {
            instance: attributes.get(Attr::Instance)?,
            dm_dev: attributes.get(Attr::DmDev)?,
            data_dev: attributes.get(Attr::DataDev)?,
            spare_dev: attributes.get(Attr::SpareDev)?,
            sectors: attributes.get(Attr::Sectors)?,
            block: attributes.get(Attr::Block)?,
            flags: attributes.get(Attr::InstanceFlags)?,
            generation: attributes.get(Attr::Generation)?,
            commit: attributes.get(Attr::Commit)?,
            counters: attributes.growing(Attr::Counters)?,
            slots,
            owner: attributes.get_if_there(Attr::Owner)?,
        })
    }
}

impl FaultInfo {
    fn from(attributes: &Attributes) -> Result<Self, DecodeError> {
        let pieces = match attributes.array(Attr::Pieces) {
            Err(DecodeError::Missing(_)) => Vec::new(),
            pieces => pieces?,
        };
        Ok(Self {
            instance: attributes.get(Attr::Instance)?,
            id: attributes.get(Attr::FaultId)?,
            start: attributes.get(Attr::Start)?,
            len: attributes.get(Attr::Len)?,
            state: attributes.get(Attr::FaultState)?,
            flags: attributes.get(Attr::FaultFlags)?,
            status: attributes.get(Attr::Status)?,
            deadline_ms: attributes.get_if_there(Attr::DeadlineMs)?,
            pieces,
        })
    }
}
