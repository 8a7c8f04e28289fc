//! `verdict.c`: the owner's words but for TRY and PLACE.

use dmremap_protocol::uapi::{FaultState, Kind, MAX_EXTENTS};
use dmremap_protocol::{Extent, Piece, SlotArea};
use nix::libc;

use super::Cell;
use super::bio::{Reason, Sts, Why};
use crate::oracle::Trouble;
use crate::sys::Sys;

type Done = Result<(), i32>;

/// Is a range within the first `size` sectors?
fn inside(start: u64, len: u64, size: u64) -> bool {
    len > 0 && len <= size && start <= size - len
}

fn cell(kind: Kind, slot: u64) -> Cell {
    match kind {
        Kind::Mapped => Cell::Mapped(slot),
        Kind::PoisonData => Cell::PoisonData,
        Kind::PoisonSlot => Cell::PoisonSlot(slot),
        Kind::Direct | Kind::Retired => Cell::Direct,
    }
}

impl Sys {
    pub(super) fn claim(&mut self, port: u32, area: SlotArea, commit: u64) -> Done {
        let unit = u64::from(area.unit);
        if !unit.is_power_of_two() || !(8..=2048).contains(&unit) || unit % self.k.block != 0 {
            return Err(libc::EINVAL);
        }
        let end = area.start.checked_add(area.sectors);
        if area.sectors == 0
            || area.start % unit != 0
            || area.sectors % unit != 0
            || end.is_none_or(|end| end > self.spare.sectors)
        {
            return Err(libc::ERANGE);
        }
        if self.k.owner != 0 && self.k.owner != port {
            return Err(libc::EBUSY);
        }
        if commit < self.k.commit {
            return Err(libc::ESTALE);
        }
        if self.k.slots.is_some_and(|slots| slots != area) {
            return Err(libc::EINVAL);
        }
        if !self.k.ready {
            self.memory()?;
            self.k.used = vec![false; area.sectors as usize];
            self.k.retired = vec![false; area.sectors as usize];
            self.k.slots = Some(area);
            self.k.set(0, self.k.sectors, Cell::Direct);
            self.k.loaded = 0;
        }
        if self.view.is_some() {
            self.oracle.violate("I6: a spare that was rolled back is served".into());
        }
        self.k.owner = port;
        let now = self.now;
        self.oracle.excuses.set(Trouble::Unowned, now);
        self.k.commit = commit;
        self.say(|| format!("  claimed by {port} at commit {commit}"));
        Ok(())
    }

    fn admit(&mut self, e: &Extent) -> Done {
        let (block, len) = (self.k.block, u64::from(e.len));
        if len == 0 || e.kind == Kind::Direct {
            return Err(libc::EINVAL);
        }
        if e.kind != Kind::PoisonData {
            if e.slot % block != 0 {
                return Err(libc::ERANGE);
            }
            self.slots_free(e.slot, len)?;
        } else if e.slot != 0 {
            return Err(libc::ERANGE);
        }
        if e.kind == Kind::Retired && e.start != 0 {
            return Err(libc::EINVAL);
        }
        if e.kind != Kind::Retired {
            let aligned = e.start % block == 0 && len % block == 0;
            if e.start < self.k.loaded || !inside(e.start, len, self.k.sectors) || !aligned {
                return Err(libc::ERANGE);
            }
            self.k.loaded = e.start + len;
        }
        if e.kind != Kind::PoisonData {
            self.k.mark(e.slot, len, true, false);
        }
        if e.kind == Kind::Retired {
            self.k.mark(e.slot, len, true, true);
        }
        Ok(())
    }

    pub(super) fn load(&mut self, extents: &[Extent]) -> Done {
        if self.k.ready {
            return Err(libc::EBUSY);
        }
        if self.k.extents as usize + extents.len() > MAX_EXTENTS {
            return Err(libc::ENOSPC);
        }
        let loaded = self.k.loaded;
        for (i, e) in extents.iter().enumerate() {
            if let Err(errno) = self.admit(e) {
                extents[..i].iter().for_each(|e| self.take_back(e));
                self.k.loaded = loaded;
                return Err(errno);
            }
        }
        for e in extents.iter().filter(|e| e.kind != Kind::Retired) {
            if let Err(errno) = self.table_set(e.start, u64::from(e.len), cell(e.kind, e.slot)) {
                extents.iter().for_each(|e| self.take_back(e));
                self.k.loaded = loaded;
                return Err(errno);
            }
        }
        Ok(())
    }

    fn take_back(&mut self, e: &Extent) {
        let len = u64::from(e.len);
        if e.kind != Kind::PoisonData {
            self.k.mark(e.slot, len, false, false);
        }
        if e.kind == Kind::Retired {
            self.k.mark(e.slot, len, false, true);
        }
    }

