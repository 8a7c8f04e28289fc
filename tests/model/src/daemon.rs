//! `daemon/`: the policy core, its driver and its writer. Functions and steps are named like the daemon's; a request
//! and its answer are one step, as the kernel answers at once.

use crate::bug::Bug;
use crate::disk::{Extent, Record, SLOTS, Whose};
use crate::kernel::{Owner, Stage};
use crate::state::{Scenario, State};
use crate::verdict::Refusal;

/// `core::device::Phase`, and the opening of the store before there is a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// `Store::open`: the new superblock is written, its flush is under way; with the kernel's count before it.
    Opening {
        fails: u8,
    },
    Unclaimed,
    Loading,
    Loaded,
    Adopting,
    Serving,
    Refused,
}

/// `core::fault::Step`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    New,
    Searching,
    Placing,
    Placed,
    Flushing,
    Checking,
    Ready,
    Committing,
    Durable,
    Ending,
}

/// `core::fault::Fault`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known {
    /// The kernel's fault is still the one meant: what comparing fault ids tells.
    pub there: bool,
    pub step: Step,
    pub write: bool,
    pub held: bool,
    pub piece: Option<Extent>,
    /// Failed flushes of the spare before PLACE was sent.
    pub fails: u8,
}

impl Known {
    pub fn is_committed(self) -> bool {
        matches!(self.step, Step::Committing | Step::Durable)
    }

    fn writes_slots(self) -> bool {
        matches!(self.piece, Some(Extent::Mapped(_)))
    }
}

/// What the core has decided and not sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Try,
    Place,
    Install,
    Release,
    Fail,
}

/// `metadata::Store::append`, by the writer's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Append {
    Writing,
    Flushing,
    /// Flushed; `Shared::flush` asks for the count of failed flushes.
    Checking,
    /// To be restated.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Commit {
    pub record: Record,
    pub at: Append,
    /// The kernel's count of failed flushes before the record was written.
    pub fails: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Daemon {
    pub phase: Phase,
    pub epoch: u8,
    /// The table, its retired slots and its sequence, as committed.
    pub table: Extent,
    pub retired: u8,
    pub sequence: u8,
    pub fault: Option<Known>,
    /// Slots to be recorded as retired.
    pub retire: u8,
    /// The kernel's count of failed flushes of the spare, as last listed.
    pub fails: u8,
    pub list: bool,
    pub verdict: Option<Verdict>,
    pub flushing: bool,
    pub commit: Option<Commit>,
    /// Of the superblock in force.
    pub number: u8,
    /// A checkpoint under way, with the kernel's count of failed flushes before it.
    pub checkpoint: Option<u8>,
}

