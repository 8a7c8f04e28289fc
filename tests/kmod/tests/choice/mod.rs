//! Random steps that mean something: numbers that become faults, slots and ranges which are there.

use dmremap_conformance::{Access, Config, Disk, Io, State, Step};
use dmremap_protocol::uapi::{Kind, Status};
use dmremap_protocol::{Extent, Piece, Request, SlotArea};
use proptest::prelude::*;

/// Few, so that everything meets.
pub const SECTORS: u64 = 64;
const AREA: SlotArea = SlotArea { start: 16, sectors: 160, unit: 8 };
const INSTANCE: u32 = 1;

/// A piece or an extent: distance from the one before, length, kind and slot.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    gap: u32,
    len: u32,
    kind: u8,
    slot: u8,
}

#[derive(Debug, Clone)]
pub enum Choice {
    Claim {
        port: u32,
        commit: u8,
        odd: u8,
    },
    Load {
        port: u32,
        extents: Vec<Part>,
    },
    Ready,
    Serve,
    Io {
        access: u8,
        start: u64,
        len: u64,
    },
    Bad {
        disk: bool,
        start: u64,
        len: u64,
        reads: bool,
        writes: bool,
    },
    List,
    Try {
        fault: u8,
        parts: Vec<Part>,
    },
    Place {
        fault: u8,
        parts: Vec<Part>,
    },
    /// A fence, what fits into it, its install, and a look at it.
    Change {
        start: u64,
        len: u64,
        kind: u8,
        at: u32,
    },
    /// A write that is under way while what it writes changes, and changes again.
    Race {
        spare: bool,
        start: u64,
        len: u64,
        kinds: [u8; 2],
    },
    Fitting {
        fault: u8,
        kind: u8,
        at: u32,
        len: u32,
    },
    Install {
        faults: u8,
        commit: u8,
    },
    Release {
        fault: u8,
    },
    Fail {
        fault: u8,
    },
    Fence {
        start: u64,
        len: u64,
    },
    FlushFailed,
    Close,
    Rest {
        ms: u8,
    },
    Stall {
        disk: bool,
        stalls: bool,
    },
    FailFlush {
        disk: bool,
    },
    NoMemory {
        nth: u64,
    },
    Suspend {
        noflush: bool,
    },
    Resume,
    Look {
        start: u64,
        len: u64,
    },
}

fn part() -> impl Strategy<Value = Part> {
    let len = prop_oneof![1..4u32, 1..20u32];
    let gap = prop_oneof![3 => Just(0u32), 2 => 0..12u32];
    (gap, len, 0..6u8, any::<u8>()).prop_map(|(gap, len, kind, slot)| Part { gap, len, kind, slot })
}

pub fn parts() -> impl Strategy<Value = Vec<Part>> {
    proptest::collection::vec(part(), 0..5)
}

fn port() -> impl Strategy<Value = u32> {
    prop_oneof![9 => Just(1u32), 1 => Just(2u32)]
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (0..SECTORS, prop_oneof![1..6u64, 1..40u64])
}

pub fn random() -> impl Strategy<Value = Choice> {
    use Choice::*;
    prop_oneof![
        3 => (port(), 0..4u8, 0..30u8).prop_map(|(port, commit, odd)| Claim { port, commit, odd }),
        2 => (port(), parts()).prop_map(|(port, extents)| Load { port, extents }),
        2 => Just(Ready),
        4 => Just(Serve),
        12 => (0..10u8, range()).prop_map(|(access, (start, len))| Io { access, start, len }),
        4 => (any::<bool>(), range(), any::<bool>(), any::<bool>())
            .prop_map(|(disk, (start, len), reads, writes)| Bad { disk, start, len, reads, writes }),
        2 => Just(List),
        4 => (0..4u8, parts()).prop_map(|(fault, parts)| Try { fault, parts }),
        4 => (0..4u8, parts()).prop_map(|(fault, parts)| Place { fault, parts }),
        12 => (range(), 0..8u8, prop_oneof![2 => Just(0u32), 1 => 0..20u32])
            .prop_map(|((start, len), kind, at)| Change { start, len, kind, at }),
        3 => (any::<bool>(), range(), [0..4u8, 0..2u8])
            .prop_map(|(spare, (start, len), kinds)| Race { spare, start, len, kinds }),
        8 => (0..4u8, 0..8u8, 0..20u32, 1..30u32)
            .prop_map(|(fault, kind, at, len)| Fitting { fault, kind, at, len }),
        8 => (any::<u8>(), 0..4u8).prop_map(|(faults, commit)| Install { faults, commit }),
        2 => (0..5u8).prop_map(|fault| Release { fault }),
        2 => (0..5u8).prop_map(|fault| Fail { fault }),
        5 => range().prop_map(|(start, len)| Fence { start, len }),
        1 => Just(FlushFailed),
        1 => Just(Close),
        3 => (0..5u8).prop_map(|ms| Rest { ms }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(disk, stalls)| Stall { disk, stalls }),
        1 => any::<bool>().prop_map(|disk| FailFlush { disk }),
        2 => (1..4u64).prop_map(|nth| NoMemory { nth }),
        1 => any::<bool>().prop_map(|noflush| Suspend { noflush }),
        2 => Just(Resume),
        6 => range().prop_map(|(start, len)| Look { start, len }),
    ]
}

