//! Event by event: what each path asks for, and in which order.

use std::time::Duration;

use crate::core::event::*;
use crate::core::{Device, Durable, Policy};
use crate::table::{Change, Extent, Kind, Table};
use crate::units::{Sector, Sectors, Slot};

pub(super) const AREA: Area = Area { start: Slot(64), len: Sectors(64), unit: Sectors(8) };
pub(super) const ID: FaultId = FaultId(7);
/// What is read elsewhere on a disk answers.
pub(super) const SOUND: [Status; 4] = [Status::Ok; 4];

pub(super) struct Script {
    pub(super) device: Device,
    pub(super) now: Duration,
    pub(super) fails: u64,
}

pub(super) fn extent(start: u64, len: u64, kind: Kind) -> Extent {
    Extent { start: Sector(start), len: Sectors(len), kind }
}

pub(super) fn piece(offset: u64, len: u64, kind: Option<Kind>) -> Piece {
    Piece { offset: Sectors(offset), len: Sectors(len), kind }
}

/// What is tried of a fault.
pub(super) fn blocks() -> Vec<Piece> {
    (0..4).map(|i| piece(i, 1, None)).collect()
}

pub(super) fn mapped(slot: u64) -> Option<Kind> {
    Some(Kind::Mapped(Slot(slot)))
}

pub(super) fn table(extents: &[Extent]) -> Table {
    let mut table = Table::default();
    extents.iter().for_each(|e| table.apply(&Change::Set(*e)));
    table
}

pub(super) fn write() -> Flags {
    Flags { write: true, held: true, ..Flags::default() }
}

pub(super) fn read() -> Flags {
    Flags { held: true, ..Flags::default() }
}

pub(super) fn fault(flags: Flags, state: State, pieces: &[(Piece, Status)]) -> Listed {
    let (start, len) = (Sector(1000), Sectors(4));
    let (status, deadline) = (Status::Medium, None);
    Listed { id: ID, start, len, state, flags, status, deadline, pieces: pieces.to_vec() }
}

impl Script {
    pub(super) fn instance(&self, ready: bool) -> Instance {
        Instance {
            id: 1,
            ready,
            sectors: Sectors(100_000),
            block: Sectors(1),
            spare_flush_fails: self.fails,
            spare_flush_bad: false,
        }
    }

    pub(super) fn start(ready: bool, table: Table) -> Script {
        let device = Device::new(Policy::default(), AREA, table, Durable::after(5));
        let mut script = Script { device, now: Duration::from_secs(1), fails: 0 };
        let instance = script.instance(ready);
        script.expect(Event::Instance(instance), &[Action::Claim { commit: 5, area: AREA }]);
        script
    }

    /// Up to the first listing, not answered yet.
    pub(super) fn serving(table: Table) -> Script {
        let mut script = Script::start(true, table);
        script.expect(Event::Claimed(Ok(())), &[Action::ListRetired]);
        script.expect(Event::RetiredListed(Ok(Vec::new())), &[Action::List]);
        script
    }

    pub(super) fn expect(&mut self, event: Event, actions: &[Action]) {
        let said = format!("{event:?}");
        assert_eq!(self.device.handle(self.now, event), actions, "after {said}");
    }

    pub(super) fn listed(&mut self, fault: Listed, actions: &[Action]) {
        let instance = self.instance(true);
        self.expect(Event::FaultsListed(Ok((instance, vec![fault]))), actions);
    }

    pub(super) fn done(&mut self, actions: &[Action]) {
        self.expect(Event::VerdictDone { fault: ID, result: Ok(()) }, actions);
    }

    pub(super) fn bell(&mut self) {
        self.expect(Event::Doorbell, &[Action::List]);
    }

    /// Answers the read that the actions hold; the other devices are sound.
    pub(super) fn reads(&mut self, event: Event, results: &[Status]) -> Vec<Action> {
        self.reads_twice(event, &[results])
    }

