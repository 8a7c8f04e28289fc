//! `kmod/`: the table, the one fault, and what becomes of bios. Functions are named like the module's.

use crate::bug::Bug;
use crate::daemon::{Daemon, Phase};
use crate::disk::{At, Extent, Whose};
use crate::state::{Bio, Broken, Flush, Progress, READ, Scenario, State, value};

/// Who has claimed the instance (`inst->owner`). At most one daemon lives; the claim of a dead one stays until
/// `socket_gone` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    Nobody,
    Living,
    Dead,
}

/// `enum dm_remap_fault_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Open,
    Busy,
    Placed,
}

/// `struct dmr_fault`. There is one range, so there is at most one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    pub stage: Stage,
    pub bio: Option<u8>,
    pub write: bool,
    pub heal: bool,
    pub pinned: bool,
    pub placing: bool,
    /// Of the last PLACE; with none the whole write goes to where the table points.
    pub piece: Option<Extent>,
    /// How the last TRY or PLACE ended.
    pub good: bool,
    /// Flushes that had failed when that began.
    pub fails: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kernel {
    pub ready: bool,
    pub table: Extent,
    pub fault: Option<Fault>,
    pub owner: Owner,
    /// The last commit installed here.
    pub commit: u8,
    pub used: u8,
    pub retired: u8,
    /// `inst->bell`, and a DOORBELL on its way.
    pub bell: bool,
    pub ringing: bool,
    /// Of the spare.
    pub flush_fails: u8,
    pub flush_bad: bool,
    pub flush_owed: bool,
    /// A noflush suspend.
    pub suspended: bool,
}

impl Kernel {
    pub fn created() -> Kernel {
        Kernel {
            ready: false,
            table: Extent::Direct,
            fault: None,
            owner: Owner::Nobody,
            commit: 0,
            used: 0,
            retired: 0,
            bell: false,
            ringing: false,
            flush_fails: 0,
            flush_bad: false,
            flush_owed: false,
            suspended: false,
        }
    }

    /// `dmr_ring()`
    pub fn ring(&mut self) {
        self.bell = true;
        self.ringing = true;
    }

    pub fn mark(&mut self, piece: Option<Extent>, used: bool) {
        if let Some(Extent::Mapped(slot)) = piece {
            if used {
                self.used |= 1 << slot;
            } else if self.retired >> slot & 1 == 0 {
                self.used &= !(1 << slot);
            }
        }
    }
}

impl State {
    pub fn fua(&self, s: &Scenario, b: usize) -> bool {
        b != READ && s.fua[b]
    }

    /// `dmr_lookup()`: none where a fence hides it.
    pub fn lookup(&self, s: &Scenario) -> Option<Extent> {
        let unready = !self.kernel.ready && !s.has(Bug::ServedUnready);
        (!unready && self.kernel.fault.is_none()).then_some(self.kernel.table)
    }

    /// `dmr_fua_fails()`
    pub fn fua_fails(&self, s: &Scenario, b: usize) -> bool {
        self.fua(s, b) && self.kernel.flush_bad && self.kernel.table != Extent::Direct
    }

    /// `dmr_map()` and `dmr_issue()`
    pub fn map(&mut self, s: &Scenario, b: usize) {
        if self.fua_fails(s, b) {
            return self.end(s, b, false);
        }
        match self.lookup(s) {
            None => self.park(b),
            Some(extent) if !extent.is_poison() => {
                self.bios[b].progress = Progress::Flying(extent.dest());
            }
            Some(_) if b == READ => {
                self.note_poisoned_read();
                self.end(s, b, false);
            }
            Some(_) => self.hold(s, b, true),
        }
    }

    fn park(&mut self, b: usize) {
        if self.over(b) {
            return;
        }
        self.bios[b].held = true;
        self.bios[b].progress = Progress::Parked;
    }

    /// `dmr_hold_over()`: ends the hold if a deadline or a noflush suspend does.
    fn over(&mut self, b: usize) -> bool {
        if self.kernel.suspended {
            self.bios[b] = Bio { progress: Progress::Requeued, ..Bio::UNSENT };
            true
        } else if self.bios[b].overdue {
            self.bios[b].progress = Progress::Failed;
            true
        } else {
            false
        }
    }