    pub(super) fn ready(&mut self) {
        if !self.k.ready {
            if self.k.extents == 0 {
                self.k.flush_owed = [false; 2];
            }
            self.publish();
            self.k.ready = true;
            self.unpark();
        }
    }

    /// Each extent inside goes by itself first, and may find no memory.
    fn table_set(&mut self, start: u64, len: u64, new: Cell) -> Done {
        let (mut at, end) = (start, start + len);
        while at < end {
            let (cell, run) = self.k.run(at, (end + 1).min(self.k.sectors) - at);
            let inside = self.k.begins[at as usize] && at + run <= end && run != len;
            if cell != Cell::Direct && inside {
                self.memory()?;
                self.k.set(at, run, Cell::Direct);
            }
            at += run;
        }
        self.memory()?;
        self.k.set(start, len, new);
        self.damaged(start, len);
        Ok(())
    }

    fn set_piece(&mut self, start: u64, p: &Piece) -> Done {
        let (at, len) = (start + u64::from(p.offset), u64::from(p.len));
        let new = cell(p.kind, p.slot);
        for i in 0..len {
            let old = self.k.cells[(at + i) as usize].slot();
            if let Some(slot) = old.filter(|_| p.kind == Kind::Mapped) {
                if old != new.advance(i).slot() {
                    self.k.mark(slot, 1, true, true);
                }
            }
        }
        if p.kind == Kind::Direct {
            self.k.direct_generation = self.k.generation + 1;
        }
        self.table_set(at, len, new)
    }

    pub(super) fn install(&mut self, commit: u64, ids: &[u64]) -> Done {
        if commit < self.k.commit {
            return Err(libc::ESTALE);
        }
        for &id in ids {
            match self.k.find(id) {
                None if id == 0 || id >= self.k.next_fault => return Err(libc::ENOENT),
                Some(f) if self.k.faults[f].state != FaultState::Placed => return Err(libc::EBUSY),
                _ => {}
            }
        }
        for &id in ids {
            let Some(f) = self.k.find(id) else { continue };
            self.k.faults[f].installing = true;
            let (start, pieces) = (self.k.faults[f].start, self.k.faults[f].pieces.clone());
            for piece in &pieces {
                self.set_piece(start, piece)?;
                self.checks.installed(start, piece, &self.oracle, &self.spare);
            }
        }
        self.k.commits += u64::from(commit > self.k.commit);
        self.k.commit = commit;
        self.publish();
        let mut done = Vec::new();
        for &id in ids {
            let Some(f) = self.k.find(id) else { continue };
            let fault = &self.k.faults[f];
            if let Some(b) = fault.bio {
                match fault.write && self.k.bios[b].fails == self.k.flush_fails {
                    true => done.push(b),
                    false => self.k.parked.push(b),
                }
            }
            if !fault.pieces.is_empty() {
                self.checks.committed(id);
            }
            self.fault_end(id);
            self.k.counts.installs += 1;
        }
        self.say(|| format!("  installed {ids:?} at commit {commit}"));
        for b in done {
            match self.written(b) {
                Reason::None if self.fua_fails(b) => self.end(b, Sts::Io, Why::Flush),
                Reason::None => self.end(b, Sts::Ok, Why::None),
                reason => self.hold_or_end(b, reason, Sts::Ok),
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self, id: u64) -> Done {
        let f = self.k.find(id).ok_or(libc::ENOENT)?;
        let fault = &self.k.faults[f];
        if fault.state == FaultState::Busy || fault.installing {
            return Err(libc::EBUSY);
        }
        let bio = fault.bio;
        self.k.parked.extend(bio);
        self.fault_end(id);
        self.k.counts.releases += 1;
        Ok(())
    }

    pub(super) fn fail(&mut self, id: u64) -> Done {
        let f = self.k.find(id).ok_or(libc::ENOENT)?;
        let b = self.k.faults[f].bio.ok_or(libc::ENOENT)?;
        if self.k.faults[f].state == FaultState::Busy {
            return Err(libc::EBUSY);
        }
        self.lose_bio(id);
        self.k.counts.fails += 1;
        let status = self.last_word(b);
        self.end(b, status, Why::Failed);
        Ok(())
    }

    pub(super) fn fence(&mut self, start: u64, len: u64) -> Result<u64, i32> {
        let block = self.k.block;
        if !inside(start, len, self.k.sectors) || start % block != 0 || len % block != 0 {
            return Err(libc::ERANGE);
        }
        if !self.k.ready || self.k.faults.iter().any(|f| f.overlaps(start, len)) {
            return Err(libc::EBUSY);
        }
        self.memory()?;
        let f = self.fault_new(start, len).ok_or(libc::EBUSY)?;
        self.k.faults[f].fence = true;
        self.k.faults[f].listed = true;
        Ok(self.k.faults[f].id)
    }
}
