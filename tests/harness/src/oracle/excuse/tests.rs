//! Each excuse where it holds, and next to it where it does not: there the oracle must complain.

use super::{FailedPlace, Trouble};
use crate::disk::{BAD_READ, BAD_WRITE, HEALS};
use crate::kernel::{Failure, Io, IoKind, Sts, Why};
use crate::oracle::Oracle;
use crate::script::{Config, Which};

const S: u64 = 1_000_000;

fn config() -> Config {
    Config {
        sectors: 64,
        spare: 0,
        block: 1,
        hold_ms: 60_000,
        ready_ms: 60_000,
        max_held: 1024,
        queue_unowned: true,
        says_medium: true,
        lying_flush: false,
        emulated_fua: false,
        record: 0,
        lost_bells: 0,
        no_memory: 0,
        lost_answers: 0,
        lost_requests: 0,
    }
}

struct Told {
    oracle: Oracle,
    ids: u64,
}

impl Told {
    fn new() -> Told {
        Told::of(&config())
    }

    fn of(config: &Config) -> Told {
        Told { oracle: Oracle::new(config, false), ids: 0 }
    }

    fn begin(&mut self, kind: IoKind, start: u64, len: u64, submitted: u64) -> Io {
        self.ids += 1;
        let id = self.ids;
        let (fua, ahead, left, failures, found) = (false, false, 0, Vec::new(), Vec::new());
        let io = Io { id, kind, start, len, fua, ahead, submitted, left, failures, found };
        self.oracle.submit(&io);
        io
    }

    /// What the oracle complains of.
    fn end(&mut self, io: Io, now: u64, status: Sts, why: Why) -> Option<String> {
        let failure = Failure { start: io.start, len: io.len, status, why };
        let failures = if status == Sts::Ok { Vec::new() } else { vec![failure] };
        self.oracle.complete(&Io { failures, ..io }, now);
        self.oracle.violation.take()
    }

    fn excuses(&mut self, io: Io, status: Sts, why: Why) -> bool {
        let now = io.submitted + 1;
        self.end(io, now, status, why).is_none()
    }

    /// A read of one sector.
    fn read(&mut self, at: u64, submitted: u64, status: Sts, why: Why) -> bool {
        let io = self.begin(IoKind::Read, at, 1, submitted);
        self.excuses(io, status, why)
    }

    fn write(&mut self, at: u64, submitted: u64, status: Sts, why: Why) -> bool {
        let io = self.begin(IoKind::Write, at, 1, submitted);
        self.excuses(io, status, why)
    }
}

#[test]
fn nothing_is_excused_without_a_reason() {
    for why in [Why::Class, Why::Poison, Why::Failed, Why::Expired, Why::Unowned] {
        assert!(!Told::new().read(1, S, Sts::Io, why), "{why:?}");
        assert!(!Told::new().write(1, S, Sts::Other, why), "{why:?}");
    }
    for why in [Why::None, Why::Ahead, Why::Bound, Why::Flush] {
        assert!(!Told::new().read(1, S, Sts::Io, why), "{why:?}");
    }
}

#[test]
fn only_read_ahead_may_see_what_the_medium_says() {
    for (why, status) in [(Why::Ahead, Sts::Io), (Why::Class, Sts::Medium)] {
        let mut told = Told::new();
        let io = told.begin(IoKind::Read, 1, 1, S);
        assert!(told.excuses(Io { ahead: true, ..io }, status, why));
        assert!(!told.read(1, S, status, why));
    }
}

#[test]
fn poison_is_where_the_disk_was_unreadable_until_it_is_overwritten() {
    let mut told = Told::new();
    told.oracle.excuses.went_bad(10, 1, BAD_READ | BAD_WRITE, 0);
    assert!(told.read(10, S, Sts::Medium, Why::Poison));
    assert!(!told.read(9, S, Sts::Medium, Why::Poison));
    assert!(!told.write(10, S, Sts::Medium, Why::Poison));
    let longer = told.begin(IoKind::Read, 4, 8, S);
    assert!(told.excuses(longer, Sts::Medium, Why::Poison));
    let beside = told.begin(IoKind::Read, 2, 8, S);
    assert!(!told.excuses(beside, Sts::Medium, Why::Poison));

    let early = told.begin(IoKind::Read, 10, 1, 2 * S);
    assert!(told.write(10, 2 * S, Sts::Ok, Why::None));
    assert!(told.excuses(early, Sts::Medium, Why::Poison));
    assert!(!told.read(10, 3 * S, Sts::Medium, Why::Poison));
}

