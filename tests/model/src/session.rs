//! From a spare to an instance that is served: `Store::open`, then `core::session`.

use crate::bug::Bug;
use crate::daemon::{Daemon, Known, Phase};
use crate::disk::{LOG, Super, Whose};
use crate::kernel::Owner;
use crate::state::{Scenario, State};

impl State {
    /// `Store::open`: what the spare holds, made durable under a new epoch.
    pub fn open(&mut self) {
        let sup = self.disks.sup();
        let mut found = Super { epoch: sup.epoch + 1, number: sup.number + 1, ..sup };
        let mut refused = false;
        // `recover::contents`
        for sequence in 1..=LOG as u8 {
            let Some(record) = self.disks.record(sequence) else { continue };
            // `Log::take`
            refused |= record.epoch > sup.epoch || record.number > sup.number;
            if record.epoch != sup.epoch || sequence <= sup.sequence {
                continue;
            }
            refused |= sequence != found.sequence + 1;
            found.sequence = sequence;
            found.table = record.extent.unwrap_or(found.table);
            found.retired |= record.retire;
        }
        if !refused {
            self.disks.write_super(found);
            self.disks.flush_sent(Whose::Daemon);
        }
        let fails = self.kernel.flush_fails;
        self.daemon = Some(Daemon {
            phase: if refused { Phase::Refused } else { Phase::Opening { fails } },
            epoch: found.epoch,
            table: found.table,
            retired: found.retired,
            sequence: found.sequence,
            fault: None,
            retire: 0,
            fails,
            list: false,
            verdict: None,
            flushing: false,
            commit: None,
            number: found.number,
            checkpoint: None,
        });
    }

    /// `Store::checkpoint_under` has ended; in doubt (`Shared::flush`) it is written once more.
    pub fn opened(&mut self, s: &Scenario) {
        let fails = self.kernel.flush_fails;
        let d = self.me();
        if d.phase == (Phase::Opening { fails }) || s.has(Bug::OpenNotChecked) {
            d.phase = Phase::Unclaimed;
            let retired = self.me().retired;
            self.oracle.recorded |= retired;
            self.oracle.failed |= retired;
        } else {
            d.phase = Phase::Opening { fails };
            let sup = self.disks.sup();
            self.disks.write_super(sup);
            self.disks.flush_sent(Whose::Daemon);
        }
    }

    /// `Device::settle` while unclaimed: a table that a commit may yet change is not one to start from.
    pub fn may_claim(&self, s: &Scenario) -> bool {
        self.kernel.owner != Owner::Dead
            && self.daemon.as_ref().is_some_and(|d| {
                d.phase == Phase::Unclaimed && (d.commit.is_none() || s.has(Bug::StaleRelease))
            })
    }

    /// `Device::claimed`
    pub fn claim_sent(&mut self) {
        let sequence = self.me().sequence;
        let answer = self.claim(sequence);
        let ready = self.kernel.ready;
        self.me().phase = match answer {
            Ok(()) if ready => Phase::Adopting,
            Ok(()) => Phase::Loading,
            Err(_) => Phase::Refused,
        };
    }

    /// `Device::load`, `Device::loaded`, `Device::ready_done`, `Device::retired_listed`
    pub fn session(&mut self, s: &Scenario) {
        if self.kernel.owner != Owner::Living {
            return self.lost(s);
        }
        let (phase, table, retired) = (self.me().phase, self.me().table, self.me().retired);
        self.me().phase = match phase {
            Phase::Loading => {
                self.load(table, retired);
                Phase::Loaded
            }
            Phase::Loaded => {
                self.kernel.ready = true;
                Phase::Adopting
            }
            _ => {
                self.retired_listed();
                self.me().list = true;
                Phase::Serving
            }
        };
    }

    /// What the kernel has retired and the table has not is recorded by the next commit.
    pub fn retired_listed(&mut self) {
        let retired = self.kernel.retired;
        let d = self.me();
        d.retire |= retired & !d.retired;
    }

    /// `Device::lost`: what no commit names is decided again, from the next listing.
    pub fn lost(&mut self, s: &Scenario) {
        let d = self.me();
        d.phase = Phase::Unclaimed;
        d.verdict = None;
        if !d.fault.is_some_and(Known::is_committed) || s.has(Bug::StaleRelease) {
            d.fault = None;
        }
    }
}
