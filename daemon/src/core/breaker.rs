//! Tells bad media from an error storm (I8).
//!
//! A disk with bad sectors fails in a few blocks and answers around them; a disk that is failing,
//! unplugged or covered by an error target does not. How often errors come says nothing: a scan
//! over two hundred scratches yields thousands of honest faults in a second. So after the errors of
//! a fault were seen, and before it may change the table, places elsewhere are read, on each disk
//! that has the damage or is to have the slots for it; `control` chooses them:
//!
//! - two far ones, anywhere on the data disk, four on the spare. If no place of a disk answers, near
//!   or far, that disk is not there: the breaker opens at once and nothing is mapped. Places on the
//!   spare are read for every write that needs slots, and again once one has failed, as each try on
//!   a spare that is away would cost a slot.
//! - two near ones on the data disk, before and behind the fault, further off than the runs of bad sectors that
//!   media have. If both answer, the damage is local: the fault is *proved*, and the count of
//!   faults in a row that were not starts anew. Otherwise the fault counts; `breaker_faults` of
//!   them in a row, within `breaker_window` of each other, may pass, and the next one opens the
//!   breaker.
//!
//! So scattered damage is mapped at any rate, a run of bad sectors is mapped as far as
//! `breaker_faults` faults reach, and a disk that mostly fails is cut off. Places are never inside
//! extents or faults, so known damage proves nothing and hides nothing.
//!
//! Open, the breaker has every fault failed at once; after `breaker_pause` the next one is a
//! trial, searched and controlled like any other, and those that come meanwhile wait for what it
//! shows. It closes the breaker if it is proved (or proves to be no damage at all), and starts another
//! pause if not. If a disk that was not there opened it, it is enough that the disk answers: the fault counts
//! as any other that is not proved, for damage near it says nothing of that. One alarm is raised when it opens
//! and one when it closes, none between.

use std::time::Duration;

use super::event::FaultId;
use super::policy::Policy;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        unproved: u32,
        last: Duration,
    },
    /// `counted`: by faults in a row that were not proved.
    Open {
        until: Duration,
        trial: Option<FaultId>,
        counted: bool,
    },
}

/// What the control reads of a fault have shown, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Control {
    Proved,
    Unproved,
    /// No place answers.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Opened,
    Closed,
}

/// May a fault be looked into?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    Yes,
    /// A trial is under way.
    NotYet,
    No,
}

#[derive(Debug)]
pub struct Breaker {
    state: State,
}

