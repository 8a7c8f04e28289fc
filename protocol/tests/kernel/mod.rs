//! The kernel's side of the conversation, written from the header alone: strict with requests, as
//! its policies are, and able to answer.

#![allow(clippy::unwrap_used)] // a panic is its verdict

use dmremap_protocol::uapi::{Kind, Status};
use dmremap_protocol::{Extent, FaultInfo, InstanceInfo, Message, Piece, Request, SlotArea};
use std::collections::BTreeMap;

struct Attributes<'a>(BTreeMap<u16, &'a [u8]>);

impl<'a> Attributes<'a> {
    fn parse(mut bytes: &'a [u8]) -> Self {
        let mut found = BTreeMap::new();
        while !bytes.is_empty() {
            let length = usize::from(u16::from_ne_bytes(bytes[..2].try_into().unwrap()));
            let number = u16::from_ne_bytes(bytes[2..4].try_into().unwrap());
            assert!(found.insert(number, &bytes[4..length]).is_none(), "{number} twice");
            let padded = length.next_multiple_of(4);
            assert!(bytes[length..padded].iter().all(|&byte| byte == 0), "padding of {number}");
            bytes = &bytes[padded..];
        }
        Self(found)
    }

    fn bytes(&mut self, number: u16) -> &'a [u8] {
        self.0.remove(&number).unwrap_or_else(|| panic!("{number} is missing"))
    }

    fn u32(&mut self, number: u16) -> u32 {
        u32_at(self.bytes(number), 0, 4)
    }

    fn u64(&mut self, number: u16) -> u64 {
        u64_at(self.bytes(number), 0, 8)
    }

    fn array<T>(&mut self, number: u16, size: usize, item: fn(&[u8]) -> T) -> Vec<T> {
        let bytes = self.bytes(number);
        assert_eq!(bytes.len() % size, 0, "{number} is not of whole elements");
        bytes.chunks(size).map(item).collect()
    }
}

