//! A device's state, and what an event or a listing makes of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::breaker::Breaker;
use super::commit::Commit;
use super::durable::Durable;
use super::event::{
    Action, Alarm, Area, Event, FaultId, Instance, Listed, Load, Piece, ReadId, Refusal, State,
};
use super::fault::{Fault, Step, Verdict, in_table};
use super::policy::Policy;
use super::snapshot::{Counters, Happening, Notes};
use super::spare::Spare;
use crate::table::{Change, Table};

const ASK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// There is no instance.
    Absent,
    /// To be claimed.
    Unclaimed,
    Claiming,
    Loading,
    /// What another owner retired is asked for.
    Adopting,
    Serving,
    /// The kernel will not have this table.
    Refused,
}

pub struct Device {
    pub(super) now: Duration,
    pub(super) out: Vec<Action>,
    pub(super) policy: Policy,
    pub(super) phase: Phase,
    pub(super) instance: Option<Instance>,
    pub(super) area: Area,
    pub(super) table: Table,
    pub(super) spare: Spare,
    pub(super) breaker: Breaker,
    pub(super) faults: BTreeMap<FaultId, Fault>,
    pub(super) commit: Option<Commit>,
    /// Of the last commit that is durable.
    pub(super) proof: Durable,
    /// Slots that failed, for the next commit.
    pub(super) retire: Vec<Change>,
    pub(super) flushing: bool,
    pub(super) installing: bool,
    pub(super) metadata_dead: bool,
    /// When a commit may find room again.
    pub(super) log_full: Option<Duration>,
    pub(super) restate_at: Option<Duration>,
    pub(super) install_at: Option<Duration>,
    pub(super) reads: u64,
    pub(super) seed: u64,
    /// What has not ended yet, with the words it was raised with.
    pub(super) alarms: BTreeMap<Alarm, String>,
    pub(super) counters: Counters,
    pub(super) notes: Notes,
    pub(super) loading: std::vec::IntoIter<Load>,
    /// Of that, what was sent last, and when it is to be sent again.
    pub(super) chunk: Vec<Load>,
    pub(super) load_at: Option<Duration>,
    pub(super) resent: bool,
    /// The read that shows whether the spare answers, and the time of the next.
    pub(super) probing: Option<ReadId>,
    pub(super) probe_at: Option<Duration>,
    pub(super) spare_answers: bool,
    /// Listings sent so far.
    pub(super) lists: u64,
    listing: bool,
    pub(super) list_wanted: bool,
    /// A slot may have failed that we were not told of.
    pub(super) retired_wanted: bool,
    list_at: Option<Duration>,
    pub(super) claim_at: Option<Duration>,
    timer: Option<Duration>,
}

