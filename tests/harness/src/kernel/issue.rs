//! `issue.c`: where a sector lives now, and the clones that take a held bio there.

use dmremap_protocol::uapi::{FaultState, Status};

use super::bio::{Flight, IoKind, Reason, Sts, Trip, Why};
use super::fault::wire;
use super::{Cell, Place, What};
use crate::script::Which;
use crate::sys::Sys;

impl Sys {
    fn lookup_extent(&self, sector: u64, len: u64) -> Place {
        let (cell, len) = self.k.run(sector, len);
        match cell {
            Cell::Direct => Place { what: What::Go, dest: Which::Data, sector, len },
            Cell::Mapped(slot) => Place { what: What::Go, dest: Which::Spare, sector: slot, len },
            _ => Place { what: What::Poisoned, dest: Which::Data, sector, len },
        }
    }

    pub fn lookup(&self, sector: u64, len: u64) -> Place {
        let fenced = |len| Place { what: What::Fenced, dest: Which::Data, sector, len };
        if !self.k.ready {
            return fenced(len);
        }
        let mut len = len;
        let mut hidden = false;
        for f in &self.k.faults {
            let edge = if f.start > sector { f.start } else { f.start + f.len };
            if edge <= sector {
                continue;
            }
            len = len.min(edge - sector);
            if f.start <= sector {
                hidden = true;
                break;
            }
        }
        if hidden { fenced(len) } else { self.lookup_extent(sector, len) }
    }

    /// Would what went to this place with this generation go elsewhere?
    fn stale(&self, generation: u64, sector: u64, len: u64, dest: Which, at: u64) -> bool {
        if generation == self.k.generation {
            return false;
        }
        if generation < self.k.direct_generation {
            return true;
        }
        let p = self.lookup(sector, len);
        p.what != What::Go || p.dest != dest || p.sector != at || p.len < len
    }

    /// What becomes of I/O that has returned; of none, that it ends.
    pub(super) fn need(
        &mut self,
        status: Sts,
        kind: IoKind,
        generation: u64,
        (start, len): (u64, u64),
        (dest, sector): (Which, u64),
    ) -> Reason {
        if status == Sts::Ok && kind != IoKind::Write {
            return Reason::None;
        }
        if !self.stale(generation, start, len, dest, sector) {
            return if status == Sts::Ok { Reason::None } else { Reason::Fault };
        }
        self.k.counts.redone += 1;
        Reason::Redo
    }

    fn note(&mut self, b: usize, status: Sts, next: Reason) {
        let bio = &mut self.k.bios[b];
        if status != Sts::Ok {
            bio.status = status;
        }
        bio.next = bio.next.max(next);
    }

    fn put_pending(&mut self, b: usize) {
        let bio = &mut self.k.bios[b];
        bio.pending -= 1;
        if bio.pending > 0 {
            return;
        }
        let (mut next, status, why) = (bio.next, bio.status, bio.why);
        if bio.fault.is_some() {
            self.hold(b, Reason::OpDone, Sts::Ok);
            return;
        }
        if next == Reason::None && status == Sts::Ok {
            next = self.written(b);
        }
        if next == Reason::None || status != Sts::Ok && !self.may_fault(b, status) {
            let why = if why == Why::None { Why::Class } else { why };
            self.end(b, status, why);
        } else {
            self.hold_or_end(b, next, status);
        }
    }

    pub(super) fn clone_end_io(&mut self, mut flight: Flight, piece: Option<usize>, status: Sts) {
        let b = flight.bio;
        if let Some(id) = self.k.bios[b].fault {
            let fault = self.k.faults.iter_mut().find(|f| f.id == id);
            match (fault, piece, status) {
                (_, _, Sts::Ok) | (None, ..) => {}
                (Some(fault), Some(piece), _) => fault.pieces[piece].result = wire(status),
                (Some(fault), None, _) => fault.rest_failed = true,
            }
        } else if flight.kind == IoKind::Flush {
            let status = self.flush_done(b, flight.dest, status);
            self.k.bios[b].why = Why::Flush;
            self.note(b, status, Reason::None);
        } else {
            let Flight { kind, generation, start, len, dest, sector, .. } = flight;
            let need = self.need(status, kind, generation, (start, len), (dest, sector));
            self.note(b, status, need);
            if status == Sts::Ok {
                self.k.bios[b].found.append(&mut flight.found);
            }
        }
        self.put_pending(b);
    }

