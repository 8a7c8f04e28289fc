//! Each message as bytes that were made from the C header, not by this crate.
#![cfg(target_endian = "little")]
#![allow(clippy::unwrap_used)]

use dmremap_protocol::frame::{self, Answer, Frame, FrameError, Refusal};
use dmremap_protocol::uapi::{Attr, FaultFlags, FaultState, InstanceFlags, Kind, Status};
use dmremap_protocol::{
    Counters, DecodeError, Extent, Family, FaultInfo, InstanceInfo, Message, Piece, Request,
    SlotArea,
};
use std::collections::BTreeMap;

const SLOTS: SlotArea = SlotArea { start: 2048, sectors: 1 << 20, unit: 8 };

/// The vectors whose names begin with `group`.
fn golden(group: &str) -> BTreeMap<String, Vec<u8>> {
    let text = include_str!("golden.txt");
    let vectors = text.split("\n= ").skip(1).filter_map(|vector| {
        let (name, hex) = vector.split_once('\n')?;
        let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        let bytes = hex.chunks(2).map(|pair| byte(pair).unwrap()).collect();
        Some((name.strip_prefix(group)?.trim_start().to_owned(), bytes))
    });
    vectors.collect()
}

fn piece(offset: u32, len: u32, slot: u64, kind: Kind, result: Status) -> Piece {
    Piece { offset, len, slot, kind, result }
}

fn extent(start: u64, slot: u64, len: u32, kind: Kind) -> Extent {
    Extent { start, slot, len, kind }
}

#[test]
fn requests() {
    let instance = 7;
    let fault = 3;

    let requests = [
        ("instance_get", Request::InstanceGet),
        ("claim", Request::Claim { instance, slots: SLOTS, commit: 5 }),
        (
            "load",
            Request::Load {
                instance,
                extents: vec![
                    extent(1000, 4096, 8, Kind::Mapped),
                    extent(0, 8192, 16, Kind::Retired),
                ],
            },
        ),
        ("ready", Request::Ready { instance }),
        ("fault_get", Request::FaultGet { instance }),
        ("extent_get", Request::ExtentGet { instance }),
        (
            "try",
            Request::Try {
                instance,
                fault,
                pieces: vec![
                    piece(0, 8, 0, Kind::Direct, Status::Ok),
                    piece(8, 8, 0, Kind::Direct, Status::Ok),
                ],
            },
        ),
        (
            "place",
            Request::Place {
                instance,
                fault,
                pieces: vec![
                    piece(0, 8, 4096, Kind::Mapped, Status::Ok),
                    piece(16, 1, 0, Kind::PoisonData, Status::Ok),
                ],
            },
        ),
        ("install", Request::Install { instance, commit: 6, faults: vec![3, 4] }),
        ("release", Request::Release { instance, fault }),
        ("fail", Request::Fail { instance, fault }),
        ("fence", Request::Fence { instance, start: 100, len: 8 }),
        ("flush_failed", Request::FlushFailed { instance }),
    ];
    let mut golden = golden("request");
    for (name, request) in requests {
        let bytes = golden.remove(name).expect(name);
        assert_eq!(request.encode().as_ref(), Ok(&bytes), "{name}");
    }
    assert!(golden.is_empty(), "not compared: {golden:?}");
}

fn instance() -> InstanceInfo {
    InstanceInfo {
        instance: 7,
        dm_dev: 252 << 32,
        data_dev: 8 << 32 | 16,
        spare_dev: 8 << 32 | 33,
        sectors: 204_800,
        block: 1,
        flags: InstanceFlags(
            InstanceFlags::READY.0 | InstanceFlags::QUEUE.0 | InstanceFlags::SPARE_FLUSH_BAD.0,
        ),
        generation: 77,
        commit: 5,
        counters: Counters {
            faults: 1,
            installs: 2,
            releases: 3,
            fails: 4,
            expired: 5,
            refused: 6,
            unowned: 7,
            passed: 8,
            poison_reads: 9,
            redone: 10,
            spare_flush_errors: 11,
            data_flush_fails: 12,
            spare_flush_fails: 13,
            held_bios: 14,
            held_sectors: 15,
            extents: 16,
            open_faults: 17,
        },
        slots: Some(SLOTS),
        owner: Some(4321),
    }
}

#[test]
fn messages() {
    let held = FaultInfo {
        instance: 7,
        id: 3,
        start: 1000,
        len: 16,
        state: FaultState::Placed,
        flags: FaultFlags(0b111),
        status: Status::Medium,
        deadline_ms: Some(89_500),
        pieces: vec![
            piece(0, 8, 4096, Kind::Mapped, Status::Ok),
            piece(8, 8, 0, Kind::Direct, Status::Medium),
        ],
    };
    let fence = FaultInfo {
        instance: 7,
        id: 4,
        start: 0,
        len: 8,
        state: FaultState::Open,
        flags: FaultFlags::FENCE,
        status: Status::Ok,
        deadline_ms: None,
        pieces: vec![],
    };
    let extents = vec![
        extent(1000, 4096, 8, Kind::Mapped),
        extent(2000, 0, 1, Kind::PoisonData),
        extent(3000, 4104, 8, Kind::PoisonSlot),
        extent(0, 8192, 16, Kind::Retired),
    ];
    let messages = [
        ("instance", Message::Instance(instance())),
        ("fault", Message::Fault(held)),
        ("fence", Message::Fault(fence)),
        ("extents", Message::Extents { instance: 7, extents }),
        ("fault_id", Message::FaultId(9)),
        ("doorbell", Message::Doorbell { instance: 7 }),
    ];
    let mut golden = golden("message");
    for (name, message) in messages {
        let bytes = golden.remove(name).expect(name);
        assert_eq!(Message::decode(&bytes), Ok(message), "{name}");
    }
    assert!(golden.is_empty(), "not compared: {golden:?}");
}

