//! A small kernel with its two disks, after the state diagram in the protocol's header. It panics
//! at a request that the real one would call malformed: the core must not send such.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::event::*;
use crate::table::{Change, Extent, Kind, Table};
use crate::units::{Sector, Sectors, Slot};

pub const AREA: Area = Area { start: Slot(64), len: Sectors(32768), unit: Sectors(8) };

#[derive(Debug)]
pub struct Fault {
    pub start: u64,
    pub len: u64,
    pub state: State,
    pub flags: Flags,
    pub status: Status,
    pub pieces: Vec<(Piece, Status)>,
    placing: bool,
    good: BTreeSet<u64>,
    /// What the held write writes.
    tag: u64,
}

#[derive(Debug)]
pub struct Kernel {
    pub area: Area,
    pub sectors: u64,
    pub block: u64,
    pub ready: bool,
    pub table: Table,
    pub commit: u64,
    pub faults: BTreeMap<u64, Fault>,
    pub next: u64,
    pub bell: bool,
    pub flush_fails: u64,
    pub bad_data: BTreeSet<u64>,
    pub bad_slots: BTreeSet<u64>,
    /// The data disk answers nothing.
    pub silent: bool,
    pub data: BTreeMap<u64, u64>,
    pub spare: BTreeMap<u64, u64>,
    pub used: BTreeSet<u64>,
    pub retired: BTreeSet<u64>,
    /// What was acknowledged, by sector.
    pub acked: BTreeMap<u64, u64>,
    /// Placed, and not covered by a good flush of the spare since.
    pub volatile: BTreeSet<u64>,
    /// Placed, and lost by a flush that failed.
    pub lost: BTreeSet<u64>,
    /// Slots that were installed, ever: never written by another place.
    pub installed: BTreeSet<u64>,
    pub errors: u64,
    tags: u64,
}

impl Kernel {
    pub fn new(sectors: u64, block: u64, area: Area) -> Kernel {
        Kernel {
            area,
            sectors,
            block,
            ready: false,
            table: Table::default(),
            commit: 0,
            faults: BTreeMap::new(),
            next: 1,
            bell: false,
            flush_fails: 0,
            bad_data: BTreeSet::new(),
            bad_slots: BTreeSet::new(),
            silent: false,
            data: BTreeMap::new(),
            spare: BTreeMap::new(),
            used: BTreeSet::new(),
            retired: BTreeSet::new(),
            acked: BTreeMap::new(),
            volatile: BTreeSet::new(),
            lost: BTreeSet::new(),
            installed: BTreeSet::new(),
            errors: 0,
            tags: 0,
        }
    }

    pub fn instance(&self) -> Instance {
        Instance {
            id: 1,
            ready: self.ready,
            sectors: Sectors(self.sectors),
            block: Sectors(self.block),
            spare_flush_fails: self.flush_fails,
            spare_flush_bad: false,
        }
    }

    fn kind(&self, sector: u64) -> Option<Kind> {
        self.table.overlapping(Sector(sector), Sectors(1)).next().map(|e| e.kind)
    }

    fn data_ok(&self, sector: u64) -> bool {
        let block = sector / self.block * self.block;
        !self.silent && self.bad_data.range(block..block + self.block).next().is_none()
    }

    /// Writes a sector to where the table points.
    fn write_through(&mut self, sector: u64, tag: u64) -> Status {
        match self.kind(sector) {
            None if self.data_ok(sector) => {
                self.data.insert(sector, tag);
                Status::Ok
            }
            None if self.silent => Status::IoErr,
            None => Status::Medium,
            Some(Kind::Mapped(slot)) => self.write_slot(slot.0, tag),
            Some(_) => panic!("a write went into poison at {sector}"),
        }
    }

    fn write_slot(&mut self, slot: u64, tag: u64) -> Status {
        if self.bad_slots.contains(&slot) {
            return Status::Medium;
        }
        self.spare.insert(slot, tag);
        Status::Ok
    }

