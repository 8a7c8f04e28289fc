//! Event by event: what follows from a request that the kernel refuses, and from an instance that is another.

use std::time::Duration;

use super::scripts::*;
use crate::core::Policy;
use crate::core::device::Phase;
use crate::core::event::*;
use crate::table::{Kind, Table};

const SOON: Duration = Duration::from_millis(100);
const CLAIM: Action = Action::Claim { commit: 5, area: AREA };

#[test]
fn for_want_of_a_claim_there_is_another_one() {
    for refusal in [Refusal::NotOwner, Refusal::NoInstance, Refusal::Link] {
        let mut script = Script::serving(Table::default());
        script.expect(Event::FaultsListed(Err(refusal)), &[Action::SetTimer(script.now + SOON)]);
        script.now += SOON;
        script.expect(Event::Tick, &[CLAIM]);
        // One that was sent before is not of this claim.
        script.listed(fault(write(), State::Open, &[]), &[]);
        assert_eq!(script.device.snapshot().faults, []);
    }
}

#[test]
fn for_any_other_reason_the_next_listing_decides() {
    let mut script = Script::serving(Table::default());
    let later = Action::SetTimer(script.now + SOON);
    script.expect(Event::FaultsListed(Err(Refusal::NoMemory)), std::slice::from_ref(&later));
    script.now += SOON;
    script.expect(Event::Tick, &[Action::List]);
}

#[test]
fn what_is_refused_as_wrong_is_an_attempt_and_what_came_too_late_is_none() {
    let open = || fault(write(), State::Open, &[]);
    let tried = Action::Try { fault: ID, pieces: blocks() };
    let refused = |refusal| Event::VerdictDone { fault: ID, result: Err(refusal) };
    let mut script = Script::serving(Table::default());
    for _ in 0..20 {
        script.listed(open(), std::slice::from_ref(&tried));
        script.expect(refused(Refusal::Busy), &[Action::List]);
    }
    for _ in 0..Policy::default().place_attempts {
        script.listed(open(), std::slice::from_ref(&tried));
        script.expect(refused(Refusal::Invalid), &[Action::SetTimer(script.now + SOON)]);
        script.now += SOON;
        script.expect(Event::Tick, &[Action::List]);
    }
    script.listed(open(), &[Action::Fail { fault: ID }]);
}

/// It is an error for its writer already, perhaps.
#[test]
fn an_error_that_was_refused_is_told_again() {
    let mut script = Script::serving(Table::default());
    let mut gone = fault(write(), State::Open, &[]);
    gone.status = Status::Other;
    script.listed(gone.clone(), &[Action::Fail { fault: ID }]);
    let event = Event::VerdictDone { fault: ID, result: Err(Refusal::Busy) };
    script.expect(event, &[Action::List]);
    script.listed(fault(write(), State::Open, &[]), &[Action::Fail { fault: ID }]);
}

#[test]
fn a_ready_instance_refuses_a_load_and_is_adopted() {
    let poison = extent(0, 1, Kind::PoisonData);
    let mut script = Script::start(false, table(&[poison]));
    script.expect(Event::Claimed(Ok(())), &[Action::Load(vec![Load::Extent(poison)])]);
    script.expect(Event::Loaded(Err(Refusal::Busy)), &[Action::ListRetired]);
    script.expect(Event::RetiredListed(Ok(Vec::new())), &[Action::List]);
}

#[test]
fn faults_and_claim_go_with_their_instance() {
    let served = || {
        let mut script = Script::serving(Table::default());
        let pieces = blocks();
        script.listed(fault(write(), State::Open, &[]), &[Action::Try { fault: ID, pieces }]);
        script
    };
    let mut script = served();
    let again = Instance { id: 2, ..script.instance(true) };
    script.expect(Event::Instance(again), &[CLAIM]);
    assert_eq!(script.device.snapshot().faults, []);

    let mut script = served();
    script.expect(Event::Gone, &[]);
    assert_eq!(script.device.snapshot().faults, []);
    script.expect(Event::Instance(script.instance(true)), &[CLAIM]);

    let mut script = served();
    script.expect(Event::Instance(script.instance(true)), &[]);
    assert_eq!(script.device.snapshot().faults.len(), 1);
}

#[test]
fn what_failed_under_another_owner_is_asked_for() {
    let slot = piece(1, 1, mapped(64));
    let direct = piece(2, 1, None);
    for (results, wanted) in [
        ([(slot, Status::IoErr), (direct, Status::Ok)], true),
        ([(slot, Status::Ok), (direct, Status::Medium)], false),
    ] {
        let mut script = Script::serving(Table::default());
        let mut actions = vec![Action::Try { fault: ID, pieces: blocks() }];
        actions.extend(wanted.then_some(Action::ListRetired));
        script.listed(fault(write(), State::Open, &results), &actions);
    }
}

/// Its bio has ended; only the fence is left, and nobody decides about it.
#[test]
fn a_fault_without_a_held_bio_is_released() {
    let mut script = Script::serving(Table::default());
    let left = Flags { held: false, ..write() };
    script.listed(fault(left, State::Open, &[]), &[Action::Release { fault: ID }]);
}

#[test]
fn a_table_that_the_kernel_refuses_is_not_sent_again() {
    for refusal in [Refusal::Invalid, Refusal::Exists] {
        let poison = extent(0, 1, Kind::PoisonData);
        let mut script = Script::start(false, table(&[poison]));
        script.expect(Event::Claimed(Ok(())), &[Action::Load(vec![Load::Extent(poison)])]);
        let actions = script.device.handle(script.now, Event::Loaded(Err(refusal)));
        assert!(
            matches!(actions[..], [Action::Alarm { alarm: Alarm::Refused, .. }]),
            "{actions:?}"
        );
        assert_eq!(script.device.snapshot().phase, Phase::Refused);
    }
}

#[test]
fn answers_of_a_claim_that_was_lost_change_nothing() {
    let mut script = Script::start(false, table(&[extent(0, 1, Kind::PoisonData)]));
    script.device.handle(script.now, Event::Claimed(Ok(())));
    script.expect(Event::OwnerLost, &[CLAIM]);
    script.expect(Event::Loaded(Ok(())), &[]);
    script.expect(Event::ReadyDone(Ok(())), &[]);
    script.expect(Event::RetiredListed(Ok(Vec::new())), &[]);
    assert_eq!(script.device.snapshot().phase, Phase::Claiming);
}

#[test]
fn what_was_retired_is_asked_for_until_it_is_told() {
    let mut script = Script::start(true, Table::default());
    script.expect(Event::Claimed(Ok(())), &[Action::ListRetired]);
    let second = Duration::from_secs(1);
    let refused = || Event::RetiredListed(Err(Refusal::NoMemory));
    script.expect(refused(), &[Action::SetTimer(script.now + second)]);
    script.now += second;
    script.expect(Event::Tick, &[CLAIM]);

    let mut script = Script::serving(Table::default());
    script.expect(refused(), &[Action::SetTimer(script.now + SOON)]);
}