impl Breaker {
    pub fn new() -> Breaker {
        Breaker { state: State::Closed { unproved: 0, last: Duration::ZERO } }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    pub fn admit(&mut self, now: Duration, fault: FaultId) -> Admitted {
        match &mut self.state {
            State::Closed { .. } => Admitted::Yes,
            State::Open { trial: Some(id), .. } if *id == fault => Admitted::Yes,
            State::Open { trial: Some(_), .. } => Admitted::NotYet,
            State::Open { until, .. } if now < *until => Admitted::No,
            State::Open { trial, .. } => {
                *trial = Some(fault);
                Admitted::Yes
            }
        }
    }

    /// May this fault change the table?
    pub fn judge(
        &mut self,
        now: Duration,
        fault: FaultId,
        control: Control,
        policy: &Policy,
    ) -> (bool, Option<Change>) {
        match (&mut self.state, control) {
            (State::Open { trial, .. }, _) if *trial != Some(fault) => (false, None),
            (State::Open { .. }, Control::Proved) => (true, self.close(now, 0)),
            (State::Closed { unproved, .. }, Control::Proved) => {
                *unproved = 0;
                (true, None)
            }
            (State::Closed { unproved, last }, Control::Unproved) => {
                if now.saturating_sub(*last) > Duration::from_secs(policy.breaker_window) {
                    *unproved = 0;
                }
                *last = now;
                *unproved += 1;
                if *unproved <= policy.breaker_faults {
                    return (true, None);
                }
                (false, self.open_for(now, policy, true))
            }
            (State::Open { counted: false, .. }, Control::Unproved) => (true, self.close(now, 1)),
            (_, Control::Unproved | Control::Silent) => (false, self.open(now, policy)),
        }
    }

    /// A fault has ended without damage, or before it was judged.
    pub fn passed(&mut self, now: Duration, fault: FaultId, sound: bool) -> Option<Change> {
        match &mut self.state {
            State::Open { trial, .. } if *trial == Some(fault) => {
                *trial = None;
                if sound { self.close(now, 0) } else { None }
            }
            _ => None,
        }
    }

    /// The device is not there, or does not answer.
    pub fn open(&mut self, now: Duration, policy: &Policy) -> Option<Change> {
        let counted = matches!(self.state, State::Open { counted: true, .. });
        self.open_for(now, policy, counted)
    }

    fn open_for(&mut self, now: Duration, policy: &Policy, counted: bool) -> Option<Change> {
        let news = !self.is_open();
        let until = now + Duration::from_millis(policy.breaker_pause);
        self.state = State::Open { until, trial: None, counted };
        news.then_some(Change::Opened)
    }

    fn close(&mut self, now: Duration, unproved: u32) -> Option<Change> {
        self.state = State::Closed { unproved, last: now };
        Some(Change::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn judge(breaker: &mut Breaker, now: Duration, id: u64, c: Control) -> (bool, Option<Change>) {
        breaker.judge(now, FaultId(id), c, &Policy::default())
    }

    #[test]
    fn sixty_four_unproved_faults_pass_and_no_more() {
        let mut breaker = Breaker::new();
        let passed = (0..50_000)
            .filter(|&id| {
                breaker.admit(MS, FaultId(id)) == Admitted::Yes
                    && judge(&mut breaker, MS, id, Control::Unproved).0
            })
            .count();
        assert_eq!(passed, 64);
        assert!(breaker.is_open());
    }

    #[test]
    fn one_proof_or_a_quiet_time_starts_the_count_anew() {
        let mut breaker = Breaker::new();
        for id in 0..64 {
            assert_eq!(judge(&mut breaker, MS, id, Control::Unproved), (true, None));
        }
        assert_eq!(judge(&mut breaker, MS, 64, Control::Proved), (true, None));
        for id in 65..129 {
            assert_eq!(judge(&mut breaker, MS, id, Control::Unproved), (true, None));
        }
        let later = Duration::from_secs(100);
        assert_eq!(judge(&mut breaker, later, 129, Control::Unproved), (true, None));
    }

    #[test]
    fn after_the_pause_one_trial_decides() {
        let mut breaker = Breaker::new();
        assert_eq!(judge(&mut breaker, MS, 1, Control::Silent), (false, Some(Change::Opened)));
        assert_eq!(breaker.admit(MS * 1000, FaultId(2)), Admitted::No);
        assert_eq!(breaker.admit(MS * 1001, FaultId(3)), Admitted::Yes);
        assert_eq!(breaker.admit(MS * 1001, FaultId(4)), Admitted::NotYet);
        assert_eq!(judge(&mut breaker, MS * 1001, 3, Control::Silent), (false, None));
        assert_eq!(breaker.admit(MS * 1002, FaultId(4)), Admitted::No);
        assert_eq!(breaker.admit(MS * 2001, FaultId(6)), Admitted::Yes);
        assert_eq!(
            judge(&mut breaker, MS * 2001, 6, Control::Proved),
            (true, Some(Change::Closed))
        );
        assert_eq!(breaker.admit(MS * 2001, FaultId(7)), Admitted::Yes);
    }

    /// It may be the first fault near other damage.
    #[test]
    fn a_disk_that_answers_again_is_there_and_one_that_mostly_fails_is_not() {
        let mut breaker = on_trial();
        let closed = (true, Some(Change::Closed));
        assert_eq!(judge(&mut breaker, MS * 1002, 2, Control::Unproved), closed);
        // It counts.
        let passed =
            (3..1000).filter(|&id| judge(&mut breaker, MS * 1002, id, Control::Unproved).0).count();
        assert_eq!((passed, breaker.is_open()), (63, true));
        // Now by its count: only a proof closes it, though the disk is away for a time.
        for (n, control) in [(2, Control::Unproved), (3, Control::Silent), (4, Control::Unproved)] {
            let now = MS * 1002 * n;
            assert_eq!(breaker.admit(now, FaultId(2000)), Admitted::Yes);
            assert_eq!(judge(&mut breaker, now, 2000, control), (false, None));
        }
        assert_eq!(breaker.admit(MS * 5010, FaultId(2000)), Admitted::Yes);
        assert_eq!(judge(&mut breaker, MS * 5010, 2000, Control::Proved), closed);
    }

    #[test]
    fn a_pause_of_faults_is_longer_than_the_window_to_count_anew() {
        let window = Duration::from_secs(Policy::default().breaker_window);
        for (pause, passes) in [(window, false), (window + MS, true)] {
            let mut breaker = Breaker::new();
            for id in 0..64 {
                assert_eq!(judge(&mut breaker, MS, id, Control::Unproved), (true, None));
            }
            assert_eq!(judge(&mut breaker, MS + pause, 64, Control::Unproved).0, passes);
        }
    }

    /// Opened at 1 ms, and fault 2 is the trial at 1001 ms.
    fn on_trial() -> Breaker {
        let mut breaker = Breaker::new();
        assert_eq!(judge(&mut breaker, MS, 1, Control::Silent), (false, Some(Change::Opened)));
        assert_eq!(breaker.admit(MS * 1001, FaultId(2)), Admitted::Yes);
        breaker
    }

    #[test]
    fn what_others_show_while_one_is_on_trial_says_nothing() {
        for control in [Control::Proved, Control::Unproved, Control::Silent] {
            let mut breaker = on_trial();
            assert_eq!(judge(&mut breaker, MS * 1002, 1, control), (false, None));
            assert_eq!(breaker.passed(MS * 1002, FaultId(1), true), None);
            assert_eq!(breaker.admit(MS * 1002, FaultId(3)), Admitted::NotYet);
            assert_eq!(breaker.admit(MS * 1002, FaultId(2)), Admitted::Yes);
        }
        // The first one's verdict may be due when there is no trial at all.
        let mut breaker = Breaker::new();
        breaker.open(MS, &Policy::default());
        assert_eq!(judge(&mut breaker, MS, 1, Control::Proved), (false, None));
        assert!(breaker.is_open());
    }

    #[test]
    fn a_trial_without_damage_closes_it_and_one_that_was_cut_short_makes_room() {
        let mut breaker = on_trial();
        assert_eq!(breaker.passed(MS * 1002, FaultId(2), true), Some(Change::Closed));
        assert!(!breaker.is_open());
        assert_eq!(breaker.passed(MS * 1002, FaultId(2), true), None);

        let mut breaker = on_trial();
        assert_eq!(breaker.passed(MS * 1002, FaultId(2), false), None);
        assert!(breaker.is_open());
        assert_eq!(breaker.admit(MS * 1002, FaultId(3)), Admitted::Yes);
    }
}
