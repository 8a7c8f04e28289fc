//! The conversation between kernel and daemon as a model that is explored to its end: every order of every step of
//! the module, the daemon, the disks and the application, with what goes wrong, as far as a scenario's budget allows.
//!
//! In reading order: `disk` (caches, flushes, power cuts), `state`, `kernel` and `verdict` (kmod/), `session`, `daemon`
//! and `commit` (daemon/), `action` (every step), `oracle` (what may be read), `bug` (deliberate ones), `scenario`,
//! `rank` (that it ends). Functions and steps bear the names of what they stand for, so that a change there is
//! looked for here.
//!
//! One sector, two slots, one read and two writes of it, so one fault at a time; one daemon at a time, and what a dead
//! one left under way. A request and its answer are one step, as the kernel answers under a mutex. Not in it:
//! group commits, searches (a fault is one block), mirrors and the inside of a superblock or a record, which the
//! enumeration of crashes covers; grace periods and memory order; copy-back, which no daemon does yet; reload, which
//! to the instance is a suspend and a resume. Taken as given, as the README says: a flush of the daemon's own that fails
//! is told to the kernel before anything else happens, and none fails while the daemon does not serve.

mod action;
mod bug;
mod commit;
mod daemon;
mod disk;
mod kernel;
mod oracle;
mod rank;
mod scenario;
mod session;
mod state;
mod verdict;

use stateright::{Checker, HasDiscoveries, Model, Property};

pub use action::Action;
pub use bug::Bug;
pub use rank::{Rank, Stuck, rank};
pub use scenario::{FOUND_BY, SCENARIOS};
pub use state::{Scenario, State};

