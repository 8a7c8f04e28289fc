//! One commit at a time, for all that is ready; then one install.

use std::time::Duration;

use super::device::Device;
use super::durable::Durable;
use super::event::{Action, Alarm, CommitFailure, FaultId, Refusal};
use super::fault::{Fault, Step, Verdict};
use super::snapshot::Happening;
use crate::table::{Change, Kind};

/// A commit takes no further fault once it has this many changes.
const ENOUGH: usize = 1024;
/// `DM_REMAP_MAX_INSTALL`.
const MAX_INSTALL: usize = 1024;
const AGAIN: Duration = Duration::from_millis(100);
/// A commit is restated after so much of the time that it has been unknown, within these bounds: a spare that was away for
/// less than a deadline is back in time for what is held, and one that stays away does not use up the log.
const RESTATE_SHARE: u32 = 4;
const RESTATE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];
const FULL_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Commit {
    pub changes: Vec<Change>,
    /// How many of the changes retire slots that failed; they come first.
    pub retired: usize,
    /// Since when.
    pub unknown: Option<Duration>,
    /// When it was restated sooner than its turn.
    pub hurried: Option<Duration>,
}

impl Commit {
    /// Up to its next restatement.
    fn pause(&self, now: Duration) -> Duration {
        self.unknown.map_or(Duration::ZERO, |since| {
            ((now - since) / RESTATE_SHARE).clamp(RESTATE[0], RESTATE[1])
        })
    }
}

impl Device {
    pub(super) fn commit(&mut self) {
        if self.metadata_dead {
            let ready = self.with(Step::Ready);
            return ready.into_iter().for_each(|id| self.fail(id, "no commit can be made"));
        }
        if self.commit.is_some() {
            return;
        }
        let full = self.log_full.is_some();
        let goes = |f: &Fault| f.step == Step::Ready && !(f.named && full);
        let alone = self.faults.is_empty() && !full;
        if !self.faults.values().any(goes) && (self.retire.is_empty() || !alone) {
            return;
        }
        let mut changes = std::mem::take(&mut self.retire);
        let retired = changes.len();
        for fault in self.faults.values_mut().filter(|f| goes(f)) {
            if changes.len() < ENOUGH {
                changes.extend(fault.changes());
                fault.step = Step::Committing;
            }
        }
        self.out.push(Action::Commit(changes.clone()));
        self.commit = Some(Commit { changes, retired, unknown: None, hurried: None });
    }

    pub(super) fn commit_done(&mut self, result: Result<Durable, CommitFailure>) {
        match result {
            Ok(proof) => self.committed(proof),
            Err(CommitFailure::Unknown) => {
                let Some(commit) = &mut self.commit else { return };
                self.restate_at = Some(self.now + commit.pause(self.now));
                self.counters.commits_unknown += u64::from(commit.unknown.is_none());
                commit.unknown.get_or_insert(self.now);
            }
            Err(CommitFailure::Full) => {
                let Some(mut commit) = self.commit.take() else { return };
                commit.changes.truncate(commit.retired);
                self.retire.append(&mut commit.changes);
                self.log_full = Some(self.now + FULL_PAUSE);
                self.alarm(Alarm::LogFull, "the log is full: nothing can be mapped".into());
                for id in self.with(Step::Committing) {
                    // Nothing was submitted.
                    self.faults.entry(id).and_modify(|fault| fault.step = Step::Ready);
                    self.fail(id, "the log is full");
                }
            }
            Err(CommitFailure::Dead) => {
                // The commit may be durable.
                self.metadata_dead = true;
                if let Some(commit) = &mut self.commit {
                    commit.unknown.get_or_insert(self.now);
                }
                let text = "the spare takes no metadata: nothing can be mapped until it does, and the \
                            daemon is restarted";
                self.alarm(Alarm::MetadataDead, text.into());
                for id in self.with(Step::Committing) {
                    self.fail(id, "no commit can be made");
                }
            }
        }
    }

    /// The spare may be back, or somebody waits for it again. As each costs a block of the log, these are as far
    /// apart as the others.
    pub(super) fn restate_soon(&mut self) {
        let (Some(commit), Some(at)) = (&mut self.commit, self.restate_at) else { return };
        let pause = commit.pause(self.now);
        if commit.hurried.is_none_or(|last| self.now - last >= pause) {
            commit.hurried = Some(self.now);
            self.restate_at = Some(at.min(self.now + RESTATE[0]));
        }
    }

    pub(super) fn with(&self, step: Step) -> Vec<FaultId> {
        self.faults.iter().filter(|(_, f)| f.step == step).map(|(&id, _)| id).collect()
    }

    fn committed(&mut self, proof: Durable) {
        let Some(commit) = self.commit.take() else { return };
        self.proof = proof;
        self.restate_at = None;
        self.spare_answers = false;
        self.log_full = None;
        self.alarms.remove(&Alarm::LogFull);
        self.counters.commits += 1;
        for change in &commit.changes {
            self.table.apply(change);
            if let Change::Set(extent) = change {
                let sum = match extent.kind {
                    Kind::Mapped(_) => &mut self.counters.mapped,
                    Kind::PoisonData | Kind::PoisonSlot(_) => &mut self.counters.poisoned,
                };
                *sum = *sum + extent.len;
                self.notes.add(self.now, Happening::Committed(*extent));
            }
        }
        for fault in self.faults.values_mut().filter(|f| f.step == Step::Committing) {
            fault.step = Step::Durable;
        }
    }

    /// Installing is idempotent, so all that is durable goes under the newest proof.
    pub(super) fn install(&mut self) {
        if self.installing || self.install_at.is_some() {
            return;
        }
        let mut faults = Vec::new();
        let durable = self.faults.iter_mut().filter(|(_, f)| f.step == Step::Durable);
        for (&id, fault) in durable.take(MAX_INSTALL) {
            fault.asked = Some(Verdict::Install);
            faults.push(id);
        }
        if !faults.is_empty() {
            self.installing = true;
            self.out.push(Action::Install { proof: self.proof, faults });
        }
    }

    pub(super) fn install_done(&mut self, result: Result<(), Refusal>) {
        self.installing = false;
        let asked = |f: &Fault| f.asked == Some(Verdict::Install);
        match result {
            Ok(()) => self.faults.retain(|_, f| !asked(f)),
            Err(refusal) => {
                self.faults.values_mut().filter(|f| asked(f)).for_each(|f| f.asked = None);
                self.install_at = Some(self.now + AGAIN);
                self.refused(refusal);
            }
        }
    }
}
