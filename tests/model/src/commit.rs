//! `core::commit` and the writer: one commit at a time, then one install; and checkpoints.

use crate::bug::Bug;
use crate::daemon::{Append, Commit, Phase, Step, Verdict};
use crate::disk::{Record, Super, Whose};
use crate::state::{Scenario, State};

impl State {
    /// `Device::commit`, and `Writer::commit` up to the record's write. Retired slots alone are recorded too.
    pub fn commit_begins(&mut self) {
        let d = self.me();
        let ready = d.fault.as_mut().filter(|known| known.step == Step::Ready);
        let extent = ready.and_then(|known| {
            known.step = Step::Committing;
            known.piece
        });
        let retire = std::mem::take(&mut d.retire);
        let record = Record { epoch: d.epoch, number: d.number, extent, retire };
        d.commit = Some(Commit { record, at: Append::Writing, fails: d.fails });
    }

    pub fn may_commit(&self) -> bool {
        let Some(d) = self.daemon.as_ref().filter(|d| d.phase == Phase::Serving) else {
            return false;
        };
        let ready = d.fault.is_some_and(|known| known.step == Step::Ready);
        d.commit.is_none()
            && d.checkpoint.is_none()
            && (ready || (d.retire != 0 && d.fault.is_none()))
    }

    /// `Store::write_record` has returned, and the flush is sent.
    pub fn record_written(&mut self) {
        let d = self.me();
        let sequence = d.sequence + 1;
        let Some(commit) = &mut d.commit else { return };
        commit.at = Append::Flushing;
        let record = commit.record;
        self.disks.write_record(sequence, record);
        self.disks.flush_sent(Whose::Daemon);
    }

    /// The commit's flush has ended; a failed one leaves the commit unknown.
    pub fn append_flushed(&mut self, s: &Scenario, ok: bool) {
        let Some(commit) = &mut self.me().commit else { return };
        commit.at = if ok { Append::Checking } else { Append::Unknown };
        if ok && s.has(Bug::CommitNotChecked) {
            self.committed();
        }
    }

    /// `Shared::flush` in doubt makes a commit unknown, and `Store::restate` writes it again; one without is `Durable`.
    pub fn commit_goes_on(&mut self) {
        let fails = self.kernel.flush_fails;
        let d = self.me();
        d.fails = fails;
        let Some(commit) = &mut d.commit else { return };
        if commit.at == Append::Checking && commit.fails == fails {
            return self.committed();
        }
        *commit = Commit { at: Append::Writing, fails, ..*commit };
    }

    /// `Device::committed`: the proof of it is what INSTALL is made from.
    fn committed(&mut self) {
        let d = self.me();
        let Some(commit) = d.commit.take() else { return };
        d.sequence += 1;
        d.table = commit.record.extent.unwrap_or(d.table);
        d.retired |= commit.record.retire;
        if let Some(known) = d.fault.as_mut().filter(|known| known.step == Step::Committing) {
            known.step = Step::Durable;
        }
        let recorded = d.retired;
        self.oracle.recorded |= recorded;
    }

    /// `Device::install`
    pub fn may_install(&self, s: &Scenario) -> bool {
        let Some(d) = &self.daemon else { return false };
        let early = d.commit.is_some_and(|commit| commit.at == Append::Flushing);
        d.phase == Phase::Serving
            && d.fault.is_some_and(|known| match known.step {
                Step::Durable => true,
                Step::Committing => s.has(Bug::InstallBeforeCommit) && early,
                _ => false,
            })
    }

    pub fn install_decided(&mut self) {
        self.decide(Verdict::Install);
    }

    /// `Store::checkpoint`, when nothing else is to be written.
    pub fn checkpoint_begins(&mut self) {
        let fails = self.kernel.flush_fails;
        let d = self.me();
        d.checkpoint = Some(fails);
        let number = d.number + 1;
        let sup = Super {
            epoch: d.epoch,
            number,
            sequence: d.sequence,
            table: d.table,
            retired: d.retired,
        };
        self.disks.write_super(sup);
        self.disks.flush_sent(Whose::Daemon);
    }

    /// Its flush has ended; in doubt it is written once more (`Store::publish`).
    pub fn checkpoint_done(&mut self, s: &Scenario) {
        let fails = self.kernel.flush_fails;
        let d = self.me();
        if d.checkpoint == Some(fails) || s.has(Bug::CheckpointNotChecked) {
            d.checkpoint = None;
            d.number += 1;
            let retired = d.retired;
            self.oracle.recorded |= retired;
        } else {
            self.checkpoint_begins();
        }
    }
}