#[test]
fn a_failed_write_overwrites_nothing() {
    let mut told = Told::new();
    told.oracle.excuses.went_bad(10, 1, BAD_READ | BAD_WRITE, 0);
    told.oracle.excuses.trouble(Trouble::Verdict, S);
    assert!(told.write(10, S, Sts::Medium, Why::Failed));
    assert!(told.read(10, 2 * S, Sts::Medium, Why::Poison));
}

#[test]
fn a_sector_that_a_write_heals_is_sound_after_one_that_began_when_it_was_bad() {
    let mut told = Told::new();
    let early = told.begin(IoKind::Write, 10, 1, S);
    told.oracle.excuses.went_bad(10, 1, BAD_READ | HEALS, S + 1);
    // One that began later and ends first is not taken for it.
    told.oracle.excuses.trouble(Trouble::Gone, S + 2);
    let later = told.begin(IoKind::Write, 10, 1, S + 2);
    assert!(told.end(later, S + 3, Sts::Other, Why::Class).is_none());
    assert!(told.excuses(early, Sts::Ok, Why::None));
    assert!(told.read(10, 2 * S, Sts::Medium, Why::Poison));
    assert!(told.write(10, 3 * S, Sts::Ok, Why::None));
    assert!(!told.read(10, 4 * S, Sts::Medium, Why::Poison));
}

#[test]
fn a_slot_that_goes_bad_excuses_poison_of_what_it_holds_until_it_is_written_anew() {
    let mut told = Told::new();
    let early = told.begin(IoKind::Write, 10, 1, S);
    told.oracle.excuses.slot_went_bad(10, 2 * S);
    assert!(told.read(10, 3 * S, Sts::Medium, Why::Poison));
    assert!(!told.read(11, 3 * S, Sts::Medium, Why::Poison));
    assert!(!told.write(10, 3 * S, Sts::Medium, Why::Poison));
    assert_eq!(told.end(early, 4 * S, Sts::Ok, Why::None), None);
    assert!(told.read(10, 5 * S, Sts::Medium, Why::Poison));
    assert!(told.write(10, 6 * S, Sts::Ok, Why::None));
    assert!(!told.read(10, 8 * S, Sts::Medium, Why::Poison));
}

#[test]
fn a_disk_that_was_gone_excuses_what_was_sent_until_it_is_back() {
    let mut told = Told::new();
    told.oracle.excuses.trouble(Trouble::Gone, 5 * S);
    for why in [Why::Class, Why::Failed, Why::Flush] {
        assert!(told.read(1, 5 * S, Sts::Other, why), "{why:?}");
        assert!(!told.read(1, 5 * S + 1, Sts::Other, why), "{why:?}");
    }
    assert!(!told.read(1, S, Sts::Medium, Why::Class));
    assert!(!told.read(1, S, Sts::Other, Why::Expired));
}

#[test]
fn the_daemon_may_give_up_in_trouble_and_not_after_it() {
    let mut told = Told::new();
    told.oracle.excuses.trouble(Trouble::Verdict, 5 * S);
    assert!(told.write(1, 5 * S, Sts::Medium, Why::Failed));
    assert!(!told.write(1, 5 * S + 1, Sts::Medium, Why::Failed));
    told.oracle.excuses.trouble(Trouble::Verdict, u64::MAX);
    told.oracle.excuses.set_if_endless(Trouble::Verdict, 9 * S);
    assert!(told.write(1, 9 * S, Sts::Medium, Why::Failed));
    assert!(!told.write(1, 9 * S + 1, Sts::Medium, Why::Failed));
}

#[test]
fn four_places_of_the_write_must_have_failed_since_it_was_sent() {
    let excuses = |kind, start, places: &[u64]| {
        let mut told = Told::new();
        let io = told.begin(kind, 1, 1, 2);
        for &at in places {
            told.oracle.excuses.place_failed(FailedPlace { at, start, len: 2, rest: false });
        }
        told.end(io, 6, Sts::Medium, Why::Failed).is_none()
    };
    assert!(excuses(IoKind::Write, 0, &[2, 3, 4, 5]));
    assert!(!excuses(IoKind::Write, 0, &[1, 3, 4, 5]));
    assert!(!excuses(IoKind::Write, 0, &[2, 3, 4]));
    assert!(!excuses(IoKind::Write, 2, &[2, 3, 4, 5]));
    assert!(!excuses(IoKind::Read, 0, &[2, 3, 4, 5]));
}

