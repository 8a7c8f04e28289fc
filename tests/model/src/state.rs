//! Everything that the conversation is about, at one moment.

use crate::action::Action;
use crate::bug::Bug;
use crate::daemon::Daemon;
use crate::disk::{At, Disks, Record};
use crate::kernel::Kernel;
use crate::oracle::Oracle;

/// Two writes and a read, all of the one sector. A write's value is its number and one; 0 was there before.
pub const WRITES: usize = 2;
pub const READ: usize = WRITES;
pub const BIOS: usize = WRITES + 1;

pub fn value(write: usize) -> u8 {
    write as u8 + 1
}

/// How far a bio has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    Unsent,
    /// Mapped, and on its way.
    Flying(At),
    /// Kept by the target (`hold.c`), until it may look again.
    Parked,
    /// Kept, with a fault of its own.
    Held,
    /// Pushed back to device-mapper by a noflush suspend.
    Requeued,
    Done,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bio {
    pub progress: Progress,
    /// `pb->held`: its deadline runs.
    pub held: bool,
    /// Its deadline has passed.
    pub overdue: bool,
}

impl Bio {
    pub const UNSENT: Bio = Bio { progress: Progress::Unsent, held: false, overdue: false };

    pub fn has_ended(self) -> bool {
        matches!(self.progress, Progress::Done | Progress::Failed)
    }

    pub fn is_under_way(self) -> bool {
        self.progress != Progress::Unsent && !self.has_ended()
    }
}

/// The application's flush, which goes to both disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flush {
    /// The kernel's count of failed flushes when it was sent (`pb->place.gen`).
    pub count: u8,
    /// The writes it covers, for the oracle.
    pub covers: u8,
}

/// How often each thing may yet happen that the conversation has to bear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub reads: u8,
    pub flushes: u8,
    /// The sector goes bad.
    pub data_bad: u8,
    /// The sector cannot be read until it is written.
    pub data_weak: u8,
    /// A slot goes bad.
    pub slot_bad: u8,
    /// A good sector fails once.
    pub hiccups: u8,
    pub flush_fails: u8,
    pub deaths: u8,
    /// The claim is lost while its owner lives.
    pub losses: u8,
    pub checkpoints: u8,
    /// The answer to a verdict is lost.
    pub answers: u8,
    pub suspends: u8,
    pub deadlines: u8,
    pub cuts: u8,
}

/// An invariant of the contract, broken by a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// I2: a read returned what was not to be read.
    Read,
    /// I2: a read failed at poison although what was written is there.
    Hidden,
    /// I4: a slot that has been installed, or has failed, is handed out.
    Slot,
    /// I3: a bio ended twice.
    Twice,
    /// A write failed that could have succeeded.
    Unjustified,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub kernel: Kernel,
    pub bios: [Bio; BIOS],
    pub flush: Option<Flush>,
    pub disks: Disks,
    pub daemon: Option<Daemon>,
    /// A dead daemon's write to the log that has not returned: the spare stays locked.
    pub late: Option<(u8, Record)>,
    pub left: Budget,
    pub oracle: Oracle,
    pub broken: Option<Broken>,
}

/// What one exploration begins with.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// The writes that are sent, and which of them with FUA.
    pub fua: &'static [bool],
    /// `queue_if_no_daemon`.
    pub queue: bool,
    /// The instance is served already when the application begins.
    pub served: bool,
    pub left: Budget,
    pub bug: Option<Bug>,
}

impl Scenario {
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub fn with(self, bug: Bug) -> Scenario {
        Scenario { bug: Some(bug), ..self }
    }

    pub fn begin(&self) -> State {
        let mut state = State {
            kernel: Kernel::created(),
            bios: [Bio::UNSENT; BIOS],
            flush: None,
            disks: Disks::formatted(),
            daemon: None,
            late: None,
            left: self.left,
            oracle: Oracle::new(),
            broken: None,
        };
        let session = [Action::Session; 3];
        let opening = [Action::Open, Action::Opened, Action::Claim].into_iter().chain(session);
        for action in opening.chain([Action::List]).filter(|_| self.served) {
            state.take(self, action);
        }
        state
    }
}

impl State {
    pub fn break_with(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }
}
