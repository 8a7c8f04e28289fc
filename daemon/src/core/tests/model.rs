//! The core against the small kernel, under random faults, refusals, crashes and lost claims.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::kernel::{AREA, Kernel};
use crate::core::event::*;
use crate::core::fault::in_table;
use crate::core::{Device, Durable, Policy};
use crate::table::{Change, Kind, Table};
use crate::units::{Sector, Sectors, Slot};

pub struct World {
    pub kernel: Kernel,
    pub device: Device,
    pub policy: Policy,
    pub now: Duration,
    /// Requests to the kernel, answered in order.
    requests: VecDeque<Action>,
    /// Reads, flushes and commits.
    slow: Vec<Action>,
    timer: Option<Duration>,
    /// What was volatile when the flush under way was sent.
    covered: BTreeSet<u64>,
    /// What the log holds.
    log: Table,
    sequence: u64,
    /// Submitted and not resolved, and whether it is durable already.
    submitted: Option<(Vec<Change>, bool)>,
    rng: u64,
    pub chaos: bool,
    pub log_full: bool,
    pub alarms: Vec<Alarm>,
    pub places: u64,
}

impl World {
    pub fn new(sectors: u64, block: u64, seed: u64) -> World {
        World::on(AREA, sectors, block, seed)
    }

    /// Claimed, loaded and serving.
    pub fn on(area: Area, sectors: u64, block: u64, seed: u64) -> World {
        let policy = Policy::default();
        let proof = Durable::after(0);
        let mut world = World {
            kernel: Kernel::new(sectors, block, area),
            device: Device::new(policy.clone(), area, Table::default(), proof),
            policy,
            now: Duration::ZERO,
            requests: VecDeque::new(),
            slow: Vec::new(),
            timer: None,
            covered: BTreeSet::new(),
            log: Table::default(),
            sequence: 0,
            submitted: None,
            rng: seed,
            chaos: false,
            log_full: false,
            alarms: Vec::new(),
            places: 0,
        };
        world.tell(Event::Instance(world.kernel.instance()));
        world.settle();
        world
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.rng = self.rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.rng >> 33) % below
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.chaos && self.random(100) < percent
    }

    fn tell(&mut self, event: Event) {
        for action in self.device.handle(self.now, event) {
            match action {
                Action::SetTimer(at) => self.timer = Some(at),
                Action::Alarm { alarm, .. } => self.alarms.push(alarm),
                Action::FlushSpare => {
                    self.covered = self.kernel.volatile.clone();
                    self.slow.push(action);
                }
                Action::Read { .. } | Action::Restate => self.slow.push(action),
                Action::Commit(changes) => {
                    self.assert_flushed(&changes);
                    assert!(self.submitted.is_none(), "two commits in flight");
                    self.submitted = Some((changes.clone(), false));
                    self.slow.push(Action::Commit(changes));
                }
                _ => self.requests.push_back(action),
            }
        }
    }

    fn answer(&mut self, action: Action) -> Event {
        let refused = self.chance(3);
        let verdict = |fault, result| Event::VerdictDone { fault, result };
        match action {
            Action::Claim { commit, .. } => {
                assert!(commit >= self.kernel.commit);
                self.kernel.commit = commit;
                Event::Claimed(Ok(()))
            }
            Action::Load(load) => {
                self.kernel.load(&load);
                Event::Loaded(Ok(()))
            }
            Action::Ready => {
                self.kernel.ready = true;
                Event::ReadyDone(Ok(()))
            }
            Action::ListRetired => {
                let retired = self.kernel.retired.iter();
                Event::RetiredListed(Ok(retired.map(|&s| (Slot(s), Sectors(1))).collect()))
            }
            Action::List => Event::FaultsListed(Ok(self.kernel.list())),
            Action::Try { fault, .. }
            | Action::Place { fault, .. }
            | Action::Release { fault }
            | Action::Fail { fault }
                if refused =>
            {
                verdict(fault, Err(Refusal::NoMemory))
            }
            Action::Install { .. } if refused => Event::InstallDone(Err(Refusal::NoMemory)),
            Action::Try { fault, pieces } => {
                verdict(fault, self.kernel.start(fault, false, pieces))
            }
            Action::Place { fault, pieces } => {
                self.places += 1;
                verdict(fault, self.kernel.start(fault, true, pieces))
            }
            Action::Release { fault } => {
                self.assert_uncommitted(fault);
                verdict(fault, self.kernel.release(fault))
            }
            Action::Fail { fault } => verdict(fault, self.kernel.fail(fault)),
            Action::Install { proof, faults } => {
                assert!(proof.sequence() <= self.sequence);
                for fault in faults.iter().filter_map(|id| self.kernel.faults.get(&id.0)) {
                    for (piece, _) in &fault.pieces {
                        let held = in_table(&self.log, Sector(fault.start), piece);
                        assert!(held, "installed before its commit: {piece:?}");
                    }
                }
                Event::InstallDone(self.kernel.install(proof.sequence(), &faults))
            }
            Action::Read { id, spans, .. } => {
                let results = spans.iter().map(|span| self.kernel.probe(span)).collect();
                Event::ReadDone { id, results }
            }
            Action::FlushSpare => {
                let ok = !self.chance(10);
                self.kernel.flushed(ok, &self.covered);
                if !ok {
                    self.kernel.flush_fails += 1;
                    self.tell(Event::FlushFailed);
                }
                Event::FlushDone { ok }
            }
            Action::Commit(_) if self.log_full => {
                self.submitted = None;
                Event::CommitDone(Err(CommitFailure::Full))
            }
            Action::Commit(_) | Action::Restate => self.write_log(),
            Action::Alarm { .. } | Action::SetTimer(_) => unreachable!("not answered"),
        }
    }

    fn write_log(&mut self) -> Event {
        let lands = !self.chance(15);
        let told = lands && !self.chance(15);
        let Some((changes, durable)) = &mut self.submitted else { panic!("nothing to restate") };
        if lands && !*durable {
            *durable = true;
            self.sequence += 1;
            for change in changes.iter() {
                if let Change::Set(extent) = change {
                    if let Kind::Mapped(slot) = extent.kind {
                        let taken = self.log.extents().filter(|e| {
                            let other = e.kind.slot();
                            let len = |l: Sectors| l.round_up(AREA.unit);
                            (e.start >= extent.end() || extent.start >= e.end())
                                && other.is_some_and(|s| {
                                    s < slot + len(extent.len) && slot < s + len(e.len)
                                })
                        });
                        assert_eq!(taken.count(), 0, "two mappings share a slot");
                    }
                }
                self.log.apply(change);
            }
        }
        if told {
            self.submitted = None;
            Event::CommitDone(Ok(Durable::after(self.sequence)))
        } else {
            Event::CommitDone(Err(CommitFailure::Unknown))
        }
    }

    fn assert_flushed(&self, changes: &[Change]) {
        for change in changes {
            let Change::Set(extent) = change else { continue };
            let Kind::Mapped(slot) = extent.kind else { continue };
            for s in slot.0..slot.0 + extent.len.0 {
                assert!(!self.kernel.volatile.contains(&s), "committed before its flush");
                assert!(!self.kernel.lost.contains(&s), "committed what a flush has lost");
            }
        }
    }

    /// What a commit under way or a durable one names ends by an install only.
    fn assert_uncommitted(&self, id: FaultId) {
        let Some(fault) = self.kernel.faults.get(&id.0).filter(|f| f.state == State::Placed) else {
            return;
        };
        let mut after = self.log.clone();
        let changes = self.submitted.iter().flat_map(|(changes, _)| changes);
        changes.for_each(|change| after.apply(change));
        let named = |(p, _): &(Piece, Status)| in_table(&after, Sector(fault.start), p);
        assert!(!fault.pieces.iter().any(named), "released what a commit names");
    }

    /// One thing happens. False when nothing is left to happen.
    pub fn step(&mut self) -> bool {
        let busy: Vec<u64> = self
            .kernel
            .faults
            .iter()
            .filter(|(_, f)| f.state == State::Busy)
            .map(|(&id, _)| id)
            .collect();
        let ways =
            [!self.requests.is_empty(), !self.slow.is_empty(), !busy.is_empty(), self.kernel.bell];
        if ways == [false; 4] {
            let Some(at) = self.timer.take() else { return false };
            self.now = self.now.max(at);
            self.tell(Event::Tick);
            return true;
        }
        self.now += Duration::from_millis(1);
        let mut way = self.random(4) as usize;
        while !ways[way] {
            way = (way + 1) % 4;
        }
        match way {
            0 => {
                if let Some(action) = self.requests.pop_front() {
                    let event = self.answer(action);
                    self.tell(event);
                }
            }
            1 => {
                let i = self.random(self.slow.len() as u64) as usize;
                let action = self.slow.swap_remove(i);
                let event = self.answer(action);
                self.tell(event);
            }
            2 => {
                let i = self.random(busy.len() as u64) as usize;
                self.kernel.finish(busy[i]);
            }
            _ => self.tell(Event::Doorbell),
        }
        true
    }

    pub fn settle(&mut self) {
        for _ in 0..200_000 {
            if !self.step() {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.device.snapshot());
    }

    /// The daemon dies; the next one recovers what is durable, or lands while it dies.
    fn crash(&mut self) {
        if self.random(2) == 0 {
            if let Some((changes, false)) = self.submitted.take() {
                self.sequence += 1;
                changes.iter().for_each(|change| self.log.apply(change));
            }
        }
        self.submitted = None;
        self.requests.clear();
        self.slow.clear();
        self.timer = None;
        let (policy, proof) = (self.policy.clone(), Durable::after(self.sequence));
        self.device = Device::new(policy, self.kernel.area, self.log.clone(), proof);
        self.tell(Event::Instance(self.kernel.instance()));
    }
}