/// Of a fault: the newest.
const LAST: u8 = 255;

/// What a choice is made of.
pub fn expand(choice: &Choice) -> Vec<Choice> {
    match *choice {
        Choice::Change { start, len, kind, at } => vec![
            Choice::Fence { start, len },
            Choice::Fitting { fault: LAST, kind, at, len: len as u32 },
            Choice::Install { faults: 1, commit: 2 },
            Choice::Look { start: start.saturating_sub(3), len: len + 6 },
        ],
        Choice::Race { spare, start, len, kinds } => {
            let mut all = vec![Choice::Stall { disk: spare, stalls: true }];
            all.push(Choice::Io { access: 4, start, len });
            for kind in kinds {
                all.extend(expand(&Choice::Change { start, len, kind, at: 0 }));
            }
            all.push(Choice::Stall { disk: spare, stalls: false });
            all
        }
        ref other => vec![other.clone()],
    }
}

/// Claimed, loaded and ready.
pub fn served(extents: Vec<Part>) -> [Choice; 3] {
    [Choice::Serve, Choice::Load { port: 1, extents }, Choice::Ready]
}

fn disk(spare: bool) -> Disk {
    if spare { Disk::Spare } else { Disk::Data }
}

fn clipped(start: u64, len: u64, size: u64) -> (u64, u64) {
    (start, len.min(size - start))
}

pub struct Maker {
    spare: u64,
    ios: u64,
}

impl Maker {
    pub fn new(config: &Config) -> Maker {
        Maker { spare: config.spare, ios: 0 }
    }