    /// Likewise, and the reads that follow.
    pub(super) fn reads_twice(&mut self, event: Event, results: &[&[Status]]) -> Vec<Action> {
        results.iter().fold(self.device.handle(self.now, event), |actions, results| {
            let [Action::Read { id, ref spans, .. }] = actions[..] else {
                panic!("no read: {actions:?}")
            };
            assert_eq!(spans.len(), results.len());
            self.device.handle(self.now, Event::ReadDone { id, results: results.to_vec() })
        })
    }

    /// A read whose four sectors all fail, up to the read elsewhere.
    pub(super) fn control(&mut self) -> ReadId {
        let listed = vec![fault(read(), State::Open, &[])];
        let event = Event::FaultsListed(Ok((self.instance(true), listed)));
        let control = self.reads(event, &[Status::IoErr; 4]);
        let [Action::Read { id, .. }] = control[..] else { panic!("no control: {control:?}") };
        id
    }

    /// A write whose second of four sectors is bad, up to its PLACE in `slot`.
    pub(super) fn place(&mut self, slot: u64) -> Action {
        let tries = blocks();
        let pieces = tries.clone();
        self.listed(fault(write(), State::Open, &[]), &[Action::Try { fault: ID, pieces }]);
        self.done(&[]);
        self.bell();
        let result = |p: Piece| (p, if p.offset.0 == 1 { Status::Medium } else { Status::Ok });
        let results: Vec<_> = tries.into_iter().map(result).collect();
        let instance = self.instance(true);
        let listed = vec![fault(write(), State::Open, &results)];
        let event = Event::FaultsListed(Ok((instance, listed)));
        let place = Action::Place { fault: ID, pieces: vec![piece(1, 1, mapped(slot))] };
        assert_eq!(self.reads_twice(event, &[&SOUND, &SOUND]), std::slice::from_ref(&place));
        place
    }

    /// The slot of its PLACE has failed, and another one follows.
    pub(super) fn place_again(&mut self, failed: u64, slot: u64) -> Action {
        self.done(&[]);
        self.bell();
        let listed = fault(write(), State::Open, &[(piece(1, 1, mapped(failed)), Status::IoErr)]);
        let event = Event::FaultsListed(Ok((self.instance(true), vec![listed])));
        let place = Action::Place { fault: ID, pieces: vec![piece(1, 1, mapped(slot))] };
        assert_eq!(self.reads(event, &SOUND), std::slice::from_ref(&place));
        place
    }

    pub(super) fn placed(slot: u64) -> Listed {
        let flags = Flags { pinned: true, ..write() };
        fault(flags, State::Placed, &[(piece(1, 1, mapped(slot)), Status::Ok)])
    }

    pub(super) fn flushed(&mut self, slot: u64) {
        self.done(&[]);
        self.bell();
        self.listed(Script::placed(slot), &[Action::FlushSpare]);
        self.expect(Event::FlushDone { ok: true }, &[Action::List]);
    }

    pub(super) fn committing() -> Script {
        let mut script = Script::serving(Table::default());
        script.place(64);
        script.flushed(64);
        let set = Change::Set(extent(1001, 1, Kind::Mapped(Slot(64))));
        script.listed(Script::placed(64), &[Action::Commit(vec![set])]);
        script
    }
}

pub(super) fn install(sequence: u64) -> Action {
    Action::Install { proof: Durable::after(sequence), faults: vec![ID] }
}

#[test]
fn a_write_goes_slot_flush_check_commit_install() {
    let mut script = Script::committing();
    script.expect(Event::CommitDone(Ok(Durable::after(6))), &[install(6)]);
    script.expect(Event::InstallDone(Ok(())), &[]);
    assert_eq!(script.device.snapshot().mapped, Sectors(1));
}

#[test]
fn a_write_that_the_disk_takes_in_pieces_needs_no_commit() {
    let mut script = Script::serving(Table::default());
    let tries = blocks();
    let pieces = tries.clone();
    script.listed(fault(write(), State::Open, &[]), &[Action::Try { fault: ID, pieces }]);
    script.done(&[]);
    script.bell();
    let ok: Vec<_> = tries.into_iter().map(|p| (p, Status::Ok)).collect();
    let place = Action::Place { fault: ID, pieces: Vec::new() };
    script.listed(fault(write(), State::Open, &ok), &[place]);
    script.done(&[]);
    script.bell();
    let flags = Flags { pinned: true, ..write() };
    script.listed(fault(flags, State::Placed, &[]), &[install(5)]);
}

