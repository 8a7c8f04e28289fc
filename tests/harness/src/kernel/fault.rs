//! `fault.c`: faults, and the fences that they are to lookups.

use dmremap_protocol::Piece;
use dmremap_protocol::uapi::{FaultState, Kind, Status};

use super::bio::{IoKind, Reason, Sts};
use super::{Fault, MAX_FAULTS, RIVAL};
use crate::oracle::{FailedPlace, Trouble};
use crate::script::Which;
use crate::sys::{Ev, Sys};

pub(super) fn wire(status: Sts) -> Status {
    match status {
        Sts::Ok => Status::Ok,
        Sts::Medium => Status::Medium,
        Sts::Io => Status::Ioerr,
        Sts::Other | Sts::Requeue => Status::Other,
    }
}

impl Sys {
    pub(super) fn publish(&mut self) {
        if !std::mem::replace(&mut self.k.mapped, self.k.extents > 0)
            && self.k.mapped
            && self.k.ready
        {
            self.k.flush_bad[Which::Spare as usize] = false;
        }
        self.k.generation += 1;
    }

    /// Faults are listed when every lookup sees their fences.
    fn list_soon(&mut self) {
        if !std::mem::replace(&mut self.k.listing_due, true) {
            let delay = self.soon();
            self.kernel_in(delay, Ev::Listing);
        }
    }

    pub(super) fn listing(&mut self) {
        let mut ring = false;
        for fault in self.k.faults.iter_mut().filter(|f| !f.listed) {
            fault.listed = true;
            ring = true;
        }
        if ring {
            self.ring();
        }
    }

    /// `None`: the bound on faults is reached.
    pub(super) fn fault_new(&mut self, start: u64, len: u64) -> Option<usize> {
        if self.k.faults.len() >= MAX_FAULTS {
            return None;
        }
        let id = self.k.next_fault;
        self.k.next_fault += 1;
        self.k.counts.faults += 1;
        self.k.faults.push(Fault {
            opened: self.now,
            id,
            start,
            len,
            state: FaultState::Open,
            write: false,
            held: false,
            pinned: false,
            fence: false,
            heal: false,
            status: Status::Ok,
            listed: false,
            placing: false,
            rest_failed: false,
            installing: false,
            bio: None,
            pieces: Vec::new(),
        });
        self.publish();
        self.list_soon();
        Some(self.k.faults.len() - 1)
    }

    pub(super) fn open_fault(&mut self, b: usize) {
        let (start, len) = (self.k.bios[b].start, self.k.bios[b].len);
        let overlaps = self.k.faults.iter().any(|f| f.overlaps(start, len));
        let new = if overlaps { None } else { self.fault_new(start, len) };
        let Some(f) = new else {
            self.k.parked.push(b);
            return;
        };
        let bio = &mut self.k.bios[b];
        let fault = &mut self.k.faults[f];
        fault.held = true;
        fault.write = bio.kind == IoKind::Write;
        match bio.reason {
            Reason::Heal => fault.heal = true,
            _ => fault.status = wire(bio.error),
        }
        fault.bio = Some(b);
        bio.fault = Some(fault.id);
        let id = fault.id;
        self.say(|| format!("  fault {id} opens {start}+{len}"));
    }

    pub(super) fn slots_forget(&mut self, pieces: &[Piece]) {
        let unit = self.k.unit();
        for piece in pieces.iter().filter(|p| p.kind == Kind::Mapped) {
            for s in piece.slot..piece.slot + u64::from(piece.len).next_multiple_of(unit) {
                let at = (s - self.k.area_start()) as usize;
                if !self.k.retired[at] {
                    self.k.used[at] = false;
                }
            }
        }
    }

    /// Lifts the fence.
    pub(super) fn fault_end(&mut self, id: u64) {
        let Some(at) = self.k.faults.iter().position(|f| f.id == id) else { return };
        let fault = self.k.faults.remove(at);
        if fault.placing && !fault.installing {
            self.slots_forget(&fault.pieces);
        }
        if let Some(b) = fault.bio {
            self.k.bios[b].fault = None;
        }
        self.say(|| format!("  fault {id} ends"));
        self.publish();
        self.unpark();
    }

    /// Its bio leaves: an unpinned fault ends, a pinned one stays.
    pub(super) fn lose_bio(&mut self, id: u64) {
        let Some(fault) = self.k.faults.iter_mut().find(|f| f.id == id) else { return };
        fault.held = false;
        let pinned = fault.pinned;
        if let Some(b) = fault.bio.take() {
            self.k.bios[b].fault = None;
        }
        if !pinned {
            self.fault_end(id);
        }
    }

    /// The I/O of a TRY or PLACE has returned.
    pub(super) fn op_done(&mut self, b: usize) {
        let Some(id) = self.k.bios[b].fault else { return };
        let Some(at) = self.k.faults.iter().position(|f| f.id == id) else { return };
        let (placing, mut failed) = (self.k.faults[at].placing, self.k.faults[at].rest_failed);
        if placing {
            let unit = self.k.unit();
            let bad: Vec<(u64, u64)> = self.k.faults[at]
                .pieces
                .iter()
                .filter(|p| p.result != Status::Ok)
                .map(|p| (p.slot, u64::from(p.len).next_multiple_of(unit)))
                .collect();
            failed |= !bad.is_empty();
            if failed {
                let Fault { start, len, .. } = self.k.faults[at];
                let place = FailedPlace { at: self.now, start, len, rest: bad.is_empty() };
                self.oracle.excuses.place_failed(place);
            }
            for (slot, len) in bad {
                self.k.mark(slot, len, true, true);
                self.checks.slot_failed(slot, len);
            }
        }
        let fault = &mut self.k.faults[at];
        if placing && !failed {
            fault.state = FaultState::Placed;
            fault.pinned = true;
        } else {
            fault.state = FaultState::Open;
        }
        let state = fault.state;
        self.say(|| format!("  fault {id} {state:?}"));
        if let Some((status, why)) = self.hold_over(b) {
            self.lose_bio(id);
            self.end(b, status, why);
        }
    }

    /// Another owner comes: it lists, so that the bell is answered, sends back what no commit can name
    /// yet, and fences something.
    pub(crate) fn rival(&mut self, ms: u64) {
        self.owner_gone();
        self.k.owner = RIVAL;
        let now = self.now;
        self.oracle.excuses.set(Trouble::Unowned, now);
        self.fault_list(RIVAL);
        let open = |f: &&Fault| f.listed && f.state == FaultState::Open && !f.pinned;
        let open: Vec<u64> = self.k.faults.iter().filter(open).map(|f| f.id).collect();
        open.into_iter().for_each(|id| self.release(id).unwrap_or_default());
        let start = self.rng.below(self.k.sectors / 8) * 8;
        // Refused where a fault is.
        self.fence(start, 8).unwrap_or_default();
        self.kernel_in(ms * 1000, Ev::RivalLeaves);
    }

    pub(super) fn rival_leaves(&mut self) {
        if self.k.owner == RIVAL {
            self.owner_gone();
        }
    }

    pub(crate) fn owner_gone(&mut self) {
        self.k.owner = 0;
        self.oracle.excuses.set(Trouble::Unowned, u64::MAX);
        let fences: Vec<u64> =
            self.k.faults.iter().filter(|f| f.fence && !f.pinned).map(|f| f.id).collect();
        fences.into_iter().for_each(|id| self.fault_end(id));
    }
}