/// The number at `at` in a value of `whole` bytes.
fn u32_at(bytes: &[u8], at: usize, whole: usize) -> u32 {
    assert_eq!(bytes.len(), whole);
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize, whole: usize) -> u64 {
    assert_eq!(bytes.len(), whole);
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn kind(raw: u8) -> Kind {
    [Kind::Direct, Kind::Mapped, Kind::PoisonData, Kind::PoisonSlot, Kind::Retired]
        [usize::from(raw)]
}

fn status(raw: u8) -> Status {
    [Status::Ok, Status::Medium, Status::Ioerr, Status::Other, Status::NotDone][usize::from(raw)]
}

fn extent(bytes: &[u8]) -> Extent {
    assert_eq!(bytes[21..], [0; 3]);
    Extent {
        start: u64_at(bytes, 0, 24),
        slot: u64_at(bytes, 8, 24),
        len: u32_at(bytes, 16, 24),
        kind: kind(bytes[20]),
    }
}

fn piece(bytes: &[u8]) -> Piece {
    assert_eq!(bytes[18..], [0; 6]);
    Piece {
        offset: u32_at(bytes, 0, 24),
        len: u32_at(bytes, 4, 24),
        slot: u64_at(bytes, 8, 24),
        kind: kind(bytes[16]),
        result: status(bytes[17]),
    }
}

/// Reads a request; panics at what the kernel would refuse.
pub fn parse(bytes: &[u8]) -> Request {
    assert_eq!(bytes[1..4], [1, 0, 0], "version and reserved");
    let command = bytes[0];
    let mut a = Attributes::parse(&bytes[4..]);
    let instance = if command == 1 { 0 } else { a.u32(1) };
    let request = match command {
        1 => Request::InstanceGet,
        2 => Request::Claim {
            instance,
            slots: SlotArea { start: a.u64(11), sectors: a.u64(12), unit: a.u32(13) },
            commit: a.u64(9),
        },
        3 => Request::Load { instance, extents: a.array(15, 24, extent) },
        4 => Request::Ready { instance },
        5 => Request::FaultGet { instance },
        6 => Request::ExtentGet { instance },
        7 => Request::Try { instance, fault: a.u64(16), pieces: a.array(24, 24, piece) },
        8 => Request::Place { instance, fault: a.u64(16), pieces: a.array(24, 24, piece) },
        9 => Request::Install {
            instance,
            commit: a.u64(9),
            faults: a.array(17, 8, |id| u64_at(id, 0, 8)),
        },
        10 => Request::Release { instance, fault: a.u64(16) },
        11 => Request::Fail { instance, fault: a.u64(16) },
        12 => Request::Fence { instance, start: a.u64(18), len: a.u64(19) },
        14 => Request::FlushFailed { instance },
        other => panic!("no such request: {other}"),
    };
    assert!(a.0.is_empty(), "attributes that {command} does not list: {:?}", a.0.keys());
    request
}

/// Builds an answer; with `pad`, aligns every u64 as kernels do that cannot read it otherwise.
struct Builder {
    out: Vec<u8>,
    pad: bool,
}

impl Builder {
    fn put(&mut self, number: u16, content: &[u8]) {
        self.out.extend((content.len() as u16 + 4).to_ne_bytes());
        self.out.extend(number.to_ne_bytes());
        self.out.extend(content);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    fn u8(&mut self, number: u16, value: u8) {
        self.put(number, &[value]);
    }

    fn u32(&mut self, number: u16, value: u32) {
        self.put(number, &value.to_ne_bytes());
    }

    fn u64(&mut self, number: u16, value: u64) {
        if self.pad && self.out.len() % 8 == 0 {
            self.put(25, &[]);
        }
        self.put(number, &value.to_ne_bytes());
    }

    fn instance(&mut self, info: &InstanceInfo) {
        self.u32(1, info.instance);
        self.u64(2, info.dm_dev);
        self.u64(3, info.data_dev);
        self.u64(4, info.spare_dev);
        self.u64(5, info.sectors);
        self.u32(6, info.block);
        self.u32(7, info.flags.0);
        self.u64(8, info.generation);
        self.u64(9, info.commit);
        let c = &info.counters;
        let mut counters = [0; 17];
        (counters[0], counters[9], counters[15], counters[16]) =
            (c.faults, c.redone, c.extents, c.open_faults);
        self.put(10, counters.map(u64::to_ne_bytes).as_flattened());
        if let Some(slots) = info.slots {
            self.u64(11, slots.start);
            self.u64(12, slots.sectors);
            self.u32(13, slots.unit);
        }
        if let Some(owner) = info.owner {
            self.u32(14, owner);
        }
    }

    fn fault(&mut self, info: &FaultInfo) {
        self.u32(1, info.instance);
        self.u64(16, info.id);
        self.u64(18, info.start);
        self.u64(19, info.len);
        self.u8(20, info.state as u8);
        self.u32(21, info.flags.0);
        self.u8(22, info.status as u8);
        if let Some(deadline) = info.deadline_ms {
            self.u32(23, deadline);
        }
        if info.pieces.is_empty() {
            return;
        }
        let mut array = Vec::new();
        for piece in &info.pieces {
            array.extend([piece.offset.to_ne_bytes(), piece.len.to_ne_bytes()].as_flattened());
            array.extend(piece.slot.to_ne_bytes());
            array.extend([piece.kind as u8, piece.result as u8, 0, 0, 0, 0, 0, 0]);
        }
        self.put(24, &array);
    }

    fn extents(&mut self, instance: u32, extents: &[Extent]) {
        self.u32(1, instance);
        let mut array = Vec::new();
        for extent in extents {
            array.extend([extent.start.to_ne_bytes(), extent.slot.to_ne_bytes()].as_flattened());
            array.extend(extent.len.to_ne_bytes());
            array.extend([extent.kind as u8, 0, 0, 0]);
        }
        self.put(15, &array);
    }
}

/// `message` as the kernel sends it.
pub fn send(message: &Message, pad: bool) -> Vec<u8> {
    let command = match message {
        Message::Instance(_) => 1,
        Message::Fault(_) => 5,
        Message::Extents { .. } => 6,
        Message::FaultId(_) => 12,
        Message::Doorbell { .. } => 13,
    };
    let mut builder = Builder { out: vec![command, 1, 0, 0], pad };
    match message {
        Message::Instance(info) => builder.instance(info),
        Message::Fault(info) => builder.fault(info),
        Message::Extents { instance, extents } => builder.extents(*instance, extents),
        Message::FaultId(id) => builder.u64(16, *id),
        Message::Doorbell { instance } => builder.u32(1, *instance),
    }
    builder.out
}