    /// `dmr_hold()` with DMR_FAULT or DMR_HEAL, then `dmr_work()`
    fn hold(&mut self, s: &Scenario, b: usize, heal: bool) {
        if self.over(b) {
            return;
        }
        if self.kernel.owner == Owner::Nobody && !s.queue {
            return self.end(s, b, false);
        }
        self.bios[b].held = true;
        if self.lookup(s).is_none() {
            self.bios[b].progress = Progress::Parked;
            return;
        }
        self.bios[b].progress = Progress::Held;
        self.kernel.fault = Some(Fault {
            stage: Stage::Open,
            bio: Some(b as u8),
            write: b != READ,
            heal,
            pinned: false,
            placing: false,
            piece: None,
            good: false,
            fails: 0,
        });
        self.kernel.ring();
    }

    /// `dmr_end()`
    pub fn end(&mut self, s: &Scenario, b: usize, ok: bool) {
        if matches!(self.bios[b].progress, Progress::Done | Progress::Failed) {
            self.break_with(Broken::Twice);
        }
        let progress = if ok { Progress::Done } else { Progress::Failed };
        self.bios[b] = Bio { progress, ..Bio::UNSENT };
        if ok && b != READ {
            let bad = self.disks.is_unreadable(self.kernel.table.dest());
            self.note_ack(b, self.fua(s, b), !bad);
        }
    }

    /// `dmr_end_io()`, of I/O that went well
    pub fn lands(&mut self, s: &Scenario, b: usize, at: At) {
        if b == READ {
            let found = self.disks.read(at);
            self.note_read(found);
            return self.end(s, b, true);
        }
        self.disks.write(at, value(b), self.fua(s, b));
        // `stale()`: it is not acknowledged yet, so it may be repeated.
        let there = self.lookup(s).is_some_and(|e| !e.is_poison() && e.dest() == at);
        if there || s.has(Bug::StaleWriteAcked) {
            self.end(s, b, true);
        } else {
            self.park(b);
        }
    }

    /// `dmr_end_io()`, of I/O that failed
    pub fn fails(&mut self, s: &Scenario, b: usize, at: At) {
        let there = self.lookup(s).is_some_and(|e| !e.is_poison() && e.dest() == at);
        if there { self.hold(s, b, false) } else { self.park(b) }
    }

    /// `map_flush()`
    pub fn flush_begins(&mut self) {
        self.disks.flush_sent(Whose::Application);
        self.flush = Some(Flush { count: self.kernel.flush_fails, covers: self.unflushed() });
    }

    /// `dmr_flush_done()`
    pub fn flush_done(&mut self, s: &Scenario, ok: bool) {
        let Some(flush) = self.flush.take() else { return };
        let k = &mut self.kernel;
        let mut told = ok;
        if !ok {
            k.flush_fails += 1;
            k.ring();
        } else if k.flush_fails != flush.count || k.flush_owed {
            k.flush_owed = false;
            told = false;
        }
        k.flush_bad = !told;
        if k.table == Extent::Direct || s.has(Bug::FlushFailureHidden) {
            told = true;
        }
        if told {
            self.note_flushed(flush.covers);
        } else {
            self.note_flush_failed();
        }
    }

    /// `dmr_flush_failed()`
    pub fn flush_failed_told(&mut self) {
        self.kernel.flush_fails += 1;
        self.kernel.flush_owed = true;
        self.kernel.flush_bad = true;
    }

    /// `op_done()` after `dmr_op_work()`: the pieces of a TRY or PLACE have been written.
    pub fn op_done(&mut self, s: &Scenario, good: bool) {
        let Some(mut f) = self.kernel.fault else { return };
        let Some(b) = f.bio.map(usize::from) else { return };
        let at = self.op_dest(&f);
        if good {
            self.disks.write(at, value(b), self.fua(s, b));
        }
        f.good = good;
        f.stage = Stage::Open;
        if let (true, false, At::Slot(slot), Some(_)) = (f.placing, good, at, f.piece) {
            self.kernel.retired |= 1 << slot;
            self.oracle.failed |= 1 << slot;
        }
        if f.placing && good {
            f.stage = Stage::Placed;
            f.pinned = true;
        }
        self.kernel.fault = Some(f);
        self.fault_expire(s);
        self.kernel.ring();
    }