    pub fn fenced(&self, start: u64, len: u64) -> bool {
        !self.ready
            || self.faults.values().any(|f| f.start < start + len && start < f.start + f.len)
    }

    /// An application's write; `None` as a tag makes a new one.
    pub fn write(&mut self, start: u64, len: u64, tag: Option<u64>) {
        self.tags += 1;
        let tag = tag.unwrap_or(self.tags);
        let mut status = Status::Ok;
        for sector in start..start + len {
            if matches!(self.kind(sector), Some(Kind::PoisonData | Kind::PoisonSlot(_))) {
                if status == Status::Ok {
                    return self.open(start, len, status, true, tag);
                }
                break;
            }
            match self.write_through(sector, tag) {
                Status::Ok => {}
                failed => status = failed,
            }
        }
        if status == Status::Ok {
            self.acked.extend((start..start + len).map(|s| (s, tag)));
        } else {
            self.open(start, len, status, true, tag);
        }
    }

    /// An application's read: a fault, an error, or exactly what was acknowledged.
    pub fn read(&mut self, start: u64, len: u64) {
        for sector in start..start + len {
            let found = match self.kind(sector) {
                None if self.data_ok(sector) => self.data.get(&sector),
                Some(Kind::Mapped(slot)) if !self.bad_slots.contains(&slot.0) => {
                    self.spare.get(&slot.0)
                }
                None | Some(Kind::Mapped(_)) => {
                    return self.open(start, len, Status::Medium, false, 0);
                }
                Some(_) => {
                    self.errors += 1;
                    return;
                }
            };
            if let Some(acked) = self.acked.get(&sector) {
                assert_eq!(found, Some(acked), "sector {sector} reads what nobody acknowledged");
            }
        }
    }

    fn open(&mut self, start: u64, len: u64, status: Status, write: bool, tag: u64) {
        // An unacknowledged write may have changed some sectors, so nothing is known of them.
        if write {
            self.acked.retain(|s, _| !(start..start + len).contains(s));
        }
        let heal = write && status == Status::Ok;
        let flags = Flags { write, held: true, heal, ..Flags::default() };
        let fault = Fault {
            start,
            len,
            state: State::Open,
            flags,
            status,
            pieces: Vec::new(),
            placing: false,
            good: BTreeSet::new(),
            tag,
        };
        self.faults.insert(self.next, fault);
        self.next += 1;
        self.bell = true;
    }

    pub fn list(&mut self) -> (Instance, Vec<Listed>) {
        self.bell = false;
        let listed = |(&id, f): (&u64, &Fault)| Listed {
            id: FaultId(id),
            start: Sector(f.start),
            len: Sectors(f.len),
            state: f.state,
            flags: f.flags,
            status: f.status,
            deadline: None,
            pieces: if f.state == State::Busy { Vec::new() } else { f.pieces.clone() },
        };
        (self.instance(), self.faults.iter().map(listed).collect())
    }

    fn units(piece: &Piece) -> Option<std::ops::Range<u64>> {
        match piece.kind {
            Some(Kind::Mapped(slot)) => Some(slot.0..slot.0 + piece.len.round_up(AREA.unit).0),
            _ => None,
        }
    }

    fn slots_forget(&mut self, id: u64) {
        let fault = &self.faults[&id];
        if fault.placing {
            for unit in fault.pieces.iter().filter_map(|(p, _)| Self::units(p)).flatten() {
                if !self.retired.contains(&unit) {
                    self.used.remove(&unit);
                }
            }
        }
    }