#[test]
fn a_flush_that_failed_meanwhile_voids_the_place() {
    let mut script = Script::serving(Table::default());
    let place = script.place(64);
    script.flushed(64);
    script.fails = 1;
    script.listed(Script::placed(64), std::slice::from_ref(&place));
    script.flushed(64);
    let set = Change::Set(extent(1001, 1, Kind::Mapped(Slot(64))));
    script.listed(Script::placed(64), &[Action::Commit(vec![set])]);
}

#[test]
fn a_listing_from_before_the_end_of_the_flush_checks_nothing() {
    let mut script = Script::serving(Table::default());
    script.place(64);
    script.done(&[]);
    script.bell();
    script.listed(Script::placed(64), &[Action::FlushSpare]);
    script.bell();
    script.expect(Event::FlushDone { ok: true }, &[]);
    script.listed(Script::placed(64), &[Action::List]);
    let set = Change::Set(extent(1001, 1, Kind::Mapped(Slot(64))));
    script.listed(Script::placed(64), &[Action::Commit(vec![set])]);
}

/// A flush of the daemon's own that was sent for earlier places fails: the disk drops its whole
/// cache, and with it a place that the flush was not sent for.
#[test]
fn a_failed_flush_voids_a_place_that_it_was_not_sent_for() {
    let mut script = Script::serving(Table::default());
    let place = script.place(64);
    script.device.flushing = true;
    script.done(&[]);
    script.bell();
    script.listed(Script::placed(64), &[]);
    let actions = script.device.handle(script.now, Event::FlushFailed);
    let alarm =
        matches!(actions[..], [Action::Alarm { alarm: Alarm::SpareFlush, .. }, Action::List]);
    assert!(alarm, "{actions:?}");
    script.fails = 1;
    script.listed(Script::placed(64), &[]);
    script.expect(Event::FlushDone { ok: false }, &[Action::FlushSpare]);
    script.expect(Event::FlushDone { ok: true }, &[Action::List]);
    script.listed(Script::placed(64), &[place]);
}

#[test]
fn a_flush_that_failed_before_the_place_was_reported_voids_it_too() {
    let mut script = Script::serving(Table::default());
    let place = script.place(64);
    script.done(&[]);
    script.bell();
    script.fails = 1;
    script.listed(Script::placed(64), &[place]);
}

#[test]
fn a_slot_that_fails_is_retired_by_the_commit_that_names_the_next() {
    let mut script = Script::serving(Table::default());
    script.place(64);
    script.place_again(64, 72);
    script.flushed(72);
    let changes = vec![
        Change::Retire { slot: Slot(64), len: Sectors(8) },
        Change::Set(extent(1001, 1, Kind::Mapped(Slot(72)))),
    ];
    script.listed(Script::placed(72), &[Action::Commit(changes)]);
}

#[test]
fn a_place_that_ends_unseen_may_have_cost_a_slot() {
    let mut script = Script::serving(Table::default());
    script.place(64);
    script.done(&[]);
    script.bell();
    let nothing = (script.instance(true), Vec::new());
    script.expect(Event::FaultsListed(Ok(nothing)), &[Action::ListRetired]);
    let retire = Change::Retire { slot: Slot(64), len: Sectors(8) };
    let retired = Event::RetiredListed(Ok(vec![(Slot(64), Sectors(8))]));
    script.expect(retired, &[Action::Commit(vec![retire])]);
}

/// A listing is of the whole table.
#[test]
fn what_was_retired_is_listed_once_for_all_faults_that_left() {
    let mut script = Script::serving(Table::default());
    let many = (0..512).map(|n| {
        let busy = fault(write(), State::Busy, &[]);
        Listed { id: FaultId(n), start: Sector(1000 + 8 * n), ..busy }
    });
    let (instance, many) = (script.instance(true), many.collect());
    script.expect(Event::FaultsListed(Ok((instance, many))), &[]);
    script.bell();
    let nothing = (instance, Vec::new());
    script.expect(Event::FaultsListed(Ok(nothing)), &[Action::ListRetired]);
}