fn run(seed: u64, block: u64) {
    let mut world = World::new(4096, block, seed);
    world.chaos = true;
    let mut wrote = BTreeSet::new();
    for _ in 0..120 {
        let start = world.random(4000 / block) * block;
        let len = (1 + world.random(8)) * block;
        match world.random(24) {
            0..6 => {
                let run = 1 + world.random(9);
                world.kernel.bad_data.extend(start..start + run);
            }
            6 => {
                let slot = AREA.start.0 + world.random(400);
                world.kernel.bad_slots.insert(slot);
            }
            7 => {
                world.kernel.flush_fails += 1;
                world.kernel.flushed(false, &BTreeSet::new());
            }
            8 => {
                let ids: Vec<u64> = world.kernel.faults.keys().copied().collect();
                if !ids.is_empty() {
                    let i = world.random(ids.len() as u64) as usize;
                    world.kernel.expire(ids[i]);
                }
            }
            9 => world.crash(),
            10 => world.tell(Event::OwnerLost),
            11..18 if !world.kernel.fenced(start, len) => {
                wrote.insert(start);
                world.kernel.write(start, len, None);
            }
            18.. if !world.kernel.fenced(start, len) => world.kernel.read(start, len),
            _ => {}
        }
        for _ in 0..world.random(30) {
            world.step();
        }
    }
    world.chaos = false;
    world.settle();
    assert!(world.kernel.faults.is_empty(), "unresolved: {:?}", world.kernel.faults);
    let (kernel, log): (Vec<_>, Vec<_>) =
        (world.kernel.table.extents().collect(), world.log.extents().collect());
    assert_eq!(kernel, log);
    assert_eq!(world.device.table(), &world.log);
    let recorded: BTreeSet<u64> =
        world.log.retired().flat_map(|(slot, len)| slot.0..(slot + len).0).collect();
    assert!(world.kernel.retired.is_subset(&recorded), "a failed slot is not on record");
    for start in wrote {
        world.kernel.read(start, block);
        world.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_fault_ends_and_nothing_acknowledged_is_lost(seed: u64, big in any::<bool>()) {
        run(seed, if big { 8 } else { 1 });
    }
}