    /// TRY or PLACE.
    pub fn start(&mut self, id: FaultId, place: bool, pieces: Vec<Piece>) -> Result<(), Refusal> {
        let fault = self.faults.get(&id.0).ok_or(Refusal::NoFault)?;
        let io = fault.flags.held && fault.flags.write;
        if fault.state == State::Busy
            || fault.state == State::Placed && !(place && fault.flags.held)
        {
            return Err(Refusal::Busy);
        }
        assert!(place || io, "TRY is for held writes");
        assert!(pieces.len() <= 1024);
        let mut done = 0;
        let mut slots = BTreeSet::new();
        for piece in &pieces {
            let (from, to) = (piece.offset.0, (piece.offset + piece.len).0);
            assert!(from >= done && to <= fault.len && from < to, "pieces out of order");
            assert_eq!((from % self.block, to % self.block), (0, 0));
            for offset in from..to {
                let there = self.kind(fault.start + offset);
                let allowed = match piece.kind {
                    None => !place && matches!(there, None | Some(Kind::Mapped(_))),
                    Some(Kind::Mapped(_)) => place,
                    Some(Kind::PoisonData) => !fault.flags.write && there.is_none(),
                    Some(Kind::PoisonSlot(slot)) => {
                        !fault.flags.write
                            && there == Some(Kind::Mapped(slot + Sectors(offset - from)))
                    }
                };
                assert!(allowed, "{piece:?} over {there:?}");
            }
            if place && io {
                self.no_poison(fault.start + done, fault.start + from);
            }
            if let Some(units) = Self::units(piece) {
                assert_eq!(units.start % AREA.unit.0, 0);
                assert!(
                    units.start >= self.area.start.0
                        && units.end <= (self.area.start + self.area.len).0
                );
                let own = fault.placing
                    && fault.pieces.iter().any(|(old, status)| {
                        old.kind == piece.kind && old.len >= piece.len && *status == Status::Ok
                    });
                for unit in units {
                    assert!(slots.insert(unit), "two pieces share a slot");
                    if self.used.contains(&unit) && !own {
                        return Err(Refusal::Exists);
                    }
                    assert!(!self.installed.contains(&unit), "an installed slot is used again");
                }
            }
            done = to;
        }
        if place && io {
            self.no_poison(fault.start + done, fault.start + fault.len);
        }
        self.slots_forget(id.0);
        self.used.extend(slots);
        if let Some(fault) = self.faults.get_mut(&id.0) {
            fault.placing = place;
            fault.pieces = pieces.into_iter().map(|p| (p, Status::Ok)).collect();
            fault.state = if io { State::Busy } else { State::Placed };
            fault.flags.pinned |= !io;
            self.bell |= !io;
        }
        Ok(())
    }

    fn no_poison(&self, from: u64, to: u64) {
        let poison = |s| matches!(self.kind(s), Some(Kind::PoisonData | Kind::PoisonSlot(_)));
        assert!(!(from..to).any(poison), "a write must place all poison that it covers");
    }

    /// The I/O of a busy fault ends.
    pub fn finish(&mut self, id: u64) {
        let Some(mut fault) = self.faults.remove(&id) else { return };
        let (start, tag, placing) = (fault.start, fault.tag, fault.placing);
        let mut failed = false;
        let mut listed = BTreeSet::new();
        for (piece, result) in &mut fault.pieces {
            for i in 0..piece.len.0 {
                let offset = piece.offset.0 + i;
                listed.insert(offset);
                let status = match piece.kind {
                    Some(Kind::Mapped(slot)) => {
                        self.lost.remove(&(slot.0 + i));
                        self.volatile.insert(slot.0 + i);
                        self.write_slot(slot.0 + i, tag)
                    }
                    _ => self.write_through(start + offset, tag),
                };
                if status != Status::Ok {
                    *result = status;
                }
            }
            failed |= *result != Status::Ok;
            if placing && *result != Status::Ok {
                self.retired.extend(Self::units(piece).into_iter().flatten());
            }
            if !placing && *result == Status::Ok {
                fault.good.extend(piece.offset.0..(piece.offset + piece.len).0);
            }
        }
        for offset in 0..if placing { fault.len } else { 0 } {
            if !listed.contains(&offset) && !fault.good.contains(&offset) {
                failed |= self.write_through(start + offset, tag) != Status::Ok;
            }
        }
        let placed = placing && !failed;
        fault.state = if placed { State::Placed } else { State::Open };
        fault.flags.pinned |= placed;
        self.faults.insert(id, fault);
        self.bell = true;
    }