use daemon::{Append, Phase, Step};
use disk::Extent;
use kernel::Stage;
use state::{Broken, Progress};

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(self, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.take(self, action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Scenario>> {
        vec![
            Property::always(
                "I1, I5: what is found is what was acknowledged, or sent since",
                |s: &Scenario, state: &State| state.content_is_admissible(s),
            ),
            Property::always("I2: a read returns what was written", |_, state: &State| {
                state.broken != Some(Broken::Read)
            }),
            Property::always("I2: poison hides nothing that is readable", |_, state: &State| {
                state.broken != Some(Broken::Hidden)
            }),
            Property::always("I3: a bio ends once", |_, state: &State| {
                state.broken != Some(Broken::Twice)
            }),
            Property::always(
                "I3: a hold ends by its deadline, whatever the daemon does",
                |s: &Scenario, state: &State| state.holds_end(s),
            ),
            Property::always("I3: no error without a reason", |_, state: &State| {
                state.broken != Some(Broken::Unjustified)
            }),
            Property::always("I4: a slot serves one mapping", |_, state: &State| {
                state.broken != Some(Broken::Slot)
            }),
            Property::always("I5: the spare is not refused", |_, state: &State| {
                state.phase() != Some(Phase::Refused)
            }),
            Property::always("the model's log is long enough", |_, state: &State| state.fits()),
            Property::sometimes("mapped", |_, state: &State| {
                matches!(state.kernel.table, Extent::Mapped(_)) && state.kernel.ready
            }),
            Property::sometimes("mapped to another slot", |_, state: &State| {
                state.kernel.table == Extent::Mapped(1) && state.kernel.retired == 1
            }),
            Property::sometimes("poisoned", |_, state: &State| {
                state.kernel.table == Extent::PoisonData && state.kernel.ready
            }),
            Property::sometimes("poisoned at its slot", |_, state: &State| {
                matches!(state.kernel.table, Extent::PoisonSlot(_)) && state.kernel.ready
            }),
            Property::sometimes("healing", |_, state: &State| {
                state.kernel.fault.is_some_and(|f| f.heal && f.stage == Stage::Placed)
            }),
            Property::sometimes("fenced, another waits", |_, state: &State| {
                let waits = |b: &state::Bio| b.progress == Progress::Parked;
                state.kernel.fault.is_some_and(|f| f.bio.is_some()) && state.bios.iter().any(waits)
            }),
            Property::sometimes("a pinned fence outlives its bio", |_, state: &State| {
                state.kernel.fault.is_some_and(|f| f.pinned && f.bio.is_none())
            }),
            Property::sometimes("a deadline is missed", |_, state: &State| {
                state.bios.iter().any(|b| b.overdue && b.progress == Progress::Failed)
            }),
            Property::sometimes("pushed back by a suspend", |_, state: &State| {
                state.bios.iter().any(|b| b.progress == Progress::Requeued)
            }),
            Property::sometimes("a placed fence without an owner", |_, state: &State| {
                state.daemon.is_none()
                    && state.kernel.fault.is_some_and(|f| f.stage == Stage::Placed)
            }),
            Property::sometimes("a claim is lost under a commit", |_, state: &State| {
                state.phase() == Some(Phase::Unclaimed)
                    && state.daemon.as_ref().is_some_and(|d| d.commit.is_some())
            }),
            Property::sometimes("what the log holds is adopted", |_, state: &State| {
                // Its claim has said so already: a commit of its own is newer.
                let adopts = |d: &daemon::Daemon| {
                    d.sequence == state.kernel.commit
                        && d.fault.is_some_and(|f| f.step == Step::Durable && f.piece.is_some())
                };
                state.daemon.as_ref().is_some_and(adopts)
            }),
            Property::sometimes("a commit is unknown", |_, state: &State| {
                let unknown = |c: daemon::Commit| c.at == Append::Unknown;
                state.daemon.as_ref().is_some_and(|d| d.commit.is_some_and(unknown))
            }),
            Property::sometimes("a foreign flush fails under a commit", |_, state: &State| {
                let under = |c: daemon::Commit| {
                    c.at == Append::Checking && c.fails < state.kernel.flush_fails
                };
                state.daemon.as_ref().is_some_and(|d| d.commit.is_some_and(under))
            }),
            Property::sometimes("a place is void", |_, state: &State| {
                let void = |f: daemon::Known| f.step == Step::Placing && f.fails > 0;
                state.daemon.as_ref().is_some_and(|d| d.fault.is_some_and(void))
            }),
            Property::sometimes("a dead daemon's write is under way", |_, state: &State| {
                state.late.is_some()
            }),
            Property::sometimes("the spare is full", |_, state: &State| {
                state.oracle.failed == 3 && state.kernel.ready
            }),
        ]
    }
}

impl State {
    fn phase(&self) -> Option<Phase> {
        self.daemon.as_ref().map(|d| d.phase)
    }

    /// I3, bounded: the kernel alone ends each hold, in two steps at most: the return of what was sent on its pages, and
    /// the deadline. Nothing else is needed, so nothing that dies can prevent it.
    fn holds_end(&self, s: &Scenario) -> bool {
        (0..self.bios.len()).all(|b| {
            if !matches!(self.bios[b].progress, Progress::Parked | Progress::Held) {
                return true;
            }
            let mut later = self.clone();
            later.deadline(s, b);
            if later.kernel.fault.is_some_and(|f| f.stage == Stage::Busy && f.bio == Some(b as u8))
            {
                later.op_done(s, true);
            }
            !matches!(later.bios[b].progress, Progress::Parked | Progress::Held)
        })
    }

    /// Nothing is owed to anybody.
    fn is_settled(&self) -> bool {
        self.bios.iter().all(|b| !b.is_under_way())
            && self.flush.is_none()
            && self.kernel.fault.is_none()
            && self.phase() == Some(Phase::Serving)
            && self.daemon.as_ref().is_some_and(|d| d.commit.is_none() && d.checkpoint.is_none())
    }
}

/// An exploration to its end.
pub struct Explored {
    pub states: usize,
    pub depth: usize,
    /// Names of the interesting states that were seen.
    pub seen: Vec<&'static str>,
    /// Broken properties, each with the shortest way to it.
    pub broken: Vec<(&'static str, Vec<Action>)>,
}

/// In breadth, by one thread, so that counts are exact and ways are shortest. With `first`, up to the first failure.
pub fn explore(scenario: &Scenario, first: bool) -> Explored {
    let until = if first { HasDiscoveries::AnyFailures } else { HasDiscoveries::All };
    let checker = scenario.checker().threads(1).finish_when(until).spawn_bfs().join();
    let (mut seen, mut broken) = (Vec::new(), Vec::new());
    for (name, path) in checker.discoveries() {
        if checker.model().property(name).expectation == stateright::Expectation::Sometimes {
            seen.push(name);
        } else {
            broken.push((name, path.into_actions()));
        }
    }
    seen.sort_unstable();
    broken.sort_unstable_by_key(|(name, _)| *name);
    Explored { states: checker.unique_state_count(), depth: checker.max_depth(), seen, broken }
}
