//! `flush.c`: what a failed flush means for later ones.

use super::bio::Sts;
use crate::script::Which;
use crate::sys::Sys;

impl Sys {
    pub(super) fn flush_done(&mut self, b: usize, status: Sts) -> Sts {
        let (dest, generation) = (self.k.bios[b].dest, self.k.bios[b].generation);
        let spare = dest == Which::Spare;
        let at = dest as usize;
        let mut told = status;
        if status != Sts::Ok {
            self.k.flush_fails[at] += 1;
            self.k.counts.spare_flush_errors += u64::from(spare);
            self.k.flush_bad[at] = true;
            self.ring();
        } else if self.k.flush_fails[at] != generation {
            told = Sts::Io;
        } else {
            self.k.flush_bad[at] = false;
            if spare && std::mem::take(&mut self.k.flush_owed) {
                told = Sts::Io;
            }
        }
        if spare && !self.k.mapped { Sts::Ok } else { told }
    }

    pub(super) fn owner_flush_failed(&mut self) {
        self.k.flush_fails[Which::Spare as usize] += 1;
        self.k.flush_owed = true;
        self.k.flush_bad[Which::Spare as usize] = true;
    }

    pub(super) fn fua_fails(&self, b: usize) -> bool {
        let [data, spare] = self.k.flush_bad;
        self.k.bios[b].fua && (data || spare && self.k.mapped)
    }
}
