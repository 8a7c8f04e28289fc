//! Every step that can be taken, and which of them only bring the conversation forward.

use crate::bug::Bug;
use crate::daemon::{Append, Phase, Step};
use crate::disk::{At, Cells, Extent, LOG, Whose, parts};
use crate::kernel::{Owner, Stage};
use crate::state::{Progress, READ, Scenario, State, value};

/// Each names the function of the module or the daemon that it stands for; where it is in `kernel.rs` and
/// `daemon.rs` here, the reason stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The application sends a bio: `dmr_map()`.
    Submit(usize),
    /// And a flush: `map_flush()`.
    SubmitFlush,
    /// Its I/O has returned: `dmr_end_io()`, `clone_end_io()`.
    Lands(usize),
    Fails(usize),
    /// `dmr_flush_done()`; a failed one dooms these cells of the spare's cache.
    FlushLands,
    FlushFails(Cells),
    /// A disk has a bad sector from now on.
    DataGoesBad,
    DataGoesWeak,
    SlotGoesBad(u8),
    /// `dmr_send_work()`: a parked bio that is no longer fenced.
    SendWork(usize),
    /// `op_done()` of TRY or PLACE.
    OpDone {
        good: bool,
    },
    /// `dmr_doorbell_work()`, a second later.
    DoorbellWork,
    DoorbellLost,
    /// `dmr_deadline_work()`
    DeadlineWork(usize),
    /// `socket_gone()`
    SocketGone,
    /// The claim is lost while its owner lives, as when a port id is used again.
    ClaimLost,
    /// `dmr_presuspend()` with noflush, `dmr_preresume()`.
    Presuspend,
    Preresume,
    /// `Store::open`, and the end of its flush.
    Open,
    Opened,
    /// `Device::claimed`
    Claim,
    /// LOAD, READY, or the list of what is retired.
    Session,
    /// `Conversation::look` finds the claim lost: `Device::lost`.
    Look,
    /// `Event::Doorbell`
    Doorbell,
    /// FAULT_GET: `Device::listed`.
    List,
    /// TRY, PLACE, INSTALL, RELEASE or FAIL.
    Verdict,
    /// The same, its answer lost.
    AnswerLost,
    /// `Device::read_done`
    ReadDone,
    /// `Writer::flush` of placed data.
    FlushSpare,
    FlushDone,
    FlushSpareFails(Cells),
    /// `Store::append`: begun, written, flushed, and what comes of it.
    Commit,
    RecordWritten,
    AppendFlushed,
    AppendFlushFails(Cells),
    CommitDone,
    /// `Writer::rest`
    Checkpoint,
    CheckpointDone,
    /// `Device::install`
    Install,
    /// The daemon is killed, at once.
    Dies,
    /// A dead daemon's write to the log returns, done or not.
    LateWrite {
        lands: bool,
    },
    /// What it leaves of the caches, and which of the writes under way.
    PowerCut {
        cells: Cells,
        landed: u8,
    },
}

impl Action {
    /// Steps that some actor owes. The others need not happen: the application's requests, and whatever goes wrong.
    pub fn is_owed(self) -> bool {
        use Action::*;
        match self {
            Submit(_) | SubmitFlush | FlushFails(_) | DoorbellLost => false,
            DataGoesBad | DataGoesWeak | SlotGoesBad(_) => false,
            DeadlineWork(_) | ClaimLost | Presuspend | AnswerLost | FlushSpareFails(_) => false,
            Checkpoint | AppendFlushFails(_) | Dies | PowerCut { .. } => false,
            Lands(_) | Fails(_) | FlushLands | SendWork(_) | OpDone { .. } | DoorbellWork => true,
            SocketGone | Preresume | Open | Opened | Claim | Session | Look | Doorbell | List => {
                true
            }
            Verdict | ReadDone | FlushSpare | FlushDone | Commit | RecordWritten => true,
            AppendFlushed | CheckpointDone | CommitDone | Install | LateWrite { .. } => true,
        }
    }
}

impl State {
    pub fn actions(&self, s: &Scenario, out: &mut Vec<Action>) {
        self.application(s, out);
        self.kernel_works(s, out);
        if self.daemon.is_some() {
            self.daemon_steps(s, out);
        } else if self.late.is_none() || s.has(Bug::LockDroppedEarly) {
            out.push(Action::Open);
        }
        self.trouble(out);
    }