    pub fn step(&mut self, choice: &Choice, state: &State) -> Step {
        let port = state.instance.owner.unwrap_or(1);
        let (request, port) = match *choice {
            Choice::Claim { port, commit, odd } => (claim(state, commit, odd), port),
            Choice::Load { port, ref extents } => {
                (Request::Load { instance: INSTANCE, extents: load(state, extents) }, port)
            }
            Choice::Ready => (Request::Ready { instance: INSTANCE }, port),
            // What an instance needs before anything else, so that most runs get somewhere.
            Choice::Serve => match state.instance.owner {
                Some(port) => (Request::Ready { instance: INSTANCE }, port),
                None => (claim(state, 2, 29), 1),
            },
            Choice::List => (Request::FaultGet { instance: INSTANCE }, port),
            Choice::Try { fault, ref parts } => {
                let (fault, ..) = fault_of(state, fault);
                let mut pieces = pieces(parts);
                pieces.iter_mut().filter(|p| p.kind != Kind::Retired).for_each(|p| {
                    p.kind = Kind::Direct;
                    p.slot = 0;
                });
                (Request::Try { instance: INSTANCE, fault, pieces }, port)
            }
            Choice::Place { fault, ref parts } => {
                let (fault, ..) = fault_of(state, fault);
                (Request::Place { instance: INSTANCE, fault, pieces: pieces(parts) }, port)
            }
            Choice::Fitting { fault, kind, at, len } => {
                let (fault, start, whole) = fault_of(state, fault);
                let pieces = fitting(state, start, whole, kind, at, len);
                (Request::Place { instance: INSTANCE, fault, pieces }, port)
            }
            Choice::Change { .. } | Choice::Race { .. } => unreachable!("it is expanded"),
            Choice::Install { faults, commit } => (install(state, faults, commit), port),
            Choice::Release { fault } => {
                let (fault, ..) = fault_of(state, fault);
                (Request::Release { instance: INSTANCE, fault }, port)
            }
            Choice::Fail { fault } => {
                let (fault, ..) = fault_of(state, fault);
                (Request::Fail { instance: INSTANCE, fault }, port)
            }
            Choice::Fence { start, len } => {
                (Request::Fence { instance: INSTANCE, start, len }, port)
            }
            Choice::FlushFailed => (Request::FlushFailed { instance: INSTANCE }, port),
            Choice::Close => return Step::Close { port },
            Choice::Io { access, start, len } => return self.io(access, start, len),
            Choice::Bad { disk: spare, start, len, reads, writes } => {
                // A part of the slot area that is used soon.
                let (start, len) = match spare {
                    true => clipped(AREA.start + start, len, self.spare),
                    false => clipped(start, len, SECTORS),
                };
                return Step::Bad { disk: disk(spare), start, len, reads, writes };
            }
            Choice::Rest { ms } => {
                return Step::Rest { ms: [1, 100, 300, 1000, 2500][usize::from(ms)] };
            }
            Choice::Stall { disk: spare, stalls } => {
                return Step::Stall { disk: disk(spare), stalls };
            }
            Choice::FailFlush { disk: spare } => {
                return Step::FailFlushes { disk: disk(spare), flushes: 1 };
            }
            Choice::NoMemory { nth } => return Step::NoMemory { nth },
            Choice::Suspend { noflush } => return Step::Suspend { noflush },
            Choice::Resume => return Step::Resume,
            Choice::Look { start, len } => {
                let (start, len) = clipped(start, len, SECTORS);
                return Step::Look { start, len };
            }
        };
        Step::Ask { port, request }
    }

    fn io(&mut self, access: u8, start: u64, len: u64) -> Step {
        self.ios += 1;
        let access = match access {
            0..3 => Access::Read,
            3 => Access::ReadAhead,
            4..8 => Access::Write,
            8 => Access::Durable,
            _ => Access::Flush,
        };
        let (start, len) = match access {
            Access::Flush => (0, 0),
            _ => clipped(start, len, SECTORS),
        };
        Step::Io(Io { id: self.ios, access, start, len })
    }
}

/// Around the last one: too low, or as it must be.
fn commit_of(state: &State, commit: u8) -> u64 {
    (state.instance.commit + u64::from(commit)).saturating_sub(1)
}

fn claim(state: &State, commit: u8, odd: u8) -> Request {
    let slots = match odd {
        0 => SlotArea { unit: 12, ..AREA },
        1 => SlotArea { start: AREA.start + 4, ..AREA },
        2 => SlotArea { sectors: 1 << 20, ..AREA },
        3 => SlotArea { sectors: 0, ..AREA },
        4 => SlotArea { sectors: AREA.sectors - 8, ..AREA },
        5 => SlotArea { unit: 4096, ..AREA },
        6 => SlotArea { start: u64::MAX - 7, ..AREA },
        _ => AREA,
    };
    Request::Claim { instance: INSTANCE, slots, commit: commit_of(state, commit) }
}

fn kind(number: u8) -> Kind {
    match number {
        0 => Kind::Direct,
        3 => Kind::PoisonData,
        4 => Kind::PoisonSlot,
        5 => Kind::Retired,
        _ => Kind::Mapped,
    }
}

/// Mostly where a unit begins, and sometimes outside.
fn slot(kind: Kind, number: u8) -> u64 {
    let at = u64::from(number);
    match kind {
        Kind::Direct | Kind::PoisonData if number != 0 => 0,
        _ if number < 240 => AREA.start + at % 20 * 8,
        _ => AREA.start - 3 + at % 4 + at % 2 * AREA.sectors,
    }
}

fn load(state: &State, parts: &[Part]) -> Vec<Extent> {
    let last = state.extents.iter().rfind(|e| e.kind != Kind::Retired);
    let mut at = last.map_or(0, |e| e.start + u64::from(e.len));
    let mut extents = Vec::new();
    for part in parts {
        let kind = kind(part.kind);
        at += u64::from(part.gap % 4);
        let start = if kind == Kind::Retired { 0 } else { at };
        extents.push(Extent { start, slot: slot(kind, part.slot), len: part.len, kind });
        at += if kind == Kind::Retired { 0 } else { u64::from(part.len) };
    }
    extents
}

