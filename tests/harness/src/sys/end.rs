//! The end of the machine's power, of the device, or of the module.

use super::{Ev, Kernel, Stop, Sys, Trouble, Which};

impl Sys {
    /// The power fails: what is on its way to a disk may have landed.
    pub fn cut(&mut self) {
        let mut data = std::mem::take(&mut self.k.flights);
        for n in 0..data.slots() {
            let Some(flight) = data.take(n) else { continue };
            if flight.kind == crate::kernel::IoKind::Write && flight.done.is_none() {
                let fate = self.rng.bits();
                let mut buf = vec![0; flight.len as usize * crate::disk::SECTOR];
                crate::kernel::fill(&mut buf, flight.tag, flight.start);
                let disk = match flight.dest {
                    Which::Data => &mut self.data,
                    Which::Spare => &mut self.spare,
                };
                disk.put(flight.sector, &buf, false, false, fate);
            }
        }
        self.data.cut(&mut self.rng);
        self.spare.cut(&mut self.rng);
        self.oracle.power_cut();
        self.instance_gone();
        self.removed = false;
        self.view = None;
    }

    fn instance_gone(&mut self) {
        self.checks.instance_gone();
        // Of a flush that failed just before nobody is left to be told.
        self.untold = false;
        self.boot += 1;
        self.k = Kernel::new(self.k.id + 1, &self.config);
        self.k.on = false;
        self.bells = 0;
        self.removing = None;
        self.oracle.excuses.set(Trouble::Unowned, u64::MAX);
    }

    /// Nor while the daemon is shown an old spare, or about to be, which only an instance can tell from the right one.
    pub(super) fn remove_if_idle(&mut self) {
        let rolled_back = self.view.is_some() || matches!(self.stop, Some(Stop::RolledBack { .. }));
        if self.oracle.pending() > 0 || !self.k.is_idle() || rolled_back {
            return;
        }
        if let Some((ms, anew)) = self.removing.take() {
            self.say(|| "  the device is removed".to_owned());
            self.instance_gone();
            self.removed = true;
            if anew {
                self.say(|| "  the module is loaded anew".to_owned());
                self.k.id = 1;
                self.family += 1;
                self.snapshot = None;
            }
            // Who is opening the spare cannot be told of its last failed flushes.
            self.oracle.excuses.trouble(Trouble::Spare, self.now + 1_000_000);
            self.kernel_in(ms * 1000, Ev::Made);
        }
    }
}