    fn submit_clone(
        &mut self,
        b: usize,
        piece: Option<usize>,
        generation: u64,
        start: u64,
        p: Place,
    ) {
        let flush = self.k.bios[b].is_flush();
        let fua = piece.is_none() && !flush && !self.fua_owed(b, p.dest);
        let bio = &mut self.k.bios[b];
        bio.pending += 1;
        let flight = Flight {
            bio: b,
            trip: Trip::Clone { piece },
            kind: if flush { IoKind::Flush } else { bio.kind },
            dest: p.dest,
            sector: p.sector,
            start,
            len: p.len,
            tag: bio.tag,
            fua: fua && bio.fua,
            generation,
            done: None,
            found: Vec::new(),
        };
        self.fly(flight);
    }

    /// Sends a held bio through the table, cut at its edges.
    pub(super) fn issue(&mut self, b: usize) {
        let generation = self.k.generation;
        let fua_fails = self.fua_fails(b);
        let bio = &mut self.k.bios[b];
        bio.status = Sts::Ok;
        bio.next = Reason::None;
        bio.pending = 1;
        bio.found.clear();
        bio.why = Why::None;
        let (kind, mut sector, mut left) = (bio.kind, bio.start, bio.len);
        let (flush, owes) = (bio.is_flush(), bio.owes);
        if !flush && fua_fails {
            bio.why = Why::Flush;
            self.note(b, Sts::Io, Reason::None);
            left = 0;
        }
        if flush {
            for dest in [Which::Data, Which::Spare].into_iter().filter(|&d| owes[d as usize]) {
                let place = Place { what: What::Go, dest, sector: 0, len: 0 };
                self.submit_clone(b, None, generation, 0, place);
            }
            left = 0;
        } else {
            self.sends(b);
        }
        while left > 0 {
            let p = self.lookup(sector, left);
            match p.what {
                What::Fenced => {
                    self.note(b, Sts::Ok, Reason::Park);
                    break;
                }
                What::Poisoned if kind == IoKind::Write => {
                    self.note(b, Sts::Medium, Reason::Heal);
                    break;
                }
                What::Poisoned => {
                    self.k.counts.poison_reads += 1;
                    self.k.bios[b].why = Why::Poison;
                    self.note(b, Sts::Medium, Reason::None);
                    break;
                }
                What::Go => self.submit_clone(b, None, generation, sector, p),
            }
            sector += p.len;
            left -= p.len;
        }
        self.put_pending(b);
    }

    fn write_rest(&mut self, b: usize, piece: Option<usize>, mut start: u64, end: u64) {
        while start < end {
            let p = self.lookup_extent(start, end - start);
            self.submit_clone(b, piece, 0, start, p);
            start += p.len;
        }
    }

    /// TRY or PLACE for a held write.
    pub(super) fn operate(&mut self, id: u64) {
        let Some(at) = self.k.faults.iter().position(|f| f.id == id) else { return };
        let fault = &mut self.k.faults[at];
        let Some(b) = fault.bio.filter(|_| fault.state == FaultState::Busy) else { return };
        fault.pieces.iter_mut().for_each(|p| p.result = Status::Ok);
        let (start, len, placing) = (fault.start, fault.len, fault.placing);
        let pieces = fault.pieces.clone();
        self.sends(b);
        self.k.bios[b].pending = 1;
        let mut done = start;
        for (i, piece) in pieces.iter().enumerate() {
            let from = start + u64::from(piece.offset);
            let to = from + u64::from(piece.len);
            if placing {
                self.write_rest(b, None, done, from);
                let (sector, len) = (piece.slot, to - from);
                let place = Place { what: What::Go, dest: Which::Spare, sector, len };
                self.submit_clone(b, Some(i), 0, from, place);
            } else {
                self.write_rest(b, Some(i), from, to);
            }
            done = to;
        }
        if placing {
            self.write_rest(b, None, done, start + len);
        }
        self.put_pending(b);
    }
}
