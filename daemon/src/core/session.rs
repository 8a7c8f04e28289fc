//! From an instance that appears to one that is served: claim, then load or adopt.

use std::time::Duration;

use super::device::{Device, Phase};
use super::event::{Action, Alarm, Instance, Load, ReadId, Refusal, Status};
use super::snapshot::Happening;
use crate::table::{Change, Table};
use crate::units::{Sectors, Slot};

/// `DM_REMAP_MAX_LOAD`.
const MAX_LOAD: usize = 2048;
const CLAIM_AGAIN: Duration = Duration::from_secs(1);
const LOAD_AGAIN: Duration = Duration::from_millis(100);
const PROBE_AGAIN: Duration = Duration::from_secs(5);

impl Device {
    pub(super) fn appeared(&mut self, instance: Instance) {
        if self.instance.is_some_and(|known| known.id != instance.id) {
            self.gone();
        }
        self.instance = Some(instance);
        if self.phase == Phase::Absent {
            self.phase = Phase::Unclaimed;
        }
    }

    /// The faults went with it; a commit under way still has its end.
    pub(super) fn gone(&mut self) {
        self.phase = Phase::Absent;
        self.instance = None;
        self.forget_if(|_, _| true);
    }

    /// What no commit names is decided again, from the next listing.
    pub(super) fn lost(&mut self) {
        if self.phase == Phase::Absent {
            return;
        }
        self.notes.add(self.now, Happening::ClaimLost);
        self.phase = Phase::Unclaimed;
        self.forget_if(|_, fault| !fault.is_committed());
    }

    fn claim_again(&mut self) {
        self.phase = Phase::Unclaimed;
        self.claim_at = Some(self.now + CLAIM_AGAIN);
    }

    pub(super) fn claimed(&mut self, result: Result<(), Refusal>) {
        if self.phase != Phase::Claiming {
            return;
        }
        match (result, self.instance) {
            (Ok(()), Some(instance)) => {
                let commit = self.proof.sequence();
                self.notes.add(self.now, Happening::Claimed { commit });
                self.alarms.remove(&Alarm::Refused);
                self.retired_wanted = false;
                self.spare_news();
                if instance.ready {
                    self.adopt_instance();
                } else {
                    self.load();
                }
            }
            (Err(refusal @ (Refusal::Stale | Refusal::Invalid)), _) => {
                self.phase = Phase::Refused;
                let why = match refusal {
                    Refusal::Stale => format!(
                        "the spare ends at commit {}, and the table in use is newer: it was rolled \
                         back, or is a copy; put the newer one in its place and restart the daemon",
                        self.proof.sequence()
                    ),
                    _ => "the kernel refuses the slot area that the label names: the device was \
                          loaded from another spare; remove it, or put that spare in its place"
                        .to_owned(),
                };
                self.alarm(Alarm::Refused, why);
            }
            _ => self.claim_again(),
        }
    }

    fn adopt_instance(&mut self) {
        self.phase = Phase::Adopting;
        self.out.push(Action::ListRetired);
    }

    fn load(&mut self) {
        self.phase = Phase::Loading;
        let extents = self.table.extents().map(Load::Extent);
        let retired = self.table.retired().map(|(slot, len)| Load::Retired { slot, len });
        self.loading = extents.chain(retired).collect::<Vec<_>>().into_iter();
        self.load_more();
    }

    fn load_more(&mut self) {
        self.chunk = self.loading.by_ref().take(MAX_LOAD).collect();
        (self.load_at, self.resent) = (None, false);
        if self.chunk.is_empty() {
            self.out.push(Action::Ready);
        } else {
            self.load_again();
        }
    }

    pub(super) fn load_again(&mut self) {
        self.out.push(Action::Load(self.chunk.clone()));
    }

    /// A table that a commit may yet change is not one to start from, so the spare is asked whether it is back.
    pub(super) fn probe_spare(&mut self) {
        let places = self.spare.places(&mut self.seed);
        self.reads += 1;
        self.probing = Some(ReadId(self.reads));
        let read =
            Action::Read { id: ReadId(self.reads), spans: places.spans, retries: 0, until: None };
        self.out.push(read);
    }