#[test]
fn frames() {
    let mut golden = golden("frame");
    let request = golden.remove("request").unwrap();
    assert_eq!(frame::encode(0x1c, false, 42, &request[16..]), request);
    let dump = frame::encode(0x1c, true, 42, &request[16..]);
    assert_eq!(dump[6..8], 0x301_u16.to_le_bytes());
    let refused = |errno| Err(Refusal { errno, text: Some("fault is not placed".into()) });
    for (name, sequence, end) in [
        ("ack", 42, Ok(())),
        ("refusal_capped", 42, refused(16)),
        ("refusal_whole", 42, refused(16)),
        ("done", 43, Ok(())),
        ("done_refusal", 43, refused(3)),
    ] {
        let bytes = golden.remove(name).expect(name);
        let found: Vec<Frame> = frame::frames(&bytes).map(Result::unwrap).collect();
        assert_eq!((found.len(), found[0].sequence, found[0].port), (1, sequence, 4321), "{name}");
        assert_eq!(found[0].answer(), Ok(Answer::End(end)), "{name}");
        // A frame that was cut is noticed.
        for length in 1..bytes.len() {
            assert_eq!(
                frame::frames(&bytes[..length]).next(),
                Some(Err(FrameError { left: length })),
                "{name}"
            );
        }
    }
    assert!(golden.is_empty(), "not compared: {golden:?}");
}

#[test]
fn an_error_number_is_negative() {
    for code in [i32::MIN, 1] {
        let bytes = frame::encode(2, false, 1, &code.to_le_bytes());
        let frame = frame::frames(&bytes).next().unwrap().unwrap();
        assert_eq!(frame.answer(), Err(FrameError { left: 4 }));
    }
}

#[test]
fn refusal_reads_as_a_sentence() {
    let mut refusal = Refusal { errno: 16, text: Some("fault is not placed".into()) };
    assert_eq!(refusal.to_string(), "fault is not placed: Device or resource busy (os error 16)");
    refusal.text = None;
    assert_eq!(refusal.to_string(), "Device or resource busy (os error 16)");
}

#[test]
fn family() {
    let golden = golden("control");
    assert_eq!(Family::request(), golden["get_family"]);
    let family = Family { id: 0x1c, faults_group: 9 };
    assert_eq!(Family::decode(&golden["family"]), Ok(Some(family)));
    assert_eq!(Family::decode(&golden["family"][..28]), Ok(None));
    let mut other = golden["family"].clone();
    let name = other.windows(8).position(|at| at == b"dm_remap").unwrap();
    other[name + 7] = b'q';
    assert_eq!(Family::decode(&other), Ok(None));
}

#[test]
fn another_kernel() {
    let golden = golden("message");
    let bytes = &golden["instance"];
    let counters = bytes.windows(4).position(|at| at == [0x8c, 0, 0x0a, 0]).unwrap();
    // A newer one: an attribute that nobody knows, and one more counter.
    let mut newer = bytes.clone();
    newer.extend([8, 0, 200, 0, 1, 2, 3, 4]);
    newer[counters] += 8;
    newer.splice(counters + 140..counters + 140, [0xff; 8]);
    assert_eq!(Message::decode(&newer), Ok(Message::Instance(instance())));
    // It may mark an attribute as nested or in network order.
    let doorbell = [13, 1, 0, 0, 8, 0, 1, 0xc0, 7, 0, 0, 0];
    assert_eq!(Message::decode(&doorbell), Ok(Message::Doorbell { instance: 7 }));
    // An older one lacks the last counter.
    let mut older = bytes.clone();
    older[counters] -= 8;
    older.drain(counters + 132..counters + 140);
    let mut expected = instance();
    expected.counters.open_faults = 0;
    assert_eq!(Message::decode(&older), Ok(Message::Instance(expected)));
}

#[test]
fn errors_name_the_attribute() {
    let decode = |bytes: &[u8]| Message::decode(bytes).unwrap_err();
    assert_eq!(decode(&[13, 1, 0]), DecodeError::NoHeader(3));
    assert_eq!(decode(&[14, 1, 0, 0]), DecodeError::Command(14));
    assert_eq!(decode(&[2, 1, 0, 0]), DecodeError::Command(2));
    assert_eq!(decode(&[13, 1, 0, 0]), DecodeError::Missing(Attr::Instance));
    let short = [13, 1, 0, 0, 6, 0, 1, 0, 7, 0, 0, 0];
    assert_eq!(decode(&short), DecodeError::Length { attr: Attr::Instance, bytes: 2 });
    let long = [13, 1, 0, 0, 12, 0, 1, 0, 7, 0, 0, 0];
    assert_eq!(decode(&long), DecodeError::Framing { number: 1, left: 8 });
    let ragged = [6, 1, 0, 0, 8, 0, 1, 0, 7, 0, 0, 0, 8, 0, 15, 0, 0, 0, 0, 0];
    assert_eq!(decode(&ragged), DecodeError::Length { attr: Attr::Extents, bytes: 4 });
    let mut fault = golden("message")["fault"].clone();
    let state = fault.windows(4).position(|at| at == [5, 0, 0x14, 0]).unwrap();
    fault[state + 4] = 3;
    assert_eq!(decode(&fault), DecodeError::Value(Attr::FaultState));
}
