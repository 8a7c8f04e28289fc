//! What `status` shows of a device.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::device::{Device, Phase};
use super::durable::Durable;
use super::event::{Alarm, FaultId, Flags};
use super::fault::Step;
use super::policy::Policy;
use super::spare::Usage;
use crate::table::{Extent, Kind};
use crate::units::{Sector, Sectors, Slot};

const NOTES: usize = 32;

/// Since the daemon began to serve the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    pub faults: u64,
    pub mapped: Sectors,
    pub poisoned: Sectors,
    pub released: u64,
    pub failed: u64,
    pub slots_retired: u64,
    pub places_voided: u64,
    pub commits: u64,
    pub commits_unknown: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happening {
    Claimed { commit: u64 },
    ClaimLost,
    Committed(Extent),
    Released(FaultId),
    Failed { fault: FaultId, why: &'static str },
    SlotRetired { slot: Slot, len: Sectors },
    Alarm { alarm: Alarm, text: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    pub at: Duration,
    pub what: Happening,
}

#[derive(Debug, Default)]
pub(super) struct Notes(VecDeque<Note>);

impl Notes {
    pub fn add(&mut self, at: Duration, what: Happening) {
        if self.0.len() == NOTES {
            self.0.pop_front();
        }
        self.0.push_back(Note { at, what });
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultView {
    pub id: FaultId,
    pub start: Sector,
    pub len: Sectors,
    pub flags: Flags,
    pub step: Step,
    pub deadline: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub phase: Phase,
    pub commit: Durable,
    pub commit_unknown: bool,
    pub breaker_open: bool,
    pub extents: usize,
    pub mapped: Sectors,
    pub poisoned: Sectors,
    pub spare: Usage,
    pub faults: Vec<FaultView>,
    pub counters: Counters,
    /// What is wrong now, in words, however long ago it was noted.
    pub alarms: BTreeMap<Alarm, String>,
    /// In force.
    pub policy: Policy,
    /// The last of them last.
    pub notes: Vec<Note>,
}

impl Device {
    pub fn snapshot(&self) -> Snapshot {
        let (mut mapped, mut poisoned) = (Sectors(0), Sectors(0));
        for extent in self.table.extents() {
            match extent.kind {
                Kind::Mapped(_) => mapped = mapped + extent.len,
                Kind::PoisonData | Kind::PoisonSlot(_) => poisoned = poisoned + extent.len,
            }
        }
        let view = |(&id, f): (&FaultId, &super::fault::Fault)| FaultView {
            id,
            start: f.start,
            len: f.len,
            flags: f.flags,
            step: f.step,
            deadline: f.deadline,
        };
        // The end of a storm is news, and nothing that lasts.
        let lasts = |(alarm, _): &(&Alarm, &String)| **alarm != Alarm::StormOver;
        Snapshot {
            phase: self.phase,
            commit: self.proof,
            commit_unknown: self.commit.as_ref().is_some_and(|commit| commit.unknown.is_some()),
            breaker_open: self.breaker.is_open(),
            extents: self.table.len(),
            mapped,
            poisoned,
            spare: self.spare.usage(),
            faults: self.faults.iter().map(view).collect(),
            counters: self.counters,
            alarms: self.alarms.iter().filter(lasts).map(|(&a, text)| (a, text.clone())).collect(),
            policy: self.policy.clone(),
            notes: self.notes.0.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_notes_are_kept() {
        let mut notes = Notes::default();
        for n in 0..100 {
            notes.add(Duration::from_secs(n), Happening::Released(FaultId(n)));
        }
        let kept: Vec<u64> = notes.0.iter().map(|note| note.at.as_secs()).collect();
        assert_eq!(kept, (100 - NOTES as u64..100).collect::<Vec<_>>());
    }
}
