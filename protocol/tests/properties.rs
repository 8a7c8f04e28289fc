//! Requests mean to the kernel what they say, and nothing that arrives makes a decoder panic.

mod kernel;

use dmremap_protocol::frame::{self, Answer};
use dmremap_protocol::uapi::{FaultFlags, FaultState, InstanceFlags, Kind, Status};
use dmremap_protocol::{
    Counters, Extent, Family, FaultInfo, InstanceInfo, Message, Piece, Request, SlotArea, TooMany,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn extents() -> impl Strategy<Value = Vec<Extent>> {
    let extent = (any::<(u64, u64, u32)>(), select(Kind::ALL))
        .prop_map(|((start, slot, len), kind)| Extent { start, slot, len, kind });
    vec(extent, 0..20)
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = (any::<(u32, u32, u64)>(), select(Kind::ALL), select(Status::ALL))
        .prop_map(|((offset, len, slot), kind, result)| Piece { offset, len, slot, kind, result });
    vec(piece, 0..20)
}

fn slots() -> impl Strategy<Value = SlotArea> {
    any::<(u64, u64, u32)>().prop_map(|(start, sectors, unit)| SlotArea { start, sectors, unit })
}

fn request() -> impl Strategy<Value = Request> {
    (any::<(u8, u32, u64, u64)>(), slots(), extents(), pieces(), vec(any::<u64>(), 0..20)).prop_map(
        |((which, instance, fault, len), slots, extents, pieces, faults)| match which % 12 {
            0 => Request::InstanceGet,
            1 => Request::Claim { instance, slots, commit: fault },
            2 => Request::Load { instance, extents },
            3 => Request::Ready { instance },
            4 => Request::FaultGet { instance },
            5 => Request::ExtentGet { instance },
            6 => Request::Try { instance, fault, pieces },
            7 => Request::Place { instance, fault, pieces },
            8 => Request::Install { instance, commit: fault, faults },
            9 => Request::Release { instance, fault },
            10 => Request::Fail { instance, fault },
            _ => Request::Fence { instance, start: fault, len },
        },
    )
}

fn instance() -> impl Strategy<Value = InstanceInfo> {
    let numbers = (any::<(u32, u32, u32)>(), any::<[u64; 7]>(), any::<[u64; 4]>());
    (numbers, option::of(slots()), any::<Option<u32>>()).prop_map(
        |(((instance, block, flags), a, [faults, redone, extents, open_faults]), slots, owner)| {
            InstanceInfo {
                instance,
                dm_dev: a[0],
                data_dev: a[1],
                spare_dev: a[2],
                sectors: a[3],
                block,
                flags: InstanceFlags(flags),
                generation: a[4],
                commit: a[5],
                counters: Counters { faults, redone, extents, open_faults, ..Default::default() },
                slots,
                owner,
            }
        },
    )
}

fn fault() -> impl Strategy<Value = FaultInfo> {
    let numbers = any::<(u32, u64, u64, u64, u32)>();
    let states = (select(FaultState::ALL), select(Status::ALL));
    (numbers, states, any::<Option<u32>>(), pieces()).prop_map(
        |((instance, id, start, len, flags), (state, status), deadline_ms, pieces)| FaultInfo {
            instance,
            id,
            start,
            len,
            state,
            flags: FaultFlags(flags),
            status,
            deadline_ms,
            pieces,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        instance().prop_map(Message::Instance),
        fault().prop_map(Message::Fault),
        (any::<u32>(), extents())
            .prop_map(|(instance, extents)| Message::Extents { instance, extents }),
        any::<u64>().prop_map(Message::FaultId),
        any::<u32>().prop_map(|instance| Message::Doorbell { instance }),
    ]
}

/// Everything that decodes what a socket received.
fn decode_all(bytes: &[u8]) {
    let _ = Message::decode(bytes);
    let _ = Family::decode(bytes);
    for frame in frame::frames(bytes).map_while(Result::ok) {
        if let Ok(Answer::Part { payload, .. }) = frame.answer() {
            let _ = Message::decode(payload);
            let _ = Family::decode(payload);
        }
    }
}

proptest! {
    #[test]
    fn the_kernel_reads_what_was_asked(request in request()) {
        prop_assert_eq!(kernel::parse(&request.encode()?), request);
    }

    #[test]
    fn messages_arrive_as_they_were_sent(message in message(), pad: bool) {
        prop_assert_eq!(Message::decode(&kernel::send(&message, pad)), Ok(message));
    }

    #[test]
    fn frames_come_apart_as_they_were_joined(payloads in vec(vec(any::<u8>(), 0..40), 0..6)) {
        let mut datagram = Vec::new();
        for (sequence, payload) in (0..).zip(&payloads) {
            datagram.extend(frame::encode(30, false, sequence, payload));
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        let found: Result<Vec<_>, _> = frame::frames(&datagram).collect();
        let found = found?;
        prop_assert_eq!(found.len(), payloads.len());
        for ((sequence, payload), frame) in (0..).zip(&payloads).zip(found) {
            prop_assert_eq!(frame.sequence, sequence);
            prop_assert_eq!(frame.answer(), Ok(Answer::Part { kind: 30, payload }));
        }
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200)) {
        decode_all(&bytes);
    }

    /// Random bytes rarely get past a length; those of an error behind a right one do.
    #[test]
    fn random_errors_do_not_panic(kind in 0_u16..20, flags: u16, body in vec(any::<u8>(), 0..80)) {
        let mut bytes = frame::encode(kind, false, 1, &body);
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        decode_all(&bytes);
    }

    #[test]
    fn damaged_messages_do_not_panic(
        message in message(),
        changes in vec(any::<(prop::sample::Index, u8)>(), 1..8),
        cut: prop::sample::Index,
        framed: bool,
    ) {
        let mut bytes = kernel::send(&message, false);
        if framed {
            bytes = frame::encode(30, true, 1, &bytes);
        }
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        decode_all(&bytes);
        decode_all(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn limits_are_the_kernels() {
    let install = |count| Request::Install { instance: 1, commit: 1, faults: vec![1; count] };
    assert!(install(1024).encode().is_ok());
    let attr = dmremap_protocol::uapi::Attr::FaultIds;
    assert_eq!(install(1025).encode(), Err(TooMany { attr, count: 1025, max: 1024 }));
}
