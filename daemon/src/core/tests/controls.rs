//! Event by event: what is read before a fault may change the table.

use super::scripts::*;
use crate::core::event::*;
use crate::table::{Change, Kind, Table};
use crate::units::{Sector, Sectors, Slot};

fn storm(actions: &[Action]) -> bool {
    matches!(actions, [Action::Alarm { alarm: Alarm::Storm, .. }, Action::Fail { fault: ID }])
}

/// Each try would retire one of its slots.
#[test]
fn a_slot_of_a_spare_that_answers_nowhere_is_not_followed_by_another() {
    let place = || {
        let mut script = Script::serving(Table::default());
        script.place(64);
        script.done(&[]);
        script.bell();
        script
    };
    let failed = |status| fault(write(), State::Open, &[(piece(1, 1, mapped(64)), status)]);
    let mut script = place();
    let listed = vec![failed(Status::IoErr)];
    let event = Event::FaultsListed(Ok((script.instance(true), listed.clone())));
    let actions = script.device.handle(script.now, event);
    let [Action::Read { id, .. }] = actions[..] else { panic!("no read: {actions:?}") };
    // What it shows is known already: the table is not asked for what was retired.
    script.bell();
    script.expect(Event::FaultsListed(Ok((script.instance(true), listed))), &[]);
    let results = vec![Status::IoErr; 4];
    assert!(storm(&script.device.handle(script.now, Event::ReadDone { id, results })));
    let mut script = place();
    let event = Event::FaultsListed(Ok((script.instance(true), vec![failed(Status::Other)])));
    assert!(storm(&script.device.handle(script.now, event)));
}

#[test]
fn nothing_is_placed_on_a_spare_that_answers_nowhere() {
    let tries: Vec<_> = (0..4).map(|i| (piece(i, 1, None), Status::Medium)).collect();
    let mut script = Script::serving(Table::default());
    let pieces = tries.iter().map(|(p, _)| *p).collect();
    script.listed(fault(write(), State::Open, &[]), &[Action::Try { fault: ID, pieces }]);
    script.done(&[]);
    script.bell();
    let listed = vec![fault(write(), State::Open, &tries)];
    let event = Event::FaultsListed(Ok((script.instance(true), listed)));
    assert!(storm(&script.reads_twice(event, &[&SOUND, &[Status::IoErr; 4]])));

    // Nor when what is left of it is poison only.
    let mut script = Script::serving(table(&[extent(1000, 3, Kind::PoisonData)]));
    let rest = piece(3, 1, None);
    let try_rest = Action::Try { fault: ID, pieces: vec![rest] };
    script.listed(fault(write(), State::Open, &[]), &[try_rest]);
    script.done(&[]);
    script.bell();
    let listed = vec![fault(write(), State::Open, &[(rest, Status::Ok)])];
    let event = Event::FaultsListed(Ok((script.instance(true), listed)));
    assert!(storm(&script.reads(event, &[Status::IoErr; 4])));

    let mut script = Script::serving(table(&[extent(1000, 4, Kind::PoisonData)]));
    let heal = fault(Flags { heal: true, ..write() }, State::Open, &[]);
    let event = Event::FaultsListed(Ok((script.instance(true), vec![heal])));
    assert!(storm(&script.reads(event, &[Status::IoErr; 4])));
}

/// Damage on both disks, of which one was away for a moment: its slots were poisoned.
#[test]
fn each_disk_that_has_damage_is_controlled() {
    let (sound, silent) = ([Status::Ok; 4], [Status::IoErr; 4]);
    for results in [[sound, silent, silent], [silent, sound, silent]] {
        let mut script = Script::serving(table(&[extent(1002, 2, Kind::Mapped(Slot(64)))]));
        let listed = vec![fault(read(), State::Open, &[])];
        let event = Event::FaultsListed(Ok((script.instance(true), listed)));
        let actions = script.device.handle(script.now, event);
        assert!(matches!(actions[..], [Action::Read { id: ReadId(1), .. }]), "{actions:?}");
        let event = Event::ReadDone { id: ReadId(1), results: vec![Status::IoErr; 4] };
        assert!(storm(&script.reads(event, &results.concat())));
    }
}