    fn application(&self, s: &Scenario, out: &mut Vec<Action>) {
        let k = &self.kernel;
        for b in 0..self.bios.len() {
            let sent = if b == READ { self.left.reads > 0 } else { b < s.fua.len() };
            match self.bios[b].progress {
                Progress::Unsent if sent && !k.suspended => out.push(Action::Submit(b)),
                Progress::Done | Progress::Failed if b == READ && sent && !k.suspended => {
                    out.push(Action::Submit(b));
                }
                Progress::Flying(at) => {
                    let unreadable = b == READ && self.disks.is_unreadable(at);
                    if unreadable || self.disks.is_bad(at) {
                        out.push(Action::Fails(b));
                    } else {
                        out.push(Action::Lands(b));
                        // Once; then it is as good as it was.
                        if self.left.hiccups > 0 {
                            out.push(Action::Fails(b));
                        }
                    }
                }
                Progress::Parked if self.lookup(s).is_some() => out.push(Action::SendWork(b)),
                _ => {}
            }
        }
        if self.flush.is_some() {
            out.push(Action::FlushLands);
            if self.left.flush_fails > 0 {
                out.extend(parts(self.disks.in_spare_cache()).map(Action::FlushFails));
            }
        } else if self.left.flushes > 0 && k.ready && !k.suspended {
            out.push(Action::SubmitFlush);
        }
    }

    fn kernel_works(&self, s: &Scenario, out: &mut Vec<Action>) {
        let k = &self.kernel;
        if let Some(f) = k.fault.filter(|f| f.stage == Stage::Busy) {
            let good = !self.disks.is_bad(self.op_dest(&f));
            out.push(Action::OpDone { good });
            if good && self.left.hiccups > 0 {
                out.push(Action::OpDone { good: false });
            }
        }
        if self.doorbell_rings_again(s) {
            out.push(Action::DoorbellWork);
        }
        if k.owner == Owner::Dead && !s.has(Bug::ClaimNotReleased) {
            out.push(Action::SocketGone);
        }
        if k.suspended
            && self.bios.iter().all(|b| !b.is_under_way() || b.progress == Progress::Requeued)
        {
            out.push(Action::Preresume);
        }
        if self.late.is_some() {
            out.push(Action::LateWrite { lands: true });
            out.push(Action::LateWrite { lands: false });
        }
    }

    fn daemon_steps(&self, s: &Scenario, out: &mut Vec<Action>) {
        let (Some(d), k) = (&self.daemon, &self.kernel) else { return };
        let writing = d.commit.is_some_and(|c| matches!(c.at, Append::Writing | Append::Flushing));
        let writing = writing || d.checkpoint.is_some();
        let mine = k.owner == Owner::Living;
        match d.phase {
            Phase::Opening { .. } => out.push(Action::Opened),
            Phase::Unclaimed if self.may_claim(s) => out.push(Action::Claim),
            Phase::Loading | Phase::Loaded | Phase::Adopting => out.push(Action::Session),
            Phase::Serving if d.verdict.is_some() => out.push(Action::Verdict),
            Phase::Serving => {
                let step = d.fault.map(|known| known.step);
                if step == Some(Step::Searching) && d.fault.is_some_and(|known| !known.write) {
                    out.push(Action::ReadDone);
                }
                if step == Some(Step::Placed) && !d.flushing && !writing {
                    out.push(Action::FlushSpare);
                }
                if self.may_commit() {
                    out.push(Action::Commit);
                }
                if self.may_install(s) {
                    out.push(Action::Install);
                }
                if k.ringing {
                    out.push(Action::Doorbell);
                }
                if d.list {
                    out.push(Action::List);
                }
                if !mine {
                    out.push(Action::Look);
                }
            }
            Phase::Unclaimed | Phase::Refused => {}
        }
        if d.phase == Phase::Serving && d.verdict.is_some() && self.left.answers > 0 && mine {
            out.push(Action::AnswerLost);
        }
        // A flush of the daemon's own fails only while it can say so at once: the README's limit.
        let may_fail = self.left.flush_fails > 0 && mine && d.phase == Phase::Serving;
        let lost = || parts(self.disks.in_spare_cache());
        if d.flushing {
            out.push(Action::FlushDone);
            if may_fail {
                out.extend(lost().map(Action::FlushSpareFails));
            }
        }
        match d.commit.map(|commit| commit.at) {
            Some(Append::Writing) if !d.flushing => out.push(Action::RecordWritten),
            Some(Append::Flushing) => {
                out.push(Action::AppendFlushed);
                if may_fail {
                    out.extend(lost().map(Action::AppendFlushFails));
                }
            }
            Some(Append::Checking) => out.push(Action::CommitDone),
            Some(Append::Unknown) if !s.has(Bug::UnknownNotRestated) => {
                out.push(Action::CommitDone)
            }
            _ => {}
        }
        if d.checkpoint.is_some() {
            out.push(Action::CheckpointDone);
        } else if self.left.checkpoints > 0
            && d.commit.is_none()
            && !d.flushing
            && d.phase == Phase::Serving
        {
            out.push(Action::Checkpoint);
        }
        if self.left.deaths > 0 {
            out.push(Action::Dies);
        }
    }