    /// A flush of the spare ends that was sent when `covered` was volatile.
    pub fn flushed(&mut self, ok: bool, covered: &BTreeSet<u64>) {
        if ok {
            self.volatile.retain(|slot| !covered.contains(slot));
        } else {
            self.lost.append(&mut self.volatile);
        }
    }

    /// The deadline of a held bio.
    pub fn expire(&mut self, id: u64) {
        let Some(fault) = self.faults.get_mut(&id) else { return };
        if fault.state == State::Busy || !fault.flags.held {
            return;
        }
        fault.flags.held = false;
        self.errors += 1;
        if !fault.flags.pinned {
            self.slots_forget(id);
            self.faults.remove(&id);
        }
    }

    pub fn fail(&mut self, id: FaultId) -> Result<(), Refusal> {
        let fault = self.faults.get(&id.0).filter(|f| f.flags.held).ok_or(Refusal::NoFault)?;
        assert_ne!(fault.state, State::Busy);
        self.expire(id.0);
        Ok(())
    }

    pub fn release(&mut self, id: FaultId) -> Result<(), Refusal> {
        let fault = self.faults.get(&id.0).ok_or(Refusal::NoFault)?;
        assert_ne!(fault.state, State::Busy);
        self.slots_forget(id.0);
        if let Some(fault) = self.faults.remove(&id.0).filter(|f| f.flags.held) {
            if fault.flags.write {
                self.write(fault.start, fault.len, Some(fault.tag));
            } else {
                self.read(fault.start, fault.len);
            }
        }
        Ok(())
    }

    pub fn install(&mut self, commit: u64, ids: &[FaultId]) -> Result<(), Refusal> {
        assert!(commit >= self.commit);
        for id in ids.iter().filter(|id| self.faults.contains_key(&id.0)) {
            assert_eq!(self.faults[&id.0].state, State::Placed);
        }
        self.commit = commit;
        for id in ids {
            let Some(fault) = self.faults.remove(&id.0) else { continue };
            for (piece, _) in &fault.pieces {
                let start = Sector(fault.start) + piece.offset;
                if let Some(kind) = piece.kind {
                    self.table.apply(&Change::Set(Extent { start, len: piece.len, kind }));
                }
                self.installed.extend(Self::units(piece).into_iter().flatten());
            }
            for (slot, len) in self.table.retired() {
                self.retired.extend(slot.0..(slot + len).0);
            }
            if fault.flags.held && fault.flags.write {
                let sectors = fault.start..fault.start + fault.len;
                self.acked.extend(sectors.map(|s| (s, fault.tag)));
            } else if fault.flags.held {
                self.read(fault.start, fault.len);
            }
        }
        Ok(())
    }

    /// What a direct read of a device finds.
    pub fn probe(&self, span: &Span) -> Status {
        let bad = match span.at {
            At::Data(at) => (at.0..at.0 + span.len.0).any(|s| !self.data_ok(s)),
            At::Spare(at) => self.bad_slots.range(at.0..at.0 + span.len.0).next().is_some(),
        };
        if bad { Status::IoErr } else { Status::Ok }
    }

    pub fn load(&mut self, load: &[Load]) {
        for load in load {
            let change = match *load {
                Load::Extent(extent) => Change::Set(extent),
                Load::Retired { slot, len } => Change::Retire { slot, len },
            };
            self.table.apply(&change);
        }
        let slots = self.table.extents().filter_map(|e| Some((e.kind.slot()?, e.len)));
        for (slot, len) in slots.chain(self.table.retired()) {
            self.used.extend(slot.0..(slot + len).0);
        }
    }
}