#[test]
fn an_unreadable_block_is_poisoned_and_its_neighbours_are_not() {
    let slot = extent(1002, 2, Kind::Mapped(Slot(64)));
    let mut script = Script::serving(table(&[slot]));
    let listed = vec![fault(read(), State::Open, &[])];
    let event = Event::FaultsListed(Ok((script.instance(true), listed)));
    let actions = script.device.handle(script.now, event);
    let at = |at| Span { at, len: Sectors(1) };
    let spans =
        [At::Data(Sector(1000)), At::Data(Sector(1001)), At::Spare(Slot(64)), At::Spare(Slot(65))]
            .map(at)
            .to_vec();
    assert_eq!(actions, [Action::Read { id: ReadId(1), spans, retries: 3, until: None }]);
    let results = vec![Status::Ok, Status::Medium, Status::Ok, Status::Medium];
    let event = Event::ReadDone { id: ReadId(1), results };
    let poison =
        vec![piece(1, 1, Some(Kind::PoisonData)), piece(3, 1, Some(Kind::PoisonSlot(Slot(65))))];
    let placed: Vec<_> = poison.iter().map(|&p| (p, Status::Ok)).collect();
    let place = Action::Place { fault: ID, pieces: poison };
    assert_eq!(
        script.reads(event, &[[Status::Ok; 8].as_slice(), &[Status::Medium; 2]].concat()),
        [place]
    );
    script.done(&[]);
    script.bell();
    let flags = Flags { pinned: true, ..read() };
    let changes = [
        Change::Set(extent(1001, 1, Kind::PoisonData)),
        Change::Set(extent(1003, 1, Kind::PoisonSlot(Slot(65)))),
    ];
    script.listed(fault(flags, State::Placed, &placed), &[Action::Commit(changes.to_vec())]);
}

/// A disk that did not answer while its blocks were read came back before the control reads: they
/// all succeeded, and readable blocks were poisoned.
#[test]
fn blocks_that_can_be_read_after_the_control_are_not_poisoned() {
    let mut script = Script::serving(Table::default());
    let listed = vec![fault(read(), State::Open, &[])];
    let event = Event::FaultsListed(Ok((script.instance(true), listed)));
    let actions = script.device.handle(script.now, event);
    assert!(matches!(actions[..], [Action::Read { id: ReadId(1), .. }]), "{actions:?}");
    let event = Event::ReadDone { id: ReadId(1), results: vec![Status::IoErr; 4] };
    let again = [Status::Ok; 8];
    assert_eq!(script.reads(event, &again), [Action::Release { fault: ID }]);
}

/// It answered after a storm, elsewhere, and vanished in the middle of the reads: what was still to be read was
/// poisoned.
#[test]
fn a_device_that_vanishes_at_the_last_look_has_no_bad_media() {
    let mut script = Script::serving(Table::default());
    let id = script.control();
    let results = [[Status::Ok; 4], [Status::Other; 4]].concat();
    let actions = script.device.handle(script.now, Event::ReadDone { id, results });
    assert!(matches!(actions[0], Action::Alarm { alarm: Alarm::Storm, .. }), "{actions:?}");
    assert_eq!(actions[1..], [Action::Fail { fault: ID }]);
}

#[test]
fn a_read_that_now_succeeds_is_released() {
    let mut script = Script::serving(Table::default());
    let listed = vec![fault(read(), State::Open, &[])];
    let event = Event::FaultsListed(Ok((script.instance(true), listed)));
    assert_eq!(script.reads(event, &[Status::Ok; 4]), [Action::Release { fault: ID }]);
}

#[test]
fn a_heal_places_exactly_the_poisoned_blocks() {
    let poison = extent(900, 102, Kind::PoisonData);
    let mut script = Script::serving(table(&[poison]));
    let mut heal = fault(Flags { heal: true, ..write() }, State::Open, &[]);
    heal.status = Status::Ok;
    let event = Event::FaultsListed(Ok((script.instance(true), vec![heal])));
    let pieces = vec![piece(0, 2, mapped(64))];
    assert_eq!(script.reads(event, &SOUND), [Action::Place { fault: ID, pieces }]);
}

#[test]
fn a_device_that_answers_nowhere_has_no_bad_media() {
    let mut script = Script::serving(Table::default());
    let id = script.control();
    let event = Event::ReadDone { id, results: vec![Status::IoErr; 4] };
    let actions = script.device.handle(script.now, event);
    assert!(matches!(actions[0], Action::Alarm { alarm: Alarm::Storm, .. }));
    assert_eq!(actions[1..], [Action::Fail { fault: ID }]);
}
