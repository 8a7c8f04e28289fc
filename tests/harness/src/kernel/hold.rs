//! `hold.c`: bios that cannot go on.

use dmremap_protocol::uapi::FaultState;

use super::Suspend;
use super::bio::{Reason, Sts, Why};
use crate::sys::{Ev, Sys};

const TICK: u64 = 250_000;
/// Of `max_held_kib`, which is always the default.
const MAX_SECTORS: u64 = 2 * 65_536;

impl Sys {
    pub(super) fn may_fault(&mut self, b: usize, status: Sts) -> bool {
        let bio = &self.k.bios[b];
        let may = matches!(status, Sts::Medium | Sts::Io) && !bio.is_flush() && !bio.ahead;
        self.k.counts.passed += u64::from(!may);
        may
    }

    pub(super) fn last_word(&self, b: usize) -> Sts {
        match self.k.bios[b].error {
            Sts::Ok => Sts::Io,
            error => error,
        }
    }

    /// How a hold ends without a verdict.
    pub(super) fn hold_over(&mut self, b: usize) -> Option<(Sts, Why)> {
        if matches!(self.k.suspend, Suspend::Flushing { noflush: true }) {
            return Some((Sts::Requeue, Why::None));
        }
        let bio = &self.k.bios[b];
        if !bio.held || self.now < bio.deadline {
            return None;
        }
        self.k.counts.expired += 1;
        Some((self.last_word(b), Why::Expired))
    }

    pub(super) fn queue_work(&mut self) {
        if !std::mem::replace(&mut self.k.work_due, true) {
            let delay = self.soon();
            self.kernel_in(delay, Ev::Work);
        }
    }

    pub(super) fn queue_deadlines(&mut self) {
        if !std::mem::replace(&mut self.k.deadlines_due, true) {
            self.kernel_in(TICK, Ev::Deadlines);
        }
    }

    /// Takes the bio, or says how it ends.
    pub(super) fn hold(&mut self, b: usize, reason: Reason, error: Sts) -> Option<(Sts, Why)> {
        let bio = &mut self.k.bios[b];
        if error != Sts::Ok {
            bio.error = error;
        }
        if reason != Reason::OpDone {
            if let Some(over) = self.hold_over(b) {
                return Some(over);
            }
        }
        let unowned = self.k.owner == 0 && !self.k.queue_unowned;
        if matches!(reason, Reason::Fault | Reason::Heal) && unowned {
            self.k.counts.unowned += 1;
            return Some((self.last_word(b), Why::Unowned));
        }
        let held = self.k.bios[b].held;
        let taken = reason == Reason::Redo;
        let sectors = self.k.bios[b].len;
        let (bios, held_sectors) = (self.k.held_bios[0], self.k.held_sectors[0]);
        let full = bios >= self.k.max_held || held_sectors + sectors > MAX_SECTORS;
        if !held && !taken && bios > 0 && full {
            self.k.counts.refused += 1;
            return Some((self.last_word(b), Why::Bound));
        }
        let us = if self.k.ready { self.k.hold_us } else { self.k.ready_us };
        let bio = &mut self.k.bios[b];
        if !held {
            bio.held = true;
            bio.taken = taken;
            bio.deadline = self.now + us;
            self.k.held_bios[usize::from(taken)] += 1;
            self.k.held_sectors[usize::from(taken)] += sectors;
        }
        bio.reason = reason;
        self.k.incoming.push(b);
        self.queue_work();
        self.queue_deadlines();
        None
    }

    pub(super) fn hold_or_end(&mut self, b: usize, reason: Reason, error: Sts) {
        if let Some((status, why)) = self.hold(b, reason, error) {
            self.end(b, status, why);
        }
    }

    pub(super) fn unpark(&mut self) {
        let parked = std::mem::take(&mut self.k.parked);
        for &b in &parked {
            self.k.bios[b].reason = Reason::Park;
        }
        self.k.incoming.extend(parked);
        self.queue_work();
    }

    fn is_fenced(&self, b: usize) -> bool {
        let bio = &self.k.bios[b];
        !self.k.ready
            || !bio.is_flush() && self.k.faults.iter().any(|f| f.overlaps(bio.start, bio.len))
    }

    pub(super) fn send(&mut self) {
        while let Some(b) = self.k.go.pop_front() {
            self.issue(b);
        }
    }

    pub(super) fn work(&mut self) {
        let mut ring = false;
        for b in std::mem::take(&mut self.k.incoming) {
            if self.k.bios[b].reason == Reason::OpDone {
                self.op_done(b);
                ring = true;
                continue;
            }
            if let Some((status, why)) = self.hold_over(b) {
                self.end(b, status, why);
            } else if self.k.bios[b].reason >= Reason::Heal {
                self.open_fault(b);
            } else if self.is_fenced(b) {
                self.k.parked.push(b);
            } else {
                self.k.go.push_back(b);
            }
        }
        if ring {
            self.ring();
        }
        if !std::mem::replace(&mut self.k.send_due, true) {
            let delay = self.soon();
            self.kernel_in(delay, Ev::Send);
        }
    }

    fn take_over(&mut self, from: Vec<usize>, out: &mut Vec<(usize, Sts, Why)>) -> Vec<usize> {
        let mut left = Vec::new();
        for b in from {
            let busy = self.k.bios[b].reason == Reason::OpDone;
            match if busy { None } else { self.hold_over(b) } {
                Some((status, why)) => out.push((b, status, why)),
                None => left.push(b),
            }
        }
        left
    }

    /// Deadlines, and a noflush suspend.
    pub(super) fn end_holds(&mut self) {
        let faults: Vec<(u64, usize)> = self
            .k
            .faults
            .iter()
            .filter(|f| f.state != FaultState::Busy)
            .filter_map(|f| Some((f.id, f.bio?)))
            .collect();
        for (id, b) in faults {
            if let Some((status, why)) = self.hold_over(b) {
                self.lose_bio(id);
                self.end(b, status, why);
            }
        }
        let mut out = Vec::new();
        let parked = std::mem::take(&mut self.k.parked);
        self.k.parked = self.take_over(parked, &mut out);
        let incoming = std::mem::take(&mut self.k.incoming);
        self.k.incoming = self.take_over(incoming, &mut out);
        let go = std::mem::take(&mut self.k.go);
        self.k.go = self.take_over(go.into(), &mut out).into();
        for (b, status, why) in out {
            self.end(b, status, why);
        }
    }
}
