//! What a case is.

use std::path::PathBuf;

use crate::guest::Ctx;

/// What a case does in one boot.
pub type Body = fn(&mut Ctx) -> anyhow::Result<()>;

/// What the host makes of a case's disks, by their images, after so many phases; a line for the log.
pub type Judge = fn(&[PathBuf], usize) -> anyhow::Result<String>;

/// How a phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The body returns, and the guest is shut down.
    Off,
    /// The power is cut when the body calls [`Ctx::cut`]; returning is a failure.
    CutOnRequest,
    /// The power is cut after a number of acknowledgements drawn from the seed; returning before is a failure.
    CutAfterAcks { least: u64, most: u64 },
}

/// One boot of a case.
#[derive(Clone, Copy)]
pub struct Phase {
    pub body: Body,
    pub end: End,
}

/// A virtio disk (`/dev/vda` and on) that keeps its content over the phases of a case.
#[derive(Debug, Clone, Copy)]
pub enum Disk {
    /// A plain file: what was written before a cut is there after it.
    Raw { mib: u64 },
    /// A disk with a volatile write cache: a cut loses a subset, drawn from the seed, of what was not flushed, and
    /// at least one sector of it.
    Volatile { mib: u64 },
    /// Steers the volatile ones: its first block takes a command and then holds the answer.
    Control,
}

#[derive(Clone, Copy)]
pub(crate) enum Phases {
    One(Body),
    Many(&'static [Phase]),
}

/// A named test that runs in a guest.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Limit for each phase, in guest time.
    pub seconds: u64,
    pub disks: &'static [Disk],
    /// Added to the kernel's command line.
    pub append: &'static str,
    /// A negative control: it must fail, and the first reason must contain this text.
    pub must_fail: Option<&'static str>,
    pub judge: Option<Judge>,
    pub(crate) phases: Phases,
}

impl Case {
    /// A case that shares its boot with others.
    #[must_use]
    pub const fn new(name: &'static str, seconds: u64, body: Body) -> Case {
        let phases = Phases::One(body);
        Case { name, seconds, disks: &[], append: "", must_fail: None, judge: None, phases }
    }

    /// A case of several boots over the same disks.
    #[must_use]
    pub const fn phased(name: &'static str, seconds: u64, phases: &'static [Phase]) -> Case {
        let mut case = Case::new(name, seconds, |_| Ok(()));
        case.phases = Phases::Many(phases);
        case
    }

    #[must_use]
    pub const fn disks(mut self, disks: &'static [Disk]) -> Case {
        self.disks = disks;
        self
    }

    #[must_use]
    pub const fn append(mut self, words: &'static str) -> Case {
        self.append = words;
        self
    }

    #[must_use]
    pub const fn judge(mut self, judge: Judge) -> Case {
        self.judge = Some(judge);
        self
    }

    #[must_use]
    pub const fn must_fail(mut self, reason: &'static str) -> Case {
        self.must_fail = Some(reason);
        self
    }

    #[must_use]
    pub fn phases(&self) -> Vec<Phase> {
        match self.phases {
            Phases::One(body) => vec![Phase { body, end: End::Off }],
            Phases::Many(phases) => phases.to_vec(),
        }
    }

    /// Whether it can run in a boot that others use too.
    #[must_use]
    pub fn shares_boot(&self) -> bool {
        matches!(self.phases, Phases::One(_)) && self.disks.is_empty() && self.append.is_empty()
    }
}