impl State {
    #[allow(
        clippy::expect_used,
        reason = "steps of the daemon are offered only while there is one"
    )]
    pub fn me(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a daemon lives")
    }

    /// FAULT_GET, by the owner, and `Device::listed`
    pub fn list(&mut self, s: &Scenario) {
        if self.kernel.owner == Owner::Living {
            self.kernel.bell = false;
        }
        let fails = self.kernel.flush_fails;
        let fault = self.kernel.fault;
        self.retired_listed();
        let d = self.me();
        d.list = false;
        d.fails = fails;
        d.fault = d.fault.filter(|known| known.there || known.is_committed());
        let Some(f) = fault else { return };
        let known = d.fault.get_or_insert(Known {
            there: true,
            step: Step::New,
            write: f.write,
            held: true,
            piece: None,
            fails: 0,
        });
        known.held = f.bio.is_some();
        if known.is_committed() || f.stage == Stage::Busy {
            return;
        }
        match (known.step, f.stage) {
            (Step::Ending, _) => self.fail_or_release(),
            (_, Stage::Open) if !known.held => self.decide(Verdict::Release),
            (Step::New, Stage::Open) => self.begin(s, f.heal),
            (Step::New, _) => self.adopt(s, f.piece),
            (Step::Searching, Stage::Open) if f.write => self.tried(s, f.good),
            (Step::Searching, Stage::Open) => {}
            (Step::Placing, Stage::Placed) => self.placed(s),
            (Step::Placing, _) => self.place_failed(s),
            (Step::Checking, Stage::Placed) => self.check(),
            (Step::Placed | Step::Flushing | Step::Ready, Stage::Placed) => {}
            _ => {
                known.step = Step::New;
                self.me().list = true;
            }
        }
    }

    pub fn decide(&mut self, verdict: Verdict) {
        self.me().verdict = Some(verdict);
    }

    fn step(&mut self, step: Step) {
        if let Some(known) = &mut self.me().fault {
            known.step = step;
        }
    }

    /// `Device::fail`: the original error, and the end of the fence too.
    fn fail_or_release(&mut self) {
        self.step(Step::Ending);
        let held = self.me().fault.is_some_and(|known| known.held);
        self.decide(if held { Verdict::Fail } else { Verdict::Release });
    }

    /// `Device::begin`: a heal is placed at once; a write is tried, a read is read, behind the fence.
    fn begin(&mut self, s: &Scenario, heal: bool) {
        if heal {
            return self.place_in_slots(s);
        }
        self.step(Step::Searching);
        if self.me().fault.is_some_and(|known| known.write) {
            self.decide(Verdict::Try);
        }
    }

    /// `Device::adopt`: what the log holds is installed; no commit will ever name the rest.
    fn adopt(&mut self, s: &Scenario, piece: Option<Extent>) {
        let d = self.me();
        if piece.is_none_or(|piece| piece == d.table) && !s.has(Bug::NothingAdopted) {
            if let Some(known) = &mut d.fault {
                known.piece = piece;
            }
            self.step(Step::Durable);
        } else {
            self.decide(Verdict::Release);
        }
    }

    /// `Device::tried`
    fn tried(&mut self, s: &Scenario, good: bool) {
        if good {
            self.send_place(None);
        } else {
            self.place_in_slots(s);
        }
    }

    /// `Device::read_done`: the daemon has read the range itself.
    pub fn read_done(&mut self) {
        let table = self.me().table;
        if !self.disks.is_unreadable(table.dest()) {
            return self.decide(Verdict::Release);
        }
        self.send_place(Some(match table {
            Extent::Mapped(slot) => Extent::PoisonSlot(slot),
            _ => Extent::PoisonData,
        }));
    }

    /// `Spare::allocate`
    fn place_in_slots(&mut self, s: &Scenario) {
        let d = self.me();
        let failed = if s.has(Bug::RetiredSlotReused) { 0 } else { d.retire | d.retired };
        let free = |slot: &u8| failed >> slot & 1 == 0 && d.table.slot() != Some(*slot);
        match (0..SLOTS as u8).find(free) {
            Some(slot) => self.send_place(Some(Extent::Mapped(slot))),
            None => self.fail_or_release(),
        }
    }

    fn send_place(&mut self, piece: Option<Extent>) {
        let d = self.me();
        if let Some(known) = &mut d.fault {
            known.step = Step::Placing;
            known.piece = piece;
            known.fails = d.fails;
        }
        self.decide(Verdict::Place);
    }

    /// `Device::place_failed`: the slot is retired by now; or a part that stays where it is has failed.
    fn place_failed(&mut self, s: &Scenario) {
        match self.me().fault.and_then(|known| known.piece) {
            Some(_) => self.place_in_slots(s),
            None => self.begin(s, false),
        }
    }

    /// `Device::placed`
    fn placed(&mut self, s: &Scenario) {
        let Some(known) = self.me().fault else { return };
        if !known.writes_slots() {
            self.step(if known.piece.is_none() { Step::Durable } else { Step::Ready });
        } else if s.has(Bug::PlaceNotFlushed) {
            self.step(Step::Ready);
        } else {
            self.step(Step::Placed);
            self.void_if_lost();
        }
    }

    /// `Device::check`
    fn check(&mut self) {
        self.step(Step::Ready);
        self.void_if_lost();
    }

    /// `Device::void_if_lost`: has a flush of the spare failed since the place was sent?
    fn void_if_lost(&mut self) {
        let fails = self.me().fails;
        if self.me().fault.is_some_and(|known| known.fails != fails) {
            self.void();
        }
    }

    fn void(&mut self) {
        match self.me().fault {
            Some(known) if known.held => self.send_place(known.piece),
            _ => self.fail_or_release(),
        }
    }

    /// `Device::flush`: covers the places reported before it is sent.
    pub fn flush_sent(&mut self) {
        self.step(Step::Flushing);
        self.me().flushing = true;
        self.disks.flush_sent(Whose::Daemon);
    }

    /// `Device::flush_done`
    pub fn own_flush_done(&mut self, s: &Scenario, ok: bool) {
        self.me().flushing = false;
        let flushing = self.me().fault.is_some_and(|known| known.step == Step::Flushing);
        match ok {
            _ if !flushing => {}
            false => self.void(),
            true if s.has(Bug::PlaceNotChecked) => self.step(Step::Ready),
            true => {
                self.step(Step::Checking);
                self.me().list = true;
            }
        }
    }

    /// `Device::flush_failed`: the kernel has counted it, and is asked before anything is placed again.
    pub fn own_flush_failed(&mut self) {
        self.me().fails += 1;
        self.flush_failed_told();
    }

    /// A request went well, or not; `answered` is false if its answer was lost, which is taken for a lost claim.
    pub fn verdict_sent(&mut self, s: &Scenario, answered: bool) {
        let Some(verdict) = self.me().verdict.take() else { return };
        if self.kernel.owner != Owner::Living {
            return self.lost(s);
        }
        let (known, sequence) = (self.me().fault, self.me().sequence);
        let Some(known) = known else { return };
        let answer = match verdict {
            Verdict::Install => self.install(s, known.there, sequence),
            _ if !known.there => Err(Refusal::NoFault),
            Verdict::Try => self.start_op(s, false, None),
            Verdict::Place => self.start_op(s, true, known.piece),
            Verdict::Release => self.release(),
            Verdict::Fail => self.fail(s),
        };
        if !answered {
            return self.lost(s);
        }
        self.verdict_done(s, verdict, answer);
    }

    /// `Device::verdict_done` and `Device::install_done`
    fn verdict_done(&mut self, s: &Scenario, verdict: Verdict, answer: Result<(), Refusal>) {
        let d = self.me();
        match (verdict, answer) {
            (Verdict::Install | Verdict::Release, Ok(())) => {
                // Another fault may have been listed meanwhile, which had to wait here.
                d.list |= d.fault.is_some_and(|known| !known.there);
                d.fault = None;
            }
            (Verdict::Fail, Ok(())) => {
                // A pinned fence stays, and is released.
                match d.fault {
                    Some(known) if known.there => self.decide(Verdict::Release),
                    _ => d.fault = None,
                }
            }
            (_, Ok(())) => {}
            (Verdict::Place, Err(Refusal::Exists)) => self.place_in_slots(s),
            (_, Err(_)) => {
                d.list = true;
                if let Some(known) = d.fault.as_mut().filter(|known| !known.is_committed()) {
                    // `Fault::restart`; an error that was decided stays.
                    if verdict != Verdict::Fail {
                        known.step = Step::New;
                    }
                }
            }
        }
    }

    /// The process ends. A write to the spare that has not returned keeps the spare locked.
    pub fn daemon_dies(&mut self) {
        let Some(d) = self.daemon.take() else { return };
        let writing = d.commit.filter(|commit| commit.at == Append::Writing);
        self.late = writing.map(|commit| (d.sequence + 1, commit.record));
        self.disks.forget_flush(Whose::Daemon);
        if self.kernel.owner == Owner::Living {
            self.kernel.owner = Owner::Dead;
        }
    }
}
