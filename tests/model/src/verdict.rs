//! `kmod/verdict.c` and `kmod/place.c`: what the messages do. Each is refused whole, or done whole.

use crate::bug::Bug;
use crate::disk::Extent;
use crate::kernel::{Owner, Stage};
use crate::state::{Scenario, State};

/// How a request was answered.
pub type Answer = Result<(), Refusal>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NoFault,
    Busy,
    Exists,
    Stale,
}

impl State {
    /// CLAIM
    pub fn claim(&mut self, commit: u8) -> Answer {
        let k = &mut self.kernel;
        if k.owner == Owner::Dead {
            return Err(Refusal::Busy);
        }
        if commit < k.commit {
            return Err(Refusal::Stale);
        }
        if !k.ready {
            k.table = Extent::Direct;
            k.used = 0;
            k.retired = 0;
        }
        k.owner = Owner::Living;
        k.commit = commit;
        Ok(())
    }

    /// LOAD
    pub fn load(&mut self, table: Extent, retired: u8) {
        let k = &mut self.kernel;
        k.table = table;
        k.retired = retired;
        k.used = retired | table.slot().map_or(0, |slot| 1 << slot);
        self.oracle.installed |= table.slot().map_or(0, |slot| 1 << slot);
    }

    /// TRY and PLACE: `dmr_start_op()`
    pub fn start_op(&mut self, s: &Scenario, place: bool, piece: Option<Extent>) -> Answer {
        let k = &mut self.kernel;
        let Some(mut f) = k.fault else { return Err(Refusal::NoFault) };
        if f.stage == Stage::Busy || (f.stage == Stage::Placed && !(place && f.bio.is_some())) {
            return Err(Refusal::Busy);
        }
        if f.write && f.bio.is_none() && !s.has(Bug::PlacedUnwritten) {
            return Err(Refusal::NoFault);
        }
        let old = f.piece.filter(|_| f.placing);
        k.mark(old, false);
        if let Some(slot) = piece.filter(|p| !p.is_poison()).and_then(Extent::slot) {
            if k.used >> slot & 1 != 0 {
                k.mark(old, true);
                return Err(Refusal::Exists);
            }
            k.mark(piece, true);
            self.note_placed(slot);
        }
        f.piece = piece;
        f.placing = place;
        f.good = false;
        f.fails = self.kernel.flush_fails;
        f.stage = if f.write && f.bio.is_some() { Stage::Busy } else { Stage::Placed };
        if f.stage == Stage::Placed {
            f.pinned = true;
            self.kernel.ring();
        }
        self.kernel.fault = Some(f);
        Ok(())
    }

    /// INSTALL, of the fault if it is still there
    pub fn install(&mut self, s: &Scenario, there: bool, commit: u8) -> Answer {
        if commit < self.kernel.commit {
            return Err(Refusal::Stale);
        }
        self.kernel.commit = commit;
        let Some(f) = self.kernel.fault.filter(|_| there) else { return Ok(()) };
        if f.stage != Stage::Placed {
            return Err(Refusal::Busy);
        }
        if let Some(piece) = f.piece {
            // `retire_replaced()`
            if let Some(old) = self.kernel.table.slot().filter(|&old| piece.slot() != Some(old)) {
                self.kernel.retired |= 1 << old;
            }
            self.kernel.table = piece;
            self.oracle.installed |= piece.slot().map_or(0, |slot| 1 << slot);
        }
        let sound = f.fails == self.kernel.flush_fails || s.has(Bug::PlacedThoughFlushFailed);
        let written = f.write && sound;
        if !written {
            self.bio_looks_again();
        }
        self.fault_end(true);
        if let Some(b) = f.bio.map(usize::from).filter(|_| written) {
            let ok = !self.fua_fails(s, b);
            self.end(s, b, ok);
        }
        Ok(())
    }

    /// RELEASE
    pub fn release(&mut self) -> Answer {
        match self.kernel.fault {
            None => return Err(Refusal::NoFault),
            Some(f) if f.stage == Stage::Busy => return Err(Refusal::Busy),
            Some(_) => {}
        }
        self.bio_looks_again();
        self.fault_end(false);
        Ok(())
    }

    /// FAIL
    pub fn fail(&mut self, s: &Scenario) -> Answer {
        let Some(f) = self.kernel.fault else { return Err(Refusal::NoFault) };
        let Some(b) = f.bio.map(usize::from) else { return Err(Refusal::NoFault) };
        if f.stage == Stage::Busy {
            return Err(Refusal::Busy);
        }
        self.note_fail();
        self.end(s, b, false);
        self.fault_lose_bio(s);
        Ok(())
    }
}