    fn trouble(&self, out: &mut Vec<Action>) {
        let (k, left) = (&self.kernel, &self.left);
        if left.data_bad > 0 && !self.disks.data_bad {
            out.push(Action::DataGoesBad);
        }
        if left.data_weak > 0 && !self.disks.is_unreadable(At::Data) {
            out.push(Action::DataGoesWeak);
        }
        for slot in (0..2).filter(|&slot| left.slot_bad > 0 && self.disks.slot_bad >> slot & 1 == 0)
        {
            out.push(Action::SlotGoesBad(slot));
        }
        if k.ringing {
            out.push(Action::DoorbellLost);
        }
        for b in (0..self.bios.len()).filter(|_| left.deadlines > 0) {
            if self.bios[b].held && !self.bios[b].overdue {
                out.push(Action::DeadlineWork(b));
            }
        }
        if left.losses > 0 && k.owner == Owner::Living {
            out.push(Action::ClaimLost);
        }
        if left.suspends > 0 && !k.suspended {
            out.push(Action::Presuspend);
        }
        if left.cuts > 0 {
            let flying = (0..self.bios.len()).filter(|&b| self.may_have_landed(b).is_some());
            let flying = flying.fold(0, |sum, b| sum | 1 << b);
            for cells in parts(self.disks.in_cache()) {
                let landed = parts(flying).map(|landed| landed as u8);
                out.extend(landed.map(|landed| Action::PowerCut { cells, landed }));
            }
        }
    }

    /// Where a write under way may already be.
    fn may_have_landed(&self, b: usize) -> Option<At> {
        let busy = self.kernel.fault.filter(|f| f.stage == Stage::Busy && f.bio == Some(b as u8));
        let at = match (self.bios[b].progress, busy) {
            (Progress::Flying(at), _) if b != READ => Some(at),
            (_, Some(f)) => Some(self.op_dest(&f)),
            _ => None,
        };
        at.filter(|&at| !self.disks.is_bad(at))
    }

