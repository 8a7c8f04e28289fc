//! `place.c`: TRY and PLACE, and what their pieces may be.

use dmremap_protocol::Piece;
use dmremap_protocol::uapi::{FaultState, Kind, MAX_EXTENTS, Status};
use nix::libc;

use super::{Cell, Fault};
use crate::sys::{Ev, Sys};

type Checked = Result<(), i32>;

fn is_sound(cell: Cell) -> bool {
    matches!(cell, Cell::Direct | Cell::Mapped(_))
}

impl Sys {
    fn covers_only(&self, start: u64, len: u64, kinds: impl Fn(Cell) -> bool) -> bool {
        (start..start + len).all(|s| kinds(self.k.cells[s as usize]))
    }

    fn in_area(&self, slot: u64, len: u64) -> bool {
        self.k.slots.is_some_and(|area| {
            slot >= area.start && len <= area.sectors && slot - area.start <= area.sectors - len
        })
    }

    pub(super) fn slots_free(&self, slot: u64, len: u64) -> Result<(), i32> {
        if !self.in_area(slot, len) {
            return Err(libc::ERANGE);
        }
        if self.k.is_used(slot, len) { Err(libc::EEXIST) } else { Ok(()) }
    }

    fn check_piece(&mut self, f: usize, place: bool, p: &Piece) -> Checked {
        let fault = &self.k.faults[f];
        let (offset, len) = (u64::from(p.offset), u64::from(p.len));
        let start = fault.start + offset;
        let units = len.next_multiple_of(self.k.unit());
        let block = self.k.block;
        if len == 0 || p.result != Status::Ok || offset % block != 0 || len % block != 0 {
            return Err(libc::EINVAL);
        }
        if offset > fault.len || len > fault.len - offset {
            return Err(libc::ERANGE);
        }
        let ok = if !place {
            p.kind == Kind::Direct && p.slot == 0 && self.covers_only(start, len, is_sound)
        } else {
            match p.kind {
                Kind::Direct => {
                    let kinds = |c| matches!(c, Cell::Mapped(_) | Cell::PoisonData);
                    p.slot == 0 && fault.bio.is_none() && self.covers_only(start, len, kinds)
                }
                Kind::Mapped => {
                    if p.slot % self.k.unit() != 0 {
                        return Err(libc::ERANGE);
                    }
                    self.slots_free(p.slot, units)?;
                    self.k.mark(p.slot, units, true, false);
                    return Ok(());
                }
                Kind::PoisonData => {
                    let write = fault.write;
                    p.slot == 0 && !write && self.covers_only(start, len, |c| c == Cell::Direct)
                }
                Kind::PoisonSlot => {
                    let same = self.k.run(start, len) == (Cell::Mapped(p.slot), len);
                    !fault.write && same
                }
                Kind::Retired => false,
            }
        };
        if ok { Ok(()) } else { Err(libc::EINVAL) }
    }

    /// How many pieces, from the first, are right.
    fn check_pieces(&mut self, f: usize, place: bool, pieces: &[Piece]) -> (usize, Checked) {
        let (start, len) = (self.k.faults[f].start, self.k.faults[f].len);
        let writes = self.k.faults[f].bio.is_some() && self.k.faults[f].write;
        let mut done = 0;
        for i in 0..=pieces.len() {
            let to = pieces.get(i).map_or(len, |p| u64::from(p.offset));
            let rest = || self.covers_only(start + done, to - done, is_sound);
            let result = if to < done || place && writes && to <= len && !rest() {
                Err(libc::EINVAL)
            } else if let Some(piece) = pieces.get(i) {
                self.check_piece(f, place, piece)
            } else {
                Ok(())
            };
            if result.is_err() || i == pieces.len() {
                return (i, result);
            }
            done = u64::from(pieces[i].offset) + u64::from(pieces[i].len);
        }
        (pieces.len(), Ok(()))
    }

    pub(super) fn start_op(&mut self, id: u64, place: bool, pieces: Vec<Piece>) -> Checked {
        let f = self.k.find(id).ok_or(libc::ENOENT)?;
        let fault = &self.k.faults[f];
        let held = fault.bio.is_some();
        let writes = held && fault.write;
        let placed = fault.state == FaultState::Placed;
        if fault.state == FaultState::Busy || fault.installing || placed && !(place && held) {
            return Err(libc::EBUSY);
        }
        if !place && !writes {
            return Err(libc::EINVAL);
        }
        if !held && fault.write {
            return Err(libc::ENOENT);
        }
        if place && self.k.extents as usize + 2 * pieces.len() > MAX_EXTENTS {
            return Err(libc::ENOSPC);
        }
        self.memory()?;
        let old = std::mem::take(&mut self.k.faults[f].pieces);
        let was_placing = self.k.faults[f].placing;
        if was_placing {
            self.slots_forget(&old);
        }
        let (good, result) = self.check_pieces(f, place, &pieces);
        if let Err(errno) = result {
            self.slots_forget(&pieces[..good]);
            if was_placing {
                let unit = self.k.unit();
                for p in old.iter().filter(|p| p.kind == Kind::Mapped) {
                    self.k.mark(p.slot, u64::from(p.len).next_multiple_of(unit), true, false);
                }
            }
            self.k.faults[f].pieces = old;
            return Err(errno);
        }
        if place {
            self.checks.placed(id, &pieces, self.k.unit());
            let Fault { start, opened, .. } = self.k.faults[f];
            if self.data.storm && self.storm_since <= opened {
                self.checks.placed_in_a_storm(start, &pieces, &self.oracle);
            }
        }
        self.say(|| {
            let piece = |p: &Piece| format!(" {}+{} {:?} {}", p.offset, p.len, p.kind, p.slot);
            let what = if place { "PLACE" } else { "TRY" };
            format!("  fault {id} {what}{}", pieces.iter().map(piece).collect::<String>())
        });
        let fault = &mut self.k.faults[f];
        fault.pieces = pieces;
        fault.placing = place;
        fault.rest_failed = false;
        if writes {
            fault.state = FaultState::Busy;
            let delay = self.soon();
            self.kernel_in(delay, Ev::Operate(id));
        } else {
            fault.state = FaultState::Placed;
            fault.pinned = true;
            self.ring();
        }
        Ok(())
    }
}
