//! `flush.c`: what a failed flush means for later ones.

use super::bio::{Reason, Sts};
use super::{IoKind, Suspend};
use crate::oracle::Trouble;
use crate::script::Which;
use crate::sys::Sys;

impl Sys {
    pub(super) fn sends(&mut self, b: usize) {
        self.k.bios[b].owes = [false; 2];
        self.k.bios[b].fails = self.k.flush_fails;
    }

    /// May FUA not go to that disk? Then it is to be flushed.
    pub(super) fn fua_owed(&mut self, b: usize, dest: Which) -> bool {
        let owed = self.k.bios[b].fua && self.config.emulated_fua;
        self.k.bios[b].owes[dest as usize] |= owed;
        owed
    }

    /// What a write that is where it belongs has to do yet.
    pub(super) fn written(&mut self, b: usize) -> Reason {
        let bio = &mut self.k.bios[b];
        if bio.owes == [false; 2] || bio.is_flush() {
            return Reason::None;
        }
        bio.flushing = true;
        Reason::Redo
    }

    pub(super) fn flush_done(&mut self, b: usize, dest: Which, status: Sts) -> Sts {
        let spare = dest == Which::Spare;
        let at = dest as usize;
        let fails = self.k.bios[b].fails[at];
        let mut told = status;
        if status != Sts::Ok {
            self.k.flush_fails[at] += 1;
            self.k.counts.spare_flush_errors += u64::from(spare);
            self.ring();
        } else if self.k.flush_fails[at] != fails || self.k.flush_owed[at] {
            if self.k.bios[b].kind == IoKind::Flush {
                self.k.flush_owed[at] = false;
            }
            told = Sts::Io;
        }
        self.k.flush_bad[at] = told != Sts::Ok;
        if spare && !self.k.mapped {
            told = Sts::Ok;
        }
        let pushed_back = matches!(self.k.suspend, Suspend::Flushing { noflush: true });
        self.k.flush_owed[at] |= told != Sts::Ok && pushed_back;
        told
    }

    pub(super) fn daemons_flush_failed(&mut self) {
        self.untold = false;
        self.oracle.excuses.set(Trouble::Flush, u64::MAX);
        self.k.flush_fails[Which::Spare as usize] += 1;
        self.k.flush_owed[Which::Spare as usize] |= self.k.mapped || !self.k.ready;
        self.k.flush_bad[Which::Spare as usize] = true;
    }

    pub(super) fn fua_fails(&self, b: usize) -> bool {
        let [data, spare] = self.k.flush_bad;
        self.k.bios[b].fua && (data || spare && self.k.mapped)
    }
}