#[test]
fn what_was_to_stay_is_found_bad_once_and_whenever_something_goes_bad() {
    let excuses = |bad: &[u64]| {
        let mut told = Told::new();
        let io = told.begin(IoKind::Write, 1, 1, 2);
        for &now in bad {
            told.oracle.excuses.went_bad(9, 1, BAD_WRITE, now);
        }
        for at in 2..6 {
            told.oracle.excuses.place_failed(FailedPlace { at, start: 1, len: 1, rest: true });
        }
        told.end(io, 6, Sts::Medium, Why::Failed).is_none()
    };
    assert!(!excuses(&[1, 2, 3]));
    assert!(excuses(&[2, 3, 4]));
}

#[test]
fn a_hold_may_expire_if_it_is_short_or_the_daemon_was_away() {
    let mut told = Told::of(&Config { hold_ms: 1000, ..config() });
    assert!(told.read(1, S, Sts::Io, Why::Expired));
    let mut told = Told::new();
    told.oracle.excuses.trouble(Trouble::Away, 5 * S);
    assert!(told.read(1, 5 * S, Sts::Io, Why::Expired));
    assert!(!told.read(1, 5 * S + 1, Sts::Io, Why::Expired));
}

#[test]
fn an_instance_is_unowned_until_it_is_claimed() {
    let mut told = Told::new();
    told.oracle.excuses.set(Trouble::Unowned, u64::MAX);
    assert!(told.read(1, S, Sts::Io, Why::Unowned));
    told.oracle.excuses.set(Trouble::Unowned, 5 * S);
    assert!(told.read(1, 5 * S, Sts::Io, Why::Unowned));
    assert!(!told.read(1, 5 * S + 1, Sts::Io, Why::Unowned));
}

#[test]
fn a_bound_on_held_bios_is_reached_where_there_is_a_low_one() {
    assert!(Told::of(&Config { max_held: 8, ..config() }).read(1, S, Sts::Io, Why::Bound));
    assert!(!Told::of(&Config { max_held: 64, ..config() }).read(1, S, Sts::Io, Why::Bound));
}

#[test]
fn a_failed_flush_excuses_until_one_has_succeeded() {
    let mut told = Told::new();
    assert!(!told.write(1, S, Sts::Io, Why::Flush));
    told.oracle.flush_failed(Which::Spare, S, true);
    assert!(told.write(1, 100 * S, Sts::Io, Why::Flush));
    let flush = told.begin(IoKind::Flush, 0, 0, 100 * S);
    assert_eq!(told.end(flush, 100 * S, Sts::Ok, Why::None), None);
    // The daemon may tell of one of its own yet.
    assert!(told.write(1, 110 * S, Sts::Io, Why::Flush));
    assert!(!told.write(1, 110 * S + 1, Sts::Io, Why::Flush));
}

#[test]
fn an_answer_is_in_time_or_the_script_delayed_it() {
    let late = 62 * S + 1;
    let mut told = Told::new();
    let io = told.begin(IoKind::Write, 1, 1, 0);
    assert_eq!(told.end(io, 62 * S, Sts::Ok, Why::None), None);
    let io = told.begin(IoKind::Write, 1, 1, 0);
    assert!(told.end(io, late, Sts::Ok, Why::None).is_some_and(|what| what.starts_with("I3")));
    told.oracle.excuses.delayed(5 * S, S);
    for (begun, in_time) in [(0, true), (5 * S, true), (5 * S + 1, false)] {
        let io = told.begin(IoKind::Write, 1, 1, begun);
        assert_eq!(told.end(io, begun + late, Sts::Ok, Why::None).is_none(), in_time);
    }
}

#[test]
fn all_is_excused_after_a_power_cut_under_a_flush_that_lies() {
    for lying_flush in [false, true] {
        let mut told = Told::of(&Config { lying_flush, ..config() });
        assert!(!told.write(1, S, Sts::Io, Why::Failed));
        told.oracle.power_cut();
        assert_eq!(told.write(1, S, Sts::Io, Why::Failed), lying_flush);
    }
}

#[test]
fn what_only_seemed_bad_may_be_mapped_and_not_poisoned() {
    let mut told = Told::new();
    let excuses = &mut told.oracle.excuses;
    excuses.went_bad(10, 1, BAD_READ, 0);
    excuses.seemed_bad(11, 1);
    excuses.tried_in_a_storm(12, 1);
    let may: Vec<_> = (10..14)
        .map(|at| (excuses.may_map(at), excuses.seemed_bad_itself(at), excuses.was_bad(at)))
        .collect();
    let want =
        [(true, true, true), (true, true, false), (true, false, false), (false, false, false)];
    assert_eq!(may, want);
}