    /// Where TRY or PLACE writes.
    pub fn op_dest(&self, f: &Fault) -> At {
        match f.piece {
            Some(piece) if f.placing => piece.dest(),
            _ => self.kernel.table.dest(),
        }
    }

    /// `dmr_fault_expire()`
    fn fault_expire(&mut self, s: &Scenario) {
        let Some(f) = self.kernel.fault.filter(|f| f.stage != Stage::Busy) else { return };
        let Some(b) = f.bio.map(usize::from) else { return };
        if self.over(b) {
            self.fault_lose_bio(s);
        }
    }

    /// `dmr_fault_lose_bio()`: an unpinned fault ends with its bio, a pinned one stays.
    pub fn fault_lose_bio(&mut self, s: &Scenario) {
        let Some(f) = &mut self.kernel.fault else { return };
        f.bio = None;
        if !f.pinned || s.has(Bug::PinnedEndsAtDeadline) {
            self.fault_end(false);
        }
    }

    /// `dmr_fault_end()`
    pub fn fault_end(&mut self, installed: bool) {
        let Some(f) = self.kernel.fault.take() else { return };
        if f.placing && !installed {
            self.kernel.mark(f.piece, false);
        }
        if let Some(known) = self.daemon.as_mut().and_then(|d| d.fault.as_mut()) {
            known.there = false;
        }
    }

    /// `dmr_deadline_work()`
    pub fn deadline(&mut self, s: &Scenario, b: usize) {
        self.bios[b].overdue = true;
        match self.bios[b].progress {
            Progress::Parked if !s.has(Bug::DeadlineLost) => _ = self.over(b),
            Progress::Held => self.fault_expire(s),
            _ => {}
        }
    }

    /// `dmr_presuspend()` with noflush: every hold ends, and goes back to device-mapper.
    pub fn presuspend(&mut self, s: &Scenario) {
        self.kernel.suspended = true;
        for b in 0..self.bios.len() {
            if self.bios[b].progress == Progress::Parked {
                self.over(b);
            }
        }
        self.fault_expire(s);
    }

    /// `dmr_preresume()`, of this table or of one that was loaded in its place
    pub fn preresume(&mut self) {
        self.kernel.suspended = false;
        if self.kernel.owner == Owner::Nobody {
            self.kernel.ring();
        }
    }

    /// `dmr_doorbell_work()`. It comes once a second: by then a daemon that has heard it has listed, and one that has
    /// lost its claim has found that out (`driver::LOOK`).
    pub fn doorbell_rings_again(&self, s: &Scenario) -> bool {
        let k = &self.kernel;
        let busy = |d: &Daemon| d.phase == Phase::Serving && (d.list || k.owner != Owner::Living);
        k.bell
            && !k.ringing
            && !self.daemon.as_ref().is_some_and(busy)
            && !s.has(Bug::DoorbellNotRepeated)
    }

    /// `socket_gone()` and `dmr_owner_gone()`
    pub fn owner_gone(&mut self, s: &Scenario) {
        self.kernel.owner = Owner::Nobody;
        let Some(f) = self.kernel.fault else { return };
        let held = f.bio.map(usize::from).filter(|_| f.stage == Stage::Placed && f.write);
        if let (true, Some(b)) = (s.has(Bug::AckAtOwnerDeath), held) {
            self.end(s, b, true);
            self.fault_lose_bio(s);
        }
        if s.has(Bug::PinnedEndsWithOwner) && f.pinned {
            self.bio_looks_again();
            self.fault_end(false);
        }
    }

    pub fn bio_looks_again(&mut self) {
        if let Some(b) = self.kernel.fault.and_then(|f| f.bio) {
            self.bios[usize::from(b)].progress = Progress::Parked;
        }
    }

    /// The power fails; what was under way ends without an answer.
    pub fn power_cut(&mut self) {
        self.kernel = Kernel::created();
        for bio in self.bios.iter_mut().filter(|bio| bio.is_under_way()) {
            *bio = Bio { progress: Progress::Failed, ..Bio::UNSENT };
        }
        self.flush = None;
        self.daemon = None;
        self.late = None;
        self.note_cut();
    }
}
