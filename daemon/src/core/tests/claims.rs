//! Event by event: from a claim to service, and what a new owner makes of what it finds.

use std::time::Duration;

use super::scripts::*;
use crate::core::Durable;
use crate::core::event::*;
use crate::table::{Change, Kind, Table};
use crate::units::{Sector, Sectors, Slot};

#[test]
fn a_fresh_instance_is_loaded_by_chunks_and_then_ready() {
    let mut table = Table::default();
    for i in 0..2050 {
        table.apply(&Change::Set(extent(2 * i, 1, Kind::PoisonData)));
    }
    table.apply(&Change::Retire { slot: Slot(64), len: Sectors(8) });
    let mut script = Script::start(false, table);
    let first = script.device.handle(script.now, Event::Claimed(Ok(())));
    assert!(matches!(&first[..], [Action::Load(load)] if load.len() == 2048));
    let last = [
        Load::Extent(extent(4096, 1, Kind::PoisonData)),
        Load::Extent(extent(4098, 1, Kind::PoisonData)),
        Load::Retired { slot: Slot(64), len: Sectors(8) },
    ];
    script.expect(Event::Loaded(Ok(())), &[Action::Load(last.to_vec())]);
    script.expect(Event::Loaded(Ok(())), &[Action::Ready]);
    script.expect(Event::ReadyDone(Ok(())), &[Action::List]);
}

#[test]
fn a_load_that_finds_no_memory_is_repeated() {
    let poison = extent(0, 1, Kind::PoisonData);
    let mut script = Script::start(false, table(&[poison]));
    let load = Action::Load(vec![Load::Extent(poison)]);
    script.expect(Event::Claimed(Ok(())), std::slice::from_ref(&load));
    let later = script.now + Duration::from_millis(100);
    script.expect(Event::Loaded(Err(Refusal::NoMemory)), &[Action::SetTimer(later)]);
    script.now = later;
    script.expect(Event::Tick, std::slice::from_ref(&load));
    // A part of it was there: it may be too much now.
    let again = script.now + Duration::from_secs(1);
    script.expect(Event::Loaded(Err(Refusal::Invalid)), &[Action::SetTimer(again)]);
    script.now = again;
    script.expect(Event::Tick, &[Action::Claim { commit: 5, area: AREA }]);
    script.expect(Event::Claimed(Ok(())), &[load]);
    script.expect(Event::Loaded(Ok(())), &[Action::Ready]);
}

#[test]
fn a_new_owner_installs_what_the_log_holds_and_releases_the_rest() {
    let mut script = Script::serving(table(&[extent(1001, 1, Kind::Mapped(Slot(64)))]));
    script.listed(Script::placed(64), &[install(5)]);
    let mut script = Script::serving(table(&[extent(1001, 1, Kind::Mapped(Slot(72)))]));
    script.listed(Script::placed(64), &[Action::Release { fault: ID }]);
}

/// A commit may take several records, and its owner was killed between two of them. Released, the sector would be
/// direct in the kernel and mapped in the log: what is written to it then is gone after a reboot.
#[test]
fn a_new_owner_ends_a_commit_that_is_durable_in_part() {
    let flags = Flags { pinned: true, ..write() };
    let half = |n| piece(n, 1, mapped(64 + 8 * n));
    let placed = fault(flags, State::Placed, &[(half(0), Status::Ok), (half(1), Status::Ok)]);
    let logged = extent(1000, 1, Kind::Mapped(Slot(64)));
    let rest = extent(1001, 1, Kind::Mapped(Slot(72)));
    let changes = vec![Change::Set(logged), Change::Set(rest)];
    let start = || {
        let mut script = Script::serving(table(&[logged]));
        script.listed(placed.clone(), &[Action::Commit(changes.clone())]);
        script
    };
    let mut script = start();
    script.expect(Event::CommitDone(Ok(Durable::after(6))), &[install(6)]);

    // Nor is it released where there is no room, or no mirror; it is tried again.
    let mut script = start();
    let actions = script.device.handle(script.now, Event::CommitDone(Err(CommitFailure::Full)));
    assert!(actions.contains(&Action::Fail { fault: ID }), "{actions:?}");
    script.done(&[]);
    script.bell();
    let mut left = placed.clone();
    left.flags.held = false;
    script.listed(left, &[]);
    script.now += Duration::from_secs(10);
    script.expect(Event::Tick, &[Action::Commit(changes.clone())]);
    let actions = script.device.handle(script.now, Event::CommitDone(Err(CommitFailure::Dead)));
    assert!(
        matches!(actions[..], [Action::Alarm { alarm: Alarm::MetadataDead, .. }]),
        "{actions:?}"
    );
}

#[test]
fn what_another_owner_retired_is_recorded() {
    let mut known = Table::default();
    known.apply(&Change::Retire { slot: Slot(66), len: Sectors(2) });
    let mut script = Script::start(true, known);
    script.expect(Event::Claimed(Ok(())), &[Action::ListRetired]);
    let retired = vec![(Slot(64), Sectors(8)), (Slot(80), Sectors(8))];
    let changes = [(64, 2), (68, 4), (80, 8)]
        .map(|(slot, len)| Change::Retire { slot: Slot(slot), len: Sectors(len) });
    let actions = [Action::Commit(changes.to_vec()), Action::List];
    script.expect(Event::RetiredListed(Ok(retired)), &actions);
}

#[test]
fn a_full_spare_is_said_at_the_start_and_the_original_error_later() {
    let used = extent(0, 64, Kind::Mapped(Slot(64)));
    let mut script = Script::start(true, table(&[used]));
    let actions = script.device.handle(script.now, Event::Claimed(Ok(())));
    assert!(matches!(actions[0], Action::Alarm { alarm: Alarm::SpareLow, .. }), "{actions:?}");
    assert!(matches!(actions[1], Action::Alarm { alarm: Alarm::SpareFull, .. }), "{actions:?}");
    assert_eq!(actions[2..], [Action::ListRetired]);
    script.expect(Event::RetiredListed(Ok(Vec::new())), &[Action::List]);
    let mut heal = fault(Flags { heal: true, ..write() }, State::Open, &[]);
    (heal.start, heal.status) = (Sector(0), Status::Ok);
    let poisoned = Change::Set(extent(0, 4, Kind::PoisonSlot(Slot(64))));
    script.device.table.apply(&poisoned);
    for _ in 0..2 {
        let event = Event::FaultsListed(Ok((script.instance(true), vec![heal.clone()])));
        script.expect(event, &[Action::Fail { fault: ID }]);
        script.done(&[]);
        script.bell();
    }
}

#[test]
fn a_lost_claim_is_made_again_and_a_stale_table_is_refused() {
    let mut script = Script::committing();
    script.expect(Event::OwnerLost, &[]);
    let claim = Action::Claim { commit: 6, area: AREA };
    script.expect(Event::CommitDone(Ok(Durable::after(6))), &[claim]);
    script.expect(Event::Claimed(Ok(())), &[Action::ListRetired]);
    let actions = [install(6), Action::List];
    script.expect(Event::RetiredListed(Ok(Vec::new())), &actions);

    let mut script = Script::start(true, Table::default());
    let actions = script.device.handle(script.now, Event::Claimed(Err(Refusal::Stale)));
    let [Action::Alarm { alarm: Alarm::Refused, text }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(text.contains("rolled back"), "{text}");
}