/// Number, start and length of one that is listed, or of none.
fn fault_of(state: &State, number: u8) -> (u64, u64, u64) {
    match state.faults.len() {
        0 => (u64::from(number), 0, 0),
        _ if number == 4 => (99, 0, 0),
        n if number == LAST => {
            let fault = &state.faults[n - 1];
            (fault.id, fault.start, fault.len)
        }
        n => {
            let fault = &state.faults[usize::from(number) % n];
            (fault.id, fault.start, fault.len)
        }
    }
}

fn pieces(parts: &[Part]) -> Vec<Piece> {
    let mut at = 0;
    let mut pieces = Vec::new();
    for part in parts {
        let kind = kind(part.kind);
        at += part.gap;
        let slot = slot(kind, part.slot);
        pieces.push(Piece { offset: at, len: part.len, slot, kind, result: Status::Ok });
        // Sometimes they overlap.
        at += if part.slot % 16 == 15 { part.len - 1 } else { part.len };
    }
    pieces
}

/// One piece that goes with what the table has there, in a slot that is free.
fn fitting(state: &State, start: u64, whole: u64, kind: u8, at: u32, len: u32) -> Vec<Piece> {
    let at = u64::from(at) % whole.max(1);
    let len = u64::from(len).min(whole - at.min(whole)).max(1);
    let there = state.extents.iter().find(|e| {
        e.kind != Kind::Retired && e.start <= start + at && start + at < e.start + u64::from(e.len)
    });
    let piece = |kind, slot, len: u64| {
        vec![Piece { offset: at as u32, len: len as u32, slot, kind, result: Status::Ok }]
    };
    match (kind, there) {
        (0, Some(_)) => piece(Kind::Direct, 0, len),
        (1, Some(e)) if e.kind == Kind::Mapped => {
            let from = start + at - e.start;
            piece(Kind::PoisonSlot, e.slot + from, len.min(u64::from(e.len) - from))
        }
        (2, None) => piece(Kind::PoisonData, 0, len),
        _ => {
            let taken = |slot: u64, len: u64| {
                let overlaps = |from: u64, n: u64| from < slot + len && slot < from + n;
                let extents = state.extents.iter().filter(|e| e.kind != Kind::PoisonData);
                let pieces = state.faults.iter().flat_map(|f| &f.pieces);
                let mut pieces = pieces.filter(|p| p.kind == Kind::Mapped);
                { extents }.any(|e| overlaps(e.slot, u64::from(e.len)))
                    || pieces.any(|p| overlaps(p.slot, u64::from(p.len).next_multiple_of(8)))
            };
            let free =
                (0..20).map(|n| AREA.start + n * 8).find(|&s| !taken(s, len.div_ceil(8) * 8));
            piece(Kind::Mapped, free.unwrap_or(AREA.start), len)
        }
    }
}

fn install(state: &State, faults: u8, commit: u8) -> Request {
    use dmremap_protocol::uapi::FaultState::Placed;
    // Some take all that are placed, others whatever is there.
    let mut ids: Vec<u64> = match faults % 4 {
        0 => state.faults.iter().map(|f| f.id).collect(),
        _ => state.faults.iter().filter(|f| f.state == Placed).map(|f| f.id).collect(),
    };
    match faults {
        240.. => ids.push(1),
        230..240 => ids.push(0),
        220..230 => ids.push(10_000),
        _ => {}
    }
    Request::Install { instance: INSTANCE, commit: commit_of(state, commit), faults: ids }
}

/// Everything that is held ends.
pub fn epilogue(hold_ms: u64) -> Vec<Step> {
    vec![
        Step::Stall { disk: Disk::Data, stalls: false },
        Step::Stall { disk: Disk::Spare, stalls: false },
        Step::Rest { ms: 100 },
        Step::Rest { ms: hold_ms + 1000 },
        Step::Resume,
        Step::Rest { ms: hold_ms + 1000 },
        Step::Rest { ms: hold_ms + 1000 },
    ]
}
