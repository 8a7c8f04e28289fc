//! Suspend, reload and resume, as device-mapper does them.

use super::bio::IoKind;
use super::{Kernel, Suspend};
use crate::sys::{Ev, Sys};

impl Sys {
    /// A new device: its first table is resumed, and nobody has claimed it.
    pub fn switch_on(&mut self) {
        self.k = Kernel::new(self.k.id, &self.config);
        self.removed = false;
        self.ring();
    }

    /// `presuspend`, and what follows once nothing is under way. `hold_ms` is of the table that is
    /// resumed.
    pub fn suspend(&mut self, noflush: bool, ms: u64, hold_ms: u64) {
        if self.k.suspend != Suspend::No {
            return;
        }
        self.k.suspend = Suspend::Flushing { noflush };
        self.k.resume_after = ms * 1000;
        self.k.new_hold_us = hold_ms * 1000;
        if noflush {
            self.end_holds();
        }
        self.drained();
    }

    /// A bio has left.
    pub(super) fn drained(&mut self) {
        if matches!(self.k.suspend, Suspend::Flushing { .. }) && self.k.bios.is_empty() {
            self.k.suspend = Suspend::Done;
            let after = self.k.resume_after;
            self.kernel_in(after, Ev::Resume);
        }
    }

    /// `preresume`.
    pub fn resume(&mut self) {
        self.k.suspend = Suspend::No;
        self.k.hold_us = self.k.new_hold_us;
        if self.k.owner == 0 {
            self.ring();
        }
        self.say(|| "  resumed".to_owned());
        for _ in 0..self.k.deferred.len() {
            let Some((io, start, len)) = self.k.deferred.pop_front() else { break };
            self.k.ios[io].left += 1;
            if self.k.ios[io].kind == IoKind::Flush {
                self.k.ios[io].failures.clear();
            }
            self.enter(io, start, len);
            self.put_io(io);
        }
    }
}
