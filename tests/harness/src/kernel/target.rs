//! `target.c`: map and end_io; and what device-mapper and the applications do around them.

use super::bio::{Bio, Failure, Flight, Io, IoKind, Reason, Sts, Trip, Why};
use super::{Suspend, What};
use crate::disk::{DiskError, SECTOR};
use crate::script::Which;
use crate::sys::{Ev, Sys};

/// The content of a sector says who wrote it, and where it belongs.
pub fn fill(buf: &mut [u8], tag: u64, start: u64) {
    for (sector, chunk) in (start..).zip(buf.chunks_mut(SECTOR)) {
        chunk[..8].copy_from_slice(&tag.to_le_bytes());
        chunk[8..16].copy_from_slice(&sector.to_le_bytes());
        chunk[16..24].copy_from_slice(&(!tag).to_le_bytes());
    }
}

/// The tag of a sector's content; `None` for what nobody wrote there.
pub fn parse(chunk: &[u8], sector: u64) -> Option<u64> {
    let word = |at: usize| chunk[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(0);
    (word(8) == sector && word(16) == !word(0)).then(|| word(0))
}

/// What a read of a content that nobody wrote reports.
pub const GARBAGE: u64 = u64::MAX;

impl Sys {
    /// An application's I/O. `id` is the content of a write.
    pub fn submit(&mut self, id: u64, kind: IoKind, range: (u64, u64), fua: bool, ahead: bool) {
        let (start, len) = range;
        let io = Io {
            id,
            kind,
            start,
            len,
            fua,
            ahead,
            submitted: self.now,
            left: 1,
            failures: Vec::new(),
            found: Vec::new(),
        };
        self.oracle.submit(&io);
        let io = self.k.ios.add(io);
        if self.k.suspend != Suspend::No {
            self.k.deferred.push_back((io, start, len));
        } else {
            self.enter(io, start, len);
        }
        self.put_io(io);
    }

    /// Splits at the edges that map finds.
    pub(super) fn enter(&mut self, io: usize, start: u64, len: u64) {
        let Io { kind, id, fua, ahead, .. } = self.k.ios[io];
        let dests: &[Which] =
            if kind == IoKind::Flush { &[Which::Data, Which::Spare] } else { &[Which::Data] };
        for &dest in dests {
            let (mut at, mut left) = (start, len);
            loop {
                self.k.ios[io].left += 1;
                let bio = self.k.bios.add(Bio {
                    io,
                    kind,
                    start: at,
                    len: left,
                    fua,
                    ahead,
                    tag: id,
                    generation: self.k.generation,
                    fails: [0; 2],
                    owes: [false; 2],
                    flushing: false,
                    dest,
                    dest_sector: 0,
                    held: false,
                    taken: false,
                    deadline: 0,
                    reason: Reason::None,
                    next: Reason::None,
                    error: Sts::Ok,
                    status: Sts::Ok,
                    pending: 0,
                    why: Why::None,
                    fault: None,
                    found: Vec::new(),
                });
                let taken = self.map(bio);
                at += taken;
                left -= taken;
                if left == 0 {
                    break;
                }
            }
        }
    }

    /// Returns how much of the bio it takes.
    fn map(&mut self, b: usize) -> u64 {
        let (kind, start, len) = (self.k.bios[b].kind, self.k.bios[b].start, self.k.bios[b].len);
        if kind == IoKind::Flush {
            let dest = self.k.bios[b].dest;
            self.sends(b);
            self.k.bios[b].owes[dest as usize] = true;
            match self.k.ready {
                true => self.go(b, dest, 0),
                false => self.hold_or_end(b, Reason::Park, Sts::Ok),
            }
            return len;
        }
        if self.fua_fails(b) {
            self.end(b, Sts::Io, Why::Flush);
            return len;
        }
        let place = self.lookup(start, len);
        self.k.bios[b].len = place.len;
        let write = kind == IoKind::Write;
        match place.what {
            What::Go => self.go(b, place.dest, place.sector),
            What::Poisoned if !write => {
                self.k.counts.poison_reads += 1;
                self.end(b, Sts::Medium, Why::Poison);
            }
            _ if self.k.bios[b].ahead => self.end(b, Sts::Io, Why::Ahead),
            What::Fenced => self.hold_or_end(b, Reason::Park, Sts::Ok),
            What::Poisoned => self.hold_or_end(b, Reason::Heal, Sts::Medium),
        }
        place.len
    }

    fn go(&mut self, b: usize, dest: Which, sector: u64) {
        if self.k.bios[b].fua {
            self.sends(b);
        }
        let owed = self.fua_owed(b, dest);
        let bio = &mut self.k.bios[b];
        bio.dest = dest;
        bio.dest_sector = sector;
        let Bio { kind, start, len, tag, fua, generation, .. } = *bio;
        let fua = fua && !owed;
        self.fly(Flight {
            bio: b,
            trip: Trip::Own,
            kind,
            dest,
            sector,
            start,
            len,
            tag,
            fua,
            generation,
            done: None,
            found: Vec::new(),
        });
    }

    pub(super) fn fly(&mut self, mut flight: Flight) {
        // A device ends one flush before it begins the next, so that its failure is counted by then.
        if flight.kind != IoKind::Flush && !self.steady && self.rng.below(4) == 0 {
            self.land(&mut flight);
        }
        let slow = std::mem::take(&mut self.slow[flight.dest as usize]);
        let latency = if self.steady { 100 } else { self.rng.range(20, 200) } + slow;
        let at = self.k.flights.add(flight);
        self.kernel_in(latency, Ev::Io(at));
    }

    /// It takes effect.
    fn land(&mut self, flight: &mut Flight) {
        let fate = if self.steady { u64::MAX } else { self.rng.bits() };
        let disk = match flight.dest {
            Which::Data => &mut self.data,
            Which::Spare => &mut self.spare,
        };
        let result = match flight.kind {
            IoKind::Flush => disk.flush(),
            IoKind::Write => {
                let mut buf = vec![0; flight.len as usize * SECTOR];
                fill(&mut buf, flight.tag, flight.start);
                disk.write(flight.sector, &buf, false, flight.fua, fate)
            }
            IoKind::Read => {
                let mut buf = vec![0; flight.len as usize * SECTOR];
                let result = disk.read(flight.sector, &mut buf);
                let content = |(sector, chunk)| (sector, parse(chunk, sector).unwrap_or(GARBAGE));
                flight.found = (flight.start..).zip(buf.chunks(SECTOR)).map(content).collect();
                result
            }
        };
        if flight.kind == IoKind::Flush && result.is_err() {
            self.oracle.flush_failed(flight.dest, self.now, false);
        }
        self.hiccuped();
        let hiccuped = std::mem::take(&mut self.data.hiccuped);
        if result.is_err() && flight.dest == Which::Data && self.is_try(flight) {
            let Flight { start, len, .. } = *flight;
            match hiccuped {
                true => self.oracle.excuses.seemed_bad(start, len),
                false if self.data.storm => self.oracle.excuses.tried_in_a_storm(start, len),
                false => {}
            }
        }
        flight.done = Some(match result {
            Ok(()) => Sts::Ok,
            Err(DiskError::Medium) => Sts::Medium,
            Err(DiskError::Io) => Sts::Io,
            Err(DiskError::Gone) => Sts::Other,
        });
    }

    fn is_try(&self, flight: &Flight) -> bool {
        let fault = self.k.bios[flight.bio].fault;
        let placing = self.k.faults.iter().any(|f| Some(f.id) == fault && f.placing);
        matches!(flight.trip, Trip::Clone { piece: Some(_) }) && !placing
    }

    /// It is back.
    pub(super) fn landed(&mut self, at: usize) {
        if self.k.flights.get(at).is_some_and(|flight| self.stalled[flight.dest as usize]) {
            return self.kernel_in(1000, Ev::Io(at));
        }
        let Some(mut flight) = self.k.flights.take(at) else { return };
        if flight.done.is_none() {
            self.land(&mut flight);
        }
        let status = flight.done.unwrap_or(Sts::Other);
        match flight.trip {
            Trip::Own => {
                if status == Sts::Ok {
                    self.k.bios[flight.bio].found.append(&mut flight.found);
                }
                self.end_io(flight.bio, status);
            }
            Trip::Clone { piece } => self.clone_end_io(flight, piece, status),
        }
    }

    fn end_io(&mut self, b: usize, status: Sts) {
        let bio = &self.k.bios[b];
        if bio.kind == IoKind::Flush {
            let dest = bio.dest;
            let status = self.flush_done(b, dest, status);
            return self.end(b, status, Why::Flush);
        }
        let Bio { kind, generation, start, len, dest, dest_sector, .. } = *bio;
        if status != Sts::Ok && !self.may_fault(b, status) {
            return self.end(b, status, Why::Class);
        }
        match self.need(status, kind, generation, (start, len), (dest, dest_sector)) {
            Reason::None => match self.written(b) {
                Reason::None => self.end(b, Sts::Ok, Why::None),
                reason => self.hold_or_end(b, reason, Sts::Ok),
            },
            reason => self.hold_or_end(b, reason, status),
        }
    }

    /// `dmr_end`: the bio is on no list.
    pub(super) fn end(&mut self, b: usize, status: Sts, why: Why) {
        let Some(bio) = self.k.bios.take(b) else { return };
        if bio.held {
            self.k.held_bios[usize::from(bio.taken)] -= 1;
            self.k.held_sectors[usize::from(bio.taken)] -= bio.len;
        }
        if status == Sts::Requeue {
            // A flush comes again as a whole, though it is one for each disk.
            let again = |&(io, ..): &(usize, u64, u64)| io == bio.io;
            if bio.kind != IoKind::Flush || !self.k.deferred.iter().any(again) {
                self.k.deferred.push_back((bio.io, bio.start, bio.len));
            }
            self.k.ios[bio.io].left -= 1;
            return self.drained();
        }
        if status == Sts::Ok {
            self.k.ios[bio.io].found.extend(bio.found);
        } else {
            let Bio { start, len, .. } = bio;
            self.k.ios[bio.io].failures.push(Failure { start, len, status, why });
        }
        self.put_io(bio.io);
        self.drained();
    }

    pub(super) fn put_io(&mut self, at: usize) {
        let waits = self.k.deferred.iter().any(|&(io, ..)| io == at);
        let io = &mut self.k.ios[at];
        io.left -= 1;
        if io.left > 0 || waits {
            return;
        }
        if let Some(io) = self.k.ios.take(at) {
            self.say(|| {
                let status = io.status();
                format!(
                    "  io {} {:?} {}+{} {:?} {:?}",
                    io.id, io.kind, io.start, io.len, status, io.failures
                )
            });
            self.oracle.complete(&io, self.now);
            if self.steady {
                self.ended.push(io);
            }
        }
    }
}
