//! The codec: what a socket receives, and what is sent.

use dmremap_protocol::frame::{self, Answer};
use dmremap_protocol::uapi::{FaultFlags, FaultState, InstanceFlags, Kind, Status};
use dmremap_protocol::{
    Counters, Extent, Family, FaultInfo, InstanceInfo, Message, Piece, Request, SlotArea,
};

use crate::input::Input;

#[path = "../../../protocol/tests/kernel/mod.rs"]
mod kernel;

/// The first byte chooses between bytes as they come, a message of the kernel's and a request.
pub fn wire(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 3 {
        0 => received(input.0),
        1 => {
            let pad = input.u8() & 1 != 0;
            let message = message(&mut input);
            assert_eq!(Message::decode(&kernel::send(&message, pad)), Ok(message));
        }
        _ => {
            let request = request(&mut input);
            let payload = request.encode().expect("it is within the limits");
            assert_eq!(kernel::parse(&payload), request);
            let (kind, sequence) = (input.u16(), input.u32());
            let sent = frame::encode(kind, request.is_dump(), sequence, &payload);
            let frames: Vec<_> = frame::frames(&sent).collect();
            let [Ok(frame)] = frames[..] else { panic!("{frames:?}") };
            assert_eq!((frame.kind, frame.sequence, frame.payload), (kind, sequence, &payload[..]));
        }
    }
}

fn received(bytes: &[u8]) {
    decode(bytes);
    let mut read = 0;
    for frame in frame::frames(bytes) {
        let frame = match frame {
            Ok(frame) => frame,
            // A refusal says where.
            Err(error) => return assert!(error.left <= bytes.len() - read.min(bytes.len())),
        };
        read += 16 + frame.payload.len();
        match frame.answer() {
            Ok(Answer::Part { payload, .. }) => decode(payload),
            Ok(Answer::End(Err(refusal))) => {
                assert!(refusal.errno > 0);
                assert!(!refusal.to_string().is_empty());
            }
            Ok(Answer::End(Ok(())) | Answer::Nothing) => {}
            Err(error) => assert!(error.left <= bytes.len()),
        }
    }
}

fn decode(payload: &[u8]) {
    if let Ok(Some(family)) = Family::decode(payload) {
        assert_eq!(Family::decode(payload), Ok(Some(family)));
    }
    match Message::decode(payload) {
        // What was understood means the same when the kernel says it.
        Ok(message) if fits(&message) => {
            assert_eq!(Message::decode(&kernel::send(&message, false)), Ok(message));
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// An attribute's length is 16 bits.
fn fits(message: &Message) -> bool {
    match message {
        Message::Extents { extents, .. } => extents.len() <= 2048,
        Message::Fault(fault) => fault.pieces.len() <= 1024,
        _ => true,
    }
}

fn pick<T: Copy>(input: &mut Input, all: &[T]) -> T {
    all[input.below(all.len())]
}

fn extent(input: &mut Input) -> Extent {
    let (start, slot, len) = (input.odd_u64(), input.odd_u64(), input.u32());
    Extent { start, slot, len, kind: pick(input, Kind::ALL) }
}

fn piece(input: &mut Input) -> Piece {
    let (offset, len, slot) = (input.u32(), input.u32(), input.odd_u64());
    Piece { offset, len, slot, kind: pick(input, Kind::ALL), result: pick(input, Status::ALL) }
}

fn slots(input: &mut Input) -> SlotArea {
    SlotArea { start: input.odd_u64(), sectors: input.odd_u64(), unit: input.u32() }
}

fn request(input: &mut Input) -> Request {
    let (which, instance) = (input.u8(), input.u32());
    match which % 13 {
        0 => Request::InstanceGet,
        1 => Request::Claim { instance, slots: slots(input), commit: input.odd_u64() },
        2 => Request::Load { instance, extents: input.list(2048, extent) },
        3 => Request::Ready { instance },
        4 => Request::FaultGet { instance },
        5 => Request::ExtentGet { instance },
        6 => Request::Try { instance, fault: input.u64(), pieces: input.list(1024, piece) },
        7 => Request::Place { instance, fault: input.u64(), pieces: input.list(1024, piece) },
        8 => {
            let commit = input.odd_u64();
            Request::Install { instance, commit, faults: input.list(1024, Input::odd_u64) }
        }
        9 => Request::Release { instance, fault: input.u64() },
        10 => Request::Fail { instance, fault: input.u64() },
        11 => Request::Fence { instance, start: input.odd_u64(), len: input.odd_u64() },
        _ => Request::FlushFailed { instance },
    }
}

fn message(input: &mut Input) -> Message {
    match input.u8() % 5 {
        0 => Message::Instance(InstanceInfo {
            instance: input.u32(),
            dm_dev: input.u64(),
            data_dev: input.u64(),
            spare_dev: input.u64(),
            sectors: input.odd_u64(),
            block: input.u32(),
            flags: InstanceFlags(input.u32()),
            generation: input.odd_u64(),
            commit: input.odd_u64(),
            counters: Counters {
                faults: input.u64(),
                open_faults: input.odd_u64(),
                ..Counters::default()
            },
            slots: (input.u8() & 1 != 0).then(|| slots(input)),
            owner: (input.u8() & 1 != 0).then(|| input.u32()),
        }),
        1 => Message::Fault(FaultInfo {
            instance: input.u32(),
            id: input.odd_u64(),
            start: input.odd_u64(),
            len: input.odd_u64(),
            state: pick(input, FaultState::ALL),
            flags: FaultFlags(input.u32()),
            status: pick(input, Status::ALL),
            deadline_ms: (input.u8() & 1 != 0).then(|| input.u32()),
            pieces: input.list(1024, piece),
        }),
        2 => Message::Extents { instance: input.u32(), extents: input.list(2048, extent) },
        3 => Message::FaultId(input.u64()),
        _ => Message::Doorbell { instance: input.u32() },
    }
}