    pub fn take(&mut self, s: &Scenario, action: Action) {
        match action {
            Action::Submit(b) => {
                self.bios[b] = crate::state::Bio::UNSENT;
                self.left.reads -= u8::from(b == READ);
                self.note_submit(b);
                self.map(s, b);
            }
            Action::SubmitFlush => {
                self.left.flushes -= 1;
                self.flush_begins();
            }
            Action::Lands(b) => {
                if let Progress::Flying(at) = self.bios[b].progress {
                    self.lands(s, b, at);
                }
            }
            Action::Fails(b) => {
                if let Progress::Flying(at) = self.bios[b].progress {
                    let bad = self.disks.is_bad(at) || b == READ && self.disks.is_unreadable(at);
                    self.left.hiccups -= u8::from(!bad);
                    self.fails(s, b, at);
                }
            }
            Action::FlushLands => {
                self.disks.flushed(Whose::Application);
                self.flush_done(s, true);
            }
            Action::FlushFails(lost) => {
                self.left.flush_fails -= 1;
                self.disks.flush_failed(Whose::Application, lost);
                self.flush_done(s, false);
            }
            Action::DataGoesBad => {
                self.left.data_bad -= 1;
                self.disks.data_bad = true;
                // Of an instance that is not loaded nobody here knows where its content is.
                self.oracle.readable &= self.kernel.ready && self.kernel.table.dest() != At::Data;
            }
            Action::DataGoesWeak => {
                self.left.data_weak -= 1;
                self.disks.data_weak = true;
                self.oracle.readable &= self.kernel.ready && self.kernel.table.dest() != At::Data;
            }
            Action::SlotGoesBad(slot) => {
                self.left.slot_bad -= 1;
                self.disks.slot_bad |= 1 << slot;
                // A write under way may be there by now, durably, in place of what was acknowledged.
                let placed =
                    self.kernel.fault.is_some_and(|f| f.piece == Some(Extent::Mapped(slot)));
                let there = placed || self.kernel.table.dest() == At::Slot(slot);
                self.oracle.readable &= self.kernel.ready && !there;
            }
            Action::SendWork(b) => self.map(s, b),
            Action::OpDone { good } => {
                let bad = self.kernel.fault.is_some_and(|f| self.disks.is_bad(self.op_dest(&f)));
                self.left.hiccups -= u8::from(!good && !bad);
                self.op_done(s, good);
            }
            Action::DoorbellWork => self.kernel.ringing = true,
            Action::DoorbellLost => self.kernel.ringing = false,
            Action::DeadlineWork(b) => {
                self.left.deadlines -= 1;
                self.deadline(s, b);
            }
            Action::SocketGone => self.owner_gone(s),
            Action::ClaimLost => {
                self.left.losses -= 1;
                self.owner_gone(s);
            }
            Action::Presuspend => {
                self.left.suspends -= 1;
                self.presuspend(s);
            }
            Action::Preresume => {
                self.preresume();
                for b in 0..self.bios.len() {
                    if self.bios[b].progress == Progress::Requeued {
                        self.map(s, b);
                    }
                }
            }
            Action::Open => self.open(),
            Action::Opened => {
                self.disks.flushed(Whose::Daemon);
                self.opened(s);
            }
            Action::Claim => self.claim_sent(),
            Action::Session => self.session(s),
            Action::Look => self.lost(s),
            Action::Doorbell => {
                self.kernel.ringing = false;
                self.daemon.iter_mut().for_each(|d| d.list = true);
            }
            Action::List => self.list(s),
            Action::Verdict => self.verdict_sent(s, true),
            Action::AnswerLost => {
                self.left.answers -= 1;
                self.verdict_sent(s, false);
            }
            Action::ReadDone => self.read_done(),
            Action::FlushSpare => self.flush_sent(),
            Action::FlushDone => {
                self.disks.flushed(Whose::Daemon);
                self.own_flush_done(s, true);
            }
            Action::FlushSpareFails(lost) => {
                self.left.flush_fails -= 1;
                self.disks.flush_failed(Whose::Daemon, lost);
                self.own_flush_failed();
                self.own_flush_done(s, false);
            }
            Action::Commit => self.commit_begins(),
            Action::RecordWritten => self.record_written(),
            Action::AppendFlushed => {
                self.disks.flushed(Whose::Daemon);
                self.append_flushed(s, true);
            }
            Action::AppendFlushFails(lost) => {
                self.left.flush_fails -= 1;
                self.disks.flush_failed(Whose::Daemon, lost);
                self.own_flush_failed();
                self.append_flushed(s, false);
            }
            Action::CommitDone => self.commit_goes_on(),
            Action::Checkpoint => {
                self.left.checkpoints -= 1;
                self.checkpoint_begins();
            }
            Action::CheckpointDone => {
                self.disks.flushed(Whose::Daemon);
                self.checkpoint_done(s);
            }
            Action::Install => self.install_decided(),
            Action::Dies => {
                self.left.deaths -= 1;
                self.daemon_dies();
            }
            Action::LateWrite { lands } => {
                if let Some((sequence, record)) = self.late.take().filter(|_| lands) {
                    self.disks.write_record(sequence, record);
                }
            }
            Action::PowerCut { cells, landed } => {
                self.left.cuts -= 1;
                for b in (0..self.bios.len()).filter(|b| landed >> b & 1 != 0) {
                    if let Some(at) = self.may_have_landed(b) {
                        self.disks.write(at, value(b), true);
                    }
                }
                self.disks.cut(cells);
                self.power_cut();
            }
        }
        self.note_step();
    }

    /// The log of the model has room for another commit: a limit of the model, not of the contract.
    pub fn fits(&self) -> bool {
        self.daemon.as_ref().is_none_or(|d| usize::from(d.sequence) < LOG)
    }
}
