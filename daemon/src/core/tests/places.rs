//! Event by event: places that do not last, and what is counted.

use super::scripts::*;
use crate::core::Durable;
use crate::core::event::*;
use crate::core::snapshot::Counters;
use crate::table::{Kind, Table};
use crate::units::{Sector, Sectors, Slot};

fn open(pieces: &[(Piece, Status)]) -> Listed {
    fault(write(), State::Open, pieces)
}

#[test]
fn what_happens_is_counted() {
    let mut script = Script::serving(Table::default());
    script.place(64);
    let place = script.place_again(64, 72);
    script.done(&[]);
    script.bell();
    script.fails = 1;
    script.listed(Script::placed(72), &[place]);
    script.flushed(72);
    let commit = script.device.handle(
        script.now,
        Event::FaultsListed(Ok((script.instance(true), vec![Script::placed(72)]))),
    );
    assert!(matches!(commit[..], [Action::Commit(_)]), "{commit:?}");
    script.expect(Event::CommitDone(Err(CommitFailure::Unknown)), &[Action::Restate]);
    script.expect(Event::CommitDone(Ok(Durable::after(6))), &[install(6)]);
    script.expect(Event::InstallDone(Ok(())), &[]);
    let mut counted = Counters {
        faults: 1,
        mapped: Sectors(1),
        slots_retired: 1,
        places_voided: 1,
        commits: 1,
        commits_unknown: 1,
        ..Counters::default()
    };
    assert_eq!(script.device.snapshot().counters, counted);

    script.bell();
    let mut read = fault(read(), State::Open, &[]);
    read.start = Sector(2000);
    let event = Event::FaultsListed(Ok((script.instance(true), vec![read.clone()])));
    assert_eq!(script.reads(event, &[Status::Ok; 4]), [Action::Release { fault: ID }]);
    script.done(&[]);
    script.bell();
    read.status = Status::Other;
    script.listed(read, &[Action::Fail { fault: ID }]);
    (counted.faults, counted.released, counted.failed) = (3, 1, 1);
    assert_eq!(script.device.snapshot().counters, counted);
}

/// A part that was to stay where it is has failed.
#[test]
fn the_rest_of_a_place_that_failed_is_tried_and_what_was_bad_is_not() {
    let mut script = Script::serving(Table::default());
    script.place(64);
    script.done(&[]);
    script.bell();
    let rest = [0, 2, 3].map(|at| piece(at, 1, None)).to_vec();
    let listed = open(&[(piece(1, 1, mapped(64)), Status::Ok)]);
    script.listed(listed, &[Action::Try { fault: ID, pieces: rest.clone() }]);
    script.done(&[]);
    script.bell();
    let result = |p: Piece| (p, if p.offset.0 == 2 { Status::Medium } else { Status::Ok });
    let listed = vec![open(&rest.into_iter().map(result).collect::<Vec<_>>())];
    let event = Event::FaultsListed(Ok((script.instance(true), listed)));
    let place = Action::Place { fault: ID, pieces: vec![piece(1, 2, mapped(72))] };
    assert_eq!(script.reads_twice(event, &[&SOUND, &SOUND]), [place]);
}

/// As often as the policy says.
#[test]
fn four_slots_that_fail_end_a_write() {
    let mut script = Script::serving(Table::default());
    let mut slot = 64;
    script.place(slot);
    for _ in 0..3 {
        script.place_again(slot, slot + 8);
        slot += 8;
    }
    script.done(&[]);
    script.bell();
    let listed = open(&[(piece(1, 1, mapped(slot)), Status::IoErr)]);
    script.listed(listed, &[Action::Fail { fault: ID }]);
    assert_eq!(script.device.snapshot().counters.slots_retired, 4);
}

/// It knows it as used, and the table does not.
#[test]
fn a_slot_that_the_kernel_refuses_is_not_asked_for_again() {
    let mut script = Script::serving(Table::default());
    script.place(64);
    let refused = || Event::VerdictDone { fault: ID, result: Err(Refusal::Exists) };
    for slot in [72, 80, 88] {
        let place = Action::Place { fault: ID, pieces: vec![piece(1, 1, mapped(slot))] };
        script.expect(refused(), &[place]);
    }
    script.expect(refused(), &[Action::Fail { fault: ID }]);
}

#[test]
fn results_of_other_pieces_than_were_asked_for_are_an_attempt() {
    let mut script = Script::serving(Table::default());
    let tried = || [Action::Try { fault: ID, pieces: blocks() }];
    script.listed(open(&[]), &tried());
    for _ in 0..3 {
        script.done(&[]);
        script.bell();
        script.listed(open(&[(piece(0, 4, None), Status::Ok)]), &tried());
    }
    script.done(&[]);
    script.bell();
    script.listed(open(&[(piece(0, 4, None), Status::Ok)]), &[Action::Fail { fault: ID }]);
}

#[test]
fn a_snapshot_has_sums_and_what_is_wrong_now() {
    let mut script = Script::serving(table(&[
        extent(0, 3, Kind::PoisonData),
        extent(10, 2, Kind::PoisonSlot(Slot(64))),
        extent(20, 5, Kind::Mapped(Slot(72))),
        extent(30, 1, Kind::Mapped(Slot(80))),
    ]));
    let seen = script.device.snapshot();
    assert_eq!((seen.poisoned, seen.mapped, seen.extents), (Sectors(5), Sectors(6), 4));
    assert_eq!(seen.alarms.len(), 0);
    script.device.handle(script.now, Event::FlushFailed);
    let alarms = script.device.snapshot().alarms;
    assert_eq!(alarms.keys().collect::<Vec<_>>(), [&Alarm::SpareFlush]);
}
