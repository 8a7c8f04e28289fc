//! What a case is.

use std::iter;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dmremap_disks::volatile::CutReport;

use crate::guest::Ctx;

/// What a case does in one boot.
pub type Body = fn(&mut Ctx) -> anyhow::Result<()>;

/// What the host makes of a case's disks after each phase; a line for the log.
pub type Judge = fn(&Left) -> anyhow::Result<String>;

/// What the phases so far have left.
pub struct Left<'a> {
    /// The images of the disks.
    pub images: &'a [PathBuf],
    pub boots: usize,
    /// What each cut did to the volatile ones, which are called `disk` and their number.
    pub cuts: &'a [CutReport],
}

/// How a phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The body returns, and the guest is shut down.
    Off,
    /// The power is cut when the body calls [`Ctx::cut`]; returning is a failure.
    CutOnRequest,
    /// Likewise, but the body goes on until it is, and the cut waits for something that it can lose: one that loses
    /// nothing is a failure.
    CutUnderLoad,
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

/// How often a boot is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    Times(usize),
    /// For as long as this lasts; a boot that was begun is brought to its end.
    For(Duration),
}

#[derive(Clone, Copy)]
pub(crate) enum Phases {
    One(Body),
    Many(&'static [Phase]),
    /// One boot again and again, then another. Whoever is in one of them knows by its number which: `2 * n` is the
    /// repeated one after `n` of its kind, `2 * n + 1` the last.
    Repeated {
        each: Phase,
        last: Phase,
        repeat: Repeat,
    },
}

/// What a kernel was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As Debian ships it.
    Stock,
    /// To see mistakes: slow, with checkers and fault injection.
    Debug,
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
    /// The only kind of kernel that it runs on.
    pub only: Option<Kind>,
    /// Needs no program of the second archive.
    pub bare: bool,
    pub(crate) phases: Phases,
}

impl Case {
    /// A case that shares its boot with others.
    #[must_use]
    pub const fn new(name: &'static str, seconds: u64, body: Body) -> Case {
        let phases = Phases::One(body);
        Case {
            name,
            seconds,
            disks: &[],
            append: "",
            must_fail: None,
            judge: None,
            only: None,
            bare: false,
            phases,
        }
    }

    /// A case of several boots over the same disks.
    #[must_use]
    pub const fn phased(name: &'static str, seconds: u64, phases: &'static [Phase]) -> Case {
        let mut case = Case::new(name, seconds, |_| Ok(()));
        case.phases = Phases::Many(phases);
        case
    }

    /// A case of one boot repeated over the same disks, and of a last one.
    #[must_use]
    pub const fn repeated(
        name: &'static str,
        seconds: u64,
        each: Phase,
        last: Phase,
        repeat: Repeat,
    ) -> Case {
        let mut case = Case::new(name, seconds, |_| Ok(()));
        case.phases = Phases::Repeated { each, last, repeat };
        case
    }

    /// Repeats what it repeats for so long.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Case {
        if let Phases::Repeated { repeat, .. } = &mut self.phases {
            *repeat = Repeat::For(time);
        }
        self
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
    pub const fn only(mut self, kind: Kind) -> Case {
        self.only = Some(kind);
        self
    }

    #[must_use]
    pub const fn bare(mut self) -> Case {
        self.bare = true;
        self
    }

    /// Whether it is one of a kernel's cases.
    #[must_use]
    pub fn fits(&self, kind: Kind) -> bool {
        self.only.is_none_or(|only| only == kind)
    }

    /// The phase of that number.
    #[must_use]
    pub fn phase(&self, number: usize) -> Option<Phase> {
        match self.phases {
            Phases::One(body) => (number == 0).then_some(Phase { body, end: End::Off }),
            Phases::Many(phases) => phases.get(number).copied(),
            Phases::Repeated { each, last, .. } => Some(if number % 2 == 0 { each } else { last }),
        }
    }

    /// The numbers of its phases, in order; of one that is repeated for a time, as many as the clock allows.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        let start = Instant::now();
        let again = move |boots| match self.phases {
            Phases::One(_) | Phases::Many(_) => self.phase(boots).is_some(),
            Phases::Repeated { repeat: Repeat::Times(times), .. } => boots < times,
            Phases::Repeated { repeat: Repeat::For(time), .. } => start.elapsed() < time,
        };
        let (mut boots, mut over) = (0, false);
        iter::from_fn(move || {
            let repeated = matches!(self.phases, Phases::Repeated { .. });
            let number = if repeated { 2 * boots } else { boots };
            if !over && again(boots) {
                boots += 1;
                return Some(number);
            }
            let last = repeated && !over;
            over = true;
            last.then_some(number + 1)
        })
    }

    /// Whether it can run in a boot that others use too.
    #[must_use]
    pub fn shares_boot(&self) -> bool {
        matches!(self.phases, Phases::One(_)) && self.disks.is_empty() && self.append.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: Body = |_| Ok(());
    const EACH: Phase = Phase { body: BODY, end: End::CutOnRequest };
    const LAST: Phase = Phase { body: BODY, end: End::Off };

    fn ends(case: &Case) -> Vec<(usize, Option<End>)> {
        case.numbers().map(|number| (number, case.phase(number).map(|phase| phase.end))).collect()
    }

    #[test]
    fn phases_are_numbered() {
        const MANY: &[Phase] = &[EACH, LAST];
        let (cut, off) = (Some(End::CutOnRequest), Some(End::Off));
        assert_eq!(ends(&Case::new("a", 1, BODY)), [(0, off)]);
        assert_eq!(ends(&Case::phased("a", 1, MANY)), [(0, cut), (1, off)]);
        let twice = Case::repeated("a", 1, EACH, LAST, Repeat::Times(2));
        assert_eq!(ends(&twice), [(0, cut), (2, cut), (5, off)]);
        assert_eq!(ends(&twice.lasting(Duration::ZERO)), [(1, off)]);
    }
}