impl Device {
    /// `table` and `proof` are what recovery made durable.
    pub fn new(policy: Policy, area: Area, table: Table, proof: Durable) -> Device {
        Device {
            now: Duration::ZERO,
            out: Vec::new(),
            policy,
            phase: Phase::Absent,
            instance: None,
            area,
            spare: Spare::new(area, &table),
            table,
            breaker: Breaker::new(),
            faults: BTreeMap::new(),
            commit: None,
            proof,
            retire: Vec::new(),
            flushing: false,
            installing: false,
            metadata_dead: false,
            log_full: None,
            restate_at: None,
            install_at: None,
            reads: 0,
            seed: proof.sequence(),
            alarms: BTreeMap::new(),
            counters: Counters::default(),
            notes: Notes::default(),
            loading: Vec::new().into_iter(),
            chunk: Vec::new(),
            load_at: None,
            resent: false,
            probing: None,
            probe_at: None,
            spare_answers: false,
            lists: 0,
            listing: false,
            list_wanted: false,
            retired_wanted: false,
            list_at: None,
            claim_at: None,
            timer: None,
        }
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// `now` counts from any fixed moment and never goes back.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Instance(instance) => self.appeared(instance),
            Event::Gone => self.gone(),
            Event::OwnerLost => self.lost(),
            Event::Doorbell => self.list_wanted = true,
            Event::Tick => self.timer = None,
            Event::PolicyChanged(policy) => {
                self.policy = policy;
                self.spare_news();
            }
            Event::Claimed(result) => self.claimed(result),
            Event::Loaded(result) => self.loaded(result),
            Event::ReadyDone(result) => self.ready_done(result),
            Event::RetiredListed(result) => self.retired_listed(result),
            Event::FaultsListed(result) => self.listed(result),
            Event::VerdictDone { fault, result } => self.verdict_done(fault, result),
            Event::InstallDone(result) => self.install_done(result),
            Event::ReadDone { id, results } if self.probing == Some(id) => self.probed(&results),
            Event::ReadDone { id, results } => self.read_done(id, &results),
            Event::FlushDone { ok } => self.flush_done(ok),
            Event::FlushFailed => self.flush_failed(),
            Event::CommitDone(result) => self.commit_done(result),
        }
        self.settle();
        std::mem::take(&mut self.out)
    }

    fn settle(&mut self) {
        let now = self.now;
        let due = move |at: &mut Option<Duration>| at.take_if(|at| *at <= now).is_some();
        if due(&mut self.restate_at) {
            self.out.push(Action::Restate);
        }
        due(&mut self.install_at);
        due(&mut self.claim_at);
        due(&mut self.log_full);
        due(&mut self.probe_at);
        if due(&mut self.load_at) && self.phase == Phase::Loading {
            self.load_again();
        }
        self.list_wanted |= due(&mut self.list_at);
        match self.phase {
            Phase::Unclaimed
                if self.restate_at.is_some()
                    && self.probing.is_none()
                    && self.probe_at.is_none() =>
            {
                self.probe_spare();
            }
            Phase::Unclaimed if self.commit.is_none() && self.claim_at.is_none() => {
                self.phase = Phase::Claiming;
                let commit = self.proof.sequence();
                self.out.push(Action::Claim { commit, area: self.area });
            }
            Phase::Serving => {
                self.flush();
                self.install();
                self.commit();
                // Of the whole table, for however many faults.
                if std::mem::take(&mut self.retired_wanted) {
                    self.out.push(Action::ListRetired);
                }
                if self.list_wanted && !self.listing {
                    self.list_wanted = false;
                    self.listing = true;
                    self.lists += 1;
                    self.out.push(Action::List);
                }
            }
            _ => {}
        }
        let times = [
            self.restate_at,
            self.install_at,
            self.claim_at,
            self.list_at,
            self.log_full,
            self.probe_at,
            self.load_at,
        ];
        let next = times.into_iter().flatten().min();
        if next.is_some() && next != self.timer {
            self.out.extend(next.map(Action::SetTimer));
        }
        self.timer = next;
    }

    fn listed(&mut self, result: Result<(Instance, Vec<Listed>), Refusal>) {
        self.listing = false;
        let (instance, listed) = match result {
            _ if self.phase != Phase::Serving => return,
            Ok(answer) => answer,
            Err(refusal) => return self.refused(refusal),
        };
        if instance.spare_flush_bad {
            self.alarm(Alarm::SpareFlush, "the spare fails its flushes".into());
        } else {
            self.alarms.remove(&Alarm::SpareFlush);
        }
        self.instance = Some(instance);
        let there: BTreeSet<FaultId> = listed.iter().map(|l| l.id).collect();
        self.forget_if(|id, fault| !there.contains(&id) && !fault.is_committed());
        for fault in listed {
            self.look(fault);
        }
    }

    /// A request that failed for want of a claim is answered by another claim; others are
    /// repeated when a later listing shows where the fault stands.
    pub(super) fn refused(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::NotOwner | Refusal::NoInstance | Refusal::Link => {
                if self.phase == Phase::Serving {
                    self.lost();
                    self.claim_at = Some(self.now + ASK_AGAIN);
                }
            }
            _ => self.list_again(),
        }
    }

    pub(super) fn list_again(&mut self) {
        self.list_at = Some(self.now + ASK_AGAIN);
    }

    fn look(&mut self, listed: Listed) {
        let new = !self.faults.contains_key(&listed.id);
        self.counters.faults += u64::from(new);
        if new {
            // A former owner's places: ended or not, the kernel may know their slots as used.
            let slots = listed.pieces.iter().filter_map(|(p, _)| Some((p.kind?.slot()?, p.len)));
            slots.for_each(|(slot, len)| self.spare.burn(slot, len));
        }
        let fault = self.faults.entry(listed.id).or_insert_with(|| Fault::new(&listed));
        fault.flags = listed.flags;
        fault.deadline = listed.deadline.map(|left| self.now + left);
        if fault.asked.is_some() || listed.state == State::Busy {
            return;
        }
        let id = listed.id;
        let ours =
            matches!(fault.step, Step::Placing | Step::ControllingSpare) && listed.flags.held;
        self.retired_wanted |= listed.state == State::Open && listed.slot_failed() && !ours;
        match (fault.step, listed.state) {
            (Step::Committing | Step::Durable, _) => {}
            (Step::Ending, _) => self.fail(id, "again"),
            (_, State::Open) if !listed.flags.held => self.release(id),
            (Step::New, State::Open) => self.begin(id, listed.status),
            (Step::New, _) => self.adopt(listed),
            (Step::Searching, State::Open) if fault.flags.write => self.tried(listed),
            (Step::Searching | Step::Controlling | Step::ControllingSpare, State::Open) => {}
            (Step::Placing, State::Placed) => self.placed(listed),
            (Step::Placing, _) => self.place_failed(listed),
            (Step::Checking, State::Placed) => self.check(id),
            (Step::Placed | Step::Flushing | Step::Ready, State::Placed) => {}
            _ => {
                fault.step = Step::New;
                self.list_again();
            }
        }
    }

    /// Placed, but not by a request of ours that we remember. What the log holds is installed, and
    /// what it holds a part of, as a commit may take several records, is committed to its end: it was
    /// flushed before. No commit will ever name the rest.
    fn adopt(&mut self, listed: Listed) {
        let Some(fault) = self.faults.get_mut(&listed.id) else { return };
        fault.pieces = listed.pieces.into_iter().map(|(piece, _)| piece).collect();
        let logged = |piece: &&Piece| in_table(&self.table, listed.start, piece);
        let count = fault.pieces.iter().filter(logged).count();
        if count == fault.pieces.len() {
            fault.step = Step::Durable;
        } else if count > 0 {
            fault.named = true;
            fault.step = Step::Ready;
        } else {
            self.release(listed.id);
        }
    }

    fn verdict_done(&mut self, id: FaultId, result: Result<(), Refusal>) {
        let Some(fault) = self.faults.get_mut(&id) else { return };
        let Some(verdict) = fault.asked.take() else { return };
        match (verdict, result) {
            (Verdict::Release, Ok(())) => {
                self.counters.released += 1;
                self.notes.add(self.now, Happening::Released(id));
                self.forget(id);
            }
            (Verdict::Fail, Ok(())) => {
                fault.flags.held = false;
                if !fault.flags.pinned {
                    self.forget(id);
                } else if !fault.is_committed() {
                    self.release(id);
                }
            }
            (_, Ok(())) => {}
            (Verdict::Place, Err(Refusal::Exists)) => self.place_elsewhere(id),
            (_, Err(Refusal::NoFault | Refusal::Busy)) => {
                fault.restart(verdict);
                self.list_wanted = true;
            }
            (_, Err(refusal)) => {
                fault.attempts += u32::from(refusal == Refusal::Invalid);
                fault.restart(verdict);
                self.refused(refusal);
            }
        }
    }

    pub(super) fn forget(&mut self, id: FaultId) {
        // A place that ended unseen may have failed, and the slot with it.
        let unseen = |f: Fault| matches!(f.step, Step::New | Step::Placing);
        self.retired_wanted |= self.faults.remove(&id).is_some_and(unseen);
        let change = self.breaker.passed(self.now, id, false);
        self.breaker_news(change);
    }

    pub(super) fn forget_if(&mut self, gone: impl Fn(FaultId, &Fault) -> bool) {
        let ids: Vec<FaultId> =
            self.faults.iter().filter(|&(&id, f)| gone(id, f)).map(|(&id, _)| id).collect();
        ids.into_iter().for_each(|id| self.forget(id));
    }

    /// Raised once, until what it is about has ended.
    pub(super) fn alarm(&mut self, alarm: Alarm, text: String) {
        if let Entry::Vacant(entry) = self.alarms.entry(alarm) {
            entry.insert(text.clone());
            self.notes.add(self.now, Happening::Alarm { alarm, text: text.clone() });
            self.out.push(Action::Alarm { alarm, text });
        }
    }
}