    pub(super) fn probed(&mut self, results: &[Status]) {
        self.probing = None;
        self.probe_at = Some(self.now + PROBE_AGAIN);
        // One that answers and takes no writes would use up the log.
        let answers = results.contains(&Status::Ok);
        let before = std::mem::replace(&mut self.spare_answers, answers);
        if answers && !before {
            self.restate_soon();
        }
    }

    pub(super) fn loaded(&mut self, result: Result<(), Refusal>) {
        match result {
            _ if self.phase != Phase::Loading => {}
            Ok(()) => self.load_more(),
            Err(Refusal::Busy) => {
                // It is ready: the answer that said so was lost.
                self.instance.iter_mut().for_each(|instance| instance.ready = true);
                self.adopt_instance();
            }
            Err(Refusal::NoMemory) => {
                self.resent = true;
                self.load_at = Some(self.now + LOAD_AGAIN);
            }
            // What was there of it counts twice.
            Err(_) if self.resent => self.claim_again(),
            Err(Refusal::Exists | Refusal::Invalid) => {
                self.phase = Phase::Refused;
                self.alarm(Alarm::Refused, "the kernel refuses an extent of the table".into());
            }
            Err(_) => self.claim_again(),
        }
    }

    pub(super) fn ready_done(&mut self, result: Result<(), Refusal>) {
        match result {
            _ if self.phase != Phase::Loading => {}
            Ok(()) => {
                self.phase = Phase::Serving;
                self.list_wanted = true;
                self.instance.iter_mut().for_each(|instance| instance.ready = true);
            }
            Err(_) => self.claim_again(),
        }
    }

    pub(super) fn retired_listed(&mut self, result: Result<Vec<(Slot, Sectors)>, Refusal>) {
        let retired = match (result, self.phase) {
            (Ok(retired), Phase::Adopting | Phase::Serving) => retired,
            (Err(_), Phase::Adopting) => return self.claim_again(),
            (Err(refusal), Phase::Serving) => return self.refused(refusal),
            _ => return,
        };
        retired.iter().for_each(|&(slot, len)| self.spare.burn(slot, len));
        for (slot, len) in missing(&retired, &self.table) {
            let change = Change::Retire { slot, len };
            if !self.retire.contains(&change) {
                self.retire.push(change);
            }
        }
        self.list_wanted |= self.phase == Phase::Adopting;
        self.phase = Phase::Serving;
    }
}

/// What the kernel has retired and the table has not; both in rising order.
fn missing(retired: &[(Slot, Sectors)], table: &Table) -> Vec<(Slot, Sectors)> {
    let mut out = Vec::new();
    let mut known = table.retired().peekable();
    for &(slot, len) in retired {
        let (mut at, end) = (slot, slot + len);
        while let Some(&(s, l)) = known.peek().filter(|&&(s, _)| s < end) {
            if at < s {
                out.push((at, s - at));
            }
            at = at.max(s + l);
            if s + l > end {
                break;
            }
            known.next();
        }
        if at < end {
            out.push((at, end - at));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_what_no_known_run_covers() {
        let run = |&(slot, len): &(u64, u64)| (Slot(slot), Sectors(len));
        for (listed, known, wanted) in [
            (&[(64, 8)][..], &[][..], &[(64, 8)][..]),
            (&[(64, 8)], &[(64, 8)], &[]),
            (&[(64, 8)], &[(64, 2)], &[(66, 6)]),
            (&[(64, 8)], &[(66, 2), (70, 2)], &[(64, 2), (68, 2)]),
            (&[(64, 8), (80, 8)], &[(68, 16)], &[(64, 4), (84, 4)]),
            (&[(64, 8), (72, 8)], &[(60, 40)], &[]),
            (&[(64, 8), (80, 8)], &[(72, 8)], &[(64, 8), (80, 8)]),
        ] {
            let mut table = Table::default();
            for (slot, len) in known.iter().map(run) {
                table.apply(&Change::Retire { slot, len });
            }
            let listed: Vec<_> = listed.iter().map(run).collect();
            let wanted: Vec<_> = wanted.iter().map(run).collect();
            assert_eq!(missing(&listed, &table), wanted, "{listed:?} {known:?}");
        }
    }
}