#[test]
fn a_read_that_was_too_late_is_decided_by_the_next_listing() {
    let mut script = Script::serving(Table::default());
    let mut bad = fault(read(), State::Open, &[]);
    bad.deadline = Some(Duration::from_secs(60));
    let instance = script.instance(true);
    let event = Event::FaultsListed(Ok((instance, vec![bad.clone()])));
    let actions = script.device.handle(script.now, event);
    let [Action::Read { id, until, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(until, Some(script.now + Duration::from_secs(60)));
    let late = Event::ReadDone { id, results: vec![Status::Medium, Status::NotDone] };
    let at = script.now + Duration::from_millis(100);
    script.expect(late, &[Action::SetTimer(at)]);
    script.now = at;
    script.expect(Event::Tick, &[Action::List]);
    let event = Event::FaultsListed(Ok((instance, vec![bad])));
    let actions = script.device.handle(script.now, event);
    assert!(matches!(actions[..], [Action::Read { id: ReadId(2), .. }]), "{actions:?}");
}

#[test]
fn what_a_commit_names_is_installed_even_if_no_listing_shows_it() {
    let mut script = Script::committing();
    script.bell();
    let nothing = (script.instance(true), Vec::new());
    script.expect(Event::FaultsListed(Ok(nothing)), &[]);
    script.expect(Event::CommitDone(Ok(Durable::after(6))), &[install(6)]);
}

#[test]
fn an_unknown_commit_is_restated_until_it_is_durable() {
    let mut script = Script::committing();
    let unknown = || Event::CommitDone(Err(CommitFailure::Unknown));
    script.expect(unknown(), &[Action::Restate]);
    let later = script.now + Duration::from_secs(1);
    script.expect(unknown(), &[Action::SetTimer(later)]);
    script.bell();
    script.listed(Script::placed(64), &[]);
    script.now = later;
    script.expect(Event::Tick, &[Action::Restate]);
    script.expect(Event::CommitDone(Ok(Durable::after(6))), &[install(6)]);
}

/// How often, and how long after its end that is seen at most.
#[test]
fn a_spare_that_is_away_for_an_hour_does_not_use_up_the_log() {
    let mut script = Script::committing();
    let begun = script.now;
    let unknown = || Event::CommitDone(Err(CommitFailure::Unknown));
    script.expect(unknown(), &[Action::Restate]);
    let (mut times, mut quarter) = (1, 0);
    while script.now < begun + Duration::from_secs(3600) {
        let away = script.now - begun;
        let actions = script.device.handle(script.now, unknown());
        let [Action::SetTimer(at)] = actions[..] else { panic!("{actions:?}") };
        let pause = at - script.now;
        assert!(pause <= (away / 4).max(Duration::from_secs(1)), "{pause:?} after {away:?}");
        script.now = at;
        script.expect(Event::Tick, &[Action::Restate]);
        times += 1;
        if script.now < begun + Duration::from_secs(900) {
            quarter = times;
        }
    }
    // A log of 128 blocks keeps a quarter for this: it lasts for a quarter of an hour.
    assert!(times < 40 && quarter <= 32, "{times}, {quarter}");
}

/// An hour, after which it is restated every five minutes.
fn unknown_for_long() -> Script {
    let mut script = Script::committing();
    script.expect(Event::CommitDone(Err(CommitFailure::Unknown)), &[Action::Restate]);
    script.now += Duration::from_secs(3600);
    let later = script.now + Duration::from_secs(300);
    script.expect(unknown(), &[Action::SetTimer(later)]);
    script
}

fn unknown() -> Event {
    Event::CommitDone(Err(CommitFailure::Unknown))
}

/// What became bad meanwhile would wait for minutes, and end as an error.
#[test]
fn a_flush_that_succeeds_again_has_the_commit_restated() {
    let mut script = unknown_for_long();
    let second = Duration::from_secs(1);
    let flushed = || Event::FlushDone { ok: true };
    script.expect(flushed(), &[Action::SetTimer(script.now + second)]);
    script.now += second;
    script.expect(Event::Tick, &[Action::Restate]);
    // It was not enough; another one would cost the log another block.
    script.expect(unknown(), &[Action::SetTimer(script.now + 300 * second)]);
    script.expect(flushed(), &[]);
}

/// Nothing is flushed while a claim waits for the end of the commit.
#[test]
fn a_spare_is_asked_for_while_a_claim_waits_for_it() {
    let mut script = unknown_for_long();
    let regular = script.now + Duration::from_secs(300);
    let mut asked = None;
    let mut probe = |script: &mut Script, event, status| {
        let actions = script.device.handle(script.now, event);
        let Some(Action::Read { id, spans, .. }) = actions.first() else { panic!("{actions:?}") };
        assert_ne!(asked.replace(*id), Some(*id), "two reads, one name");
        assert!(spans.iter().all(|span| matches!(span.at, At::Spare(_))), "{spans:?}");
        let results = vec![status; spans.len()];
        let actions = script.device.handle(script.now, Event::ReadDone { id: *id, results });
        let [Action::SetTimer(at)] = actions[..] else { panic!("{actions:?}") };
        script.now = at;
        assert!(at < regular);
    };
    probe(&mut script, Event::OwnerLost, Status::IoErr);
    probe(&mut script, Event::Tick, Status::Ok);
    let actions = script.device.handle(script.now, Event::Tick);
    assert!(actions.contains(&Action::Restate), "{actions:?}");
    // It answers and takes no writes: that is no reason for another.
    script.device.handle(script.now, unknown());
    script.now += Duration::from_secs(5);
    let actions = script.device.handle(script.now, Event::Tick);
    let Some(Action::Read { id, .. }) = actions.first() else { panic!("{actions:?}") };
    let answers = Event::ReadDone { id: *id, results: vec![Status::Ok; 4] };
    let actions = script.device.handle(script.now, answers);
    script.now += Duration::from_secs(2);
    let next = script.device.handle(script.now, Event::Tick);
    assert!(!next.contains(&Action::Restate), "{actions:?} {next:?}");
    let claim = Action::Claim { commit: 6, area: AREA };
    let actions = script.device.handle(script.now, Event::CommitDone(Ok(Durable::after(6))));
    assert!(actions.contains(&claim), "{actions:?}");
}

#[test]
fn a_full_log_fails_the_fault_and_lifts_its_fence() {
    let mut script = Script::committing();
    let actions = script.device.handle(script.now, Event::CommitDone(Err(CommitFailure::Full)));
    assert!(matches!(actions[0], Action::Alarm { alarm: Alarm::LogFull, .. }), "{actions:?}");
    let again = Action::SetTimer(script.now + Duration::from_secs(10));
    assert_eq!(actions[1..], [Action::Fail { fault: ID }, again]);
    script.done(&[Action::Release { fault: ID }]);
    script.done(&[]);
    script.bell();
    let again = fault(write(), State::Open, &[]);
    script.listed(again, &[Action::Fail { fault: ID }]);
}

#[test]
fn when_no_mirror_is_left_the_bio_fails_and_its_fence_stays() {
    let mut script = Script::committing();
    let actions = script.device.handle(script.now, Event::CommitDone(Err(CommitFailure::Dead)));
    assert!(matches!(actions[0], Action::Alarm { alarm: Alarm::MetadataDead, .. }));
    assert_eq!(actions[1..], [Action::Fail { fault: ID }]);
    script.done(&[]);
    script.bell();
    let mut left = Script::placed(64);
    left.flags.held = false;
    script.listed(left, &[]);
}

#[test]
fn a_verdict_in_flight_is_not_judged_by_an_older_listing() {
    let mut script = Script::serving(Table::default());
    script.place(64);
    script.bell();
    script.listed(fault(write(), State::Open, &[]), &[]);
    script.done(&[]);
}

#[test]
fn doorbells_coalesce_and_one_that_rings_during_a_listing_is_kept() {
    let mut script = Script::serving(Table::default());
    script.expect(Event::Doorbell, &[]);
    script.expect(Event::Doorbell, &[]);
    let instance = script.instance(true);
    script.expect(Event::FaultsListed(Ok((instance, Vec::new()))), &[Action::List]);
}
