//! The judge: histories it must pass and must fail, and the model disks as its witnesses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use dmremap_disks::SECTOR;
use dmremap_disks::iocheck::workload::{self, Workload};
use dmremap_disks::iocheck::{Content, Event, Judge, Verdict, pattern};
use dmremap_disks::volatile::{Power, VolatileStore};
use proptest::prelude::*;

fn verdict(lines: &[&str]) -> Verdict {
    Judge::history(&lines.join("\n")).unwrap()
}

fn passes(lines: &[&str]) {
    let verdict = verdict(lines);
    assert!(verdict.wrong.is_empty() && verdict.judged > 0, "{verdict}");
}

/// The history must be judged wrong once, in words that contain `why`.
fn fails(lines: &[&str], why: &str) {
    let verdict = verdict(lines);
    assert_eq!(verdict.wrong.len(), 1, "{verdict}");
    assert!(verdict.wrong[0].to_string().contains(why), "{verdict}");
}

#[test]
fn a_flushed_write_must_survive_the_cut() {
    let flushed = ["write 1 5 1", "ok 1", "flush 2", "ok 2", "cut", "read 3 5 1"];
    passes(&[&flushed[..], &["ok 3 1"]].concat());
    fails(&[&flushed[..], &["ok 3 0"]].concat(), "sector 5 read in line 7: a write was lost");
}

#[test]
fn a_fua_write_must_survive_the_cut() {
    let older = ["write 1 5 1", "ok 1", "write 2 5 1 fua", "ok 2", "cut", "read 3 5 1"];
    passes(&[&older[..], &["ok 3 2"]].concat());
    fails(&[&older[..], &["ok 3 1"]].concat(), "holds the older write 1; admissible: {2}");
}

#[test]
fn without_a_flush_any_version_may_survive_the_cut() {
    let unflushed = ["write 1 5 1", "ok 1", "write 2 5 1", "ok 2", "cut", "read 3 5 1"];
    ["ok 3 0", "ok 3 1", "ok 3 2"].iter().for_each(|ok| passes(&[&unflushed[..], &[ok]].concat()));
}

#[test]
fn without_a_cut_every_acknowledged_write_is_there() {
    fails(&["write 1 5 1", "ok 1", "read 2 5 1", "ok 2 0"], "as never written");
    let reset = ["write 1 5 1", "ok 1", "write 2 5 1", "reset", "read 3 5 1"];
    passes(&[&reset[..], &["ok 3 1"]].concat());
    passes(&[&reset[..], &["ok 3 2"]].concat());
    fails(&[&reset[..], &["ok 3 0"]].concat(), "admissible: {1, 2}");
}

#[test]
fn a_flush_covers_only_what_was_acknowledged_before_it_was_submitted() {
    passes(&["write 1 5 1", "flush 2", "ok 1", "ok 2", "cut", "read 3 5 1", "ok 3 0"]);
    passes(&["write 1 5 1", "ok 1", "flush 2", "error 2 5", "cut", "read 3 5 1", "ok 3 0"]);
    passes(&["write 1 5 1", "ok 1", "flush 2", "cut", "ok 2", "read 3 5 1", "ok 3 0"]);
}

#[test]
fn bytes_nobody_wrote_and_a_neighbours_data_are_never_right() {
    let one = ["write 1 5 2 fua", "ok 1", "cut", "read 3 5 1"];
    fails(&[&one[..], &["ok 3 x6465616462656566"]].concat(), "bytes nobody wrote: [64, 65, 61");
    fails(&[&one[..], &["ok 3 1@6"]].concat(), "data of another sector: write 1 of sector 6");
    fails(
        &["write 1 5 1", "ok 1", "read 3 9 1", "ok 3 1"],
        "holds write 1, which was not sent there",
    );
}

#[test]
fn what_a_read_found_after_the_cut_stays() {
    let cut = ["write 1 5 1", "ok 1", "cut", "read 2 5 1", "ok 2 0", "read 3 5 1"];
    passes(&[&cut[..], &["ok 3 0"]].concat());
    fails(&[&cut[..], &["ok 3 1"]].concat(), "admissible: {0}");
    let again = [&cut[..5], &["write 4 5 1", "ok 4", "cut", "read 6 5 1"]].concat();
    passes(&[&again[..], &["ok 6 0"]].concat());
    passes(&[&again[..], &["ok 6 4"]].concat());
    fails(&[&again[..], &["ok 6 1"]].concat(), "admissible: {0, 4}");
}

#[test]
fn requests_in_flight_together_may_end_in_either_order() {
    let both =
        ["write 1 5 1", "write 2 5 1", "ok 2", "ok 1", "flush 3", "ok 3", "cut", "read 4 5 1"];
    passes(&[&both[..], &["ok 4 1"]].concat());
    passes(&[&both[..], &["ok 4 2"]].concat());
    let during = ["write 1 5 1", "ok 1", "read 9 5 1", "write 2 5 1", "ok 2", "flush 3", "ok 3"];
    passes(&[&during[..], &["ok 9 1"]].concat());
    passes(&[&during[..], &["ok 9 2"]].concat());
    fails(&[&during[..], &["ok 9 0"]].concat(), "admissible: {1, 2}");
}

#[test]
fn a_failed_write_may_be_there_until_it_is_overwritten() {
    let failed = ["write 1 5 1", "error 1 5", "read 2 5 1"];
    passes(&[&failed[..], &["ok 2 0"]].concat());
    passes(&[&failed[..], &["ok 2 1"]].concat());
    fails(&["write 1 5 1", "error 1 5", "write 2 5 1", "ok 2", "read 3 5 1", "ok 3 1"], "{2}");
}

#[test]
fn read_errors_are_listed_apart() {
    let verdict = verdict(&["write 1 5 1", "ok 1", "read 2 5 4", "error 2 61"]);
    assert_eq!(
        verdict.to_string(),
        "sectors 5..9: the read of line 4 failed with errno 61\n0 sectors judged, 0 wrong, 1 reads failed"
    );
}

#[test]
fn what_is_seen_outside_the_history_is_judged_too() {
    let mut judge = Judge::default();
    ["write 1 5 1 fua", "ok 1", "cut"]
        .iter()
        .for_each(|line| judge.event(line.parse().unwrap()).unwrap());
    judge.look(5, Content::Write(1));
    judge.look(6, Content::Write(0));
    assert!(judge.verdict().wrong.is_empty());
    judge.look(5, Content::Write(0));
    assert!(judge.verdict().to_string().starts_with("sector 5 at the end: a write was lost"));
}

#[test]
fn a_history_that_makes_no_sense_is_refused_with_its_line() {
    let refused = |lines: &[&str], why: &str| {
        let error = Judge::history(&lines.join("\n")).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    refused(&["write 1 5 1", "write 1 6 1"], "line 2, \"write 1 6 1\": id 1 was used before");
    refused(&["ok 1"], "id 1 was never submitted");
    refused(&["write 0 5 1"], "the id 0");
    refused(&["write 1 5 0"], "0 sectors from 5 are no range");
    refused(&["read 1 5 2", "ok 1 0"], "1 sectors are given for 2");
    refused(&["write 1 5 1 now"], "\"now\" in place of \"fua\"");
    refused(&["reboot"], "\"reboot\" is no event");
    refused(&["cut off"], "\"off\" after the end");
}

const SECTORS: u64 = 12;

#[derive(Debug, Clone)]
enum Step {
    Write { start: u64, count: u64, fua: bool },
    Flush,
    Read { sector: u64 },
    Cut { seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..SECTORS, 1..4u64, prop::bool::weighted(0.2))
            .prop_map(|(start, count, fua)| Step::Write { start, count: count.min(SECTORS - start), fua }),
        2 => Just(Step::Flush),
        3 => (0..SECTORS).prop_map(|sector| Step::Read { sector }),
        1 => any::<u64>().prop_map(|seed| Step::Cut { seed }),
    ]
}

/// Runs the steps on a model disk, cuts its power, and judges all that was read.
fn witnessed(steps: &[Step], lying_flush: bool, last_seed: u64) -> (Judge, Power<Vec<u8>>) {
    let disk = VolatileStore::new(vec![0; SECTORS as usize * SECTOR], SECTORS);
    let power = Power::new(BTreeMap::from([("disk".to_owned(), disk)]));
    power.steer("disk", |disk| disk.faults.lying_flush = lying_flush).unwrap();
    let mut judge = Judge::default();
    let mut tell = |event: Event| judge.event(event.to_string().parse().unwrap()).unwrap();
    for (step, id) in steps.iter().chain([&Step::Cut { seed: last_seed }]).zip(1..) {
        let done = Event::Ok { id, contents: Vec::new() };
        match *step {
            Step::Write { start, count, fua } => {
                tell(Event::Write { id, sectors: start..start + count, fua });
                let mut buf = vec![0; count as usize * SECTOR];
                (start..)
                    .zip(buf.chunks_mut(SECTOR))
                    .for_each(|(sector, bytes)| pattern::fill(bytes, sector, id));
                power.request("disk", |disk| disk.write(&buf, start * SECTOR as u64, fua)).unwrap();
                tell(done);
            }
            Step::Flush => {
                tell(Event::Flush { id });
                power.request("disk", |disk| disk.flush()).unwrap();
                tell(done);
            }
            Step::Read { sector } => {
                tell(Event::Read { id, sectors: sector..sector + 1 });
                tell(Event::Ok { id, contents: vec![found(&power, sector)] });
            }
            Step::Cut { seed } => {
                power.cut(seed, Duration::ZERO).unwrap();
                power.on();
                tell(Event::Cut);
            }
        }
    }
    (judge, power)
}

fn found(power: &Power<Vec<u8>>, sector: u64) -> Content {
    let mut buf = [0; SECTOR];
    power.request("disk", |disk| disk.read(&mut buf, sector * SECTOR as u64)).unwrap();
    pattern::identify(&buf, sector)
}

proptest! {
    #[test]
    fn an_honest_disk_passes(steps in prop::collection::vec(step(), 0..80), seed: u64) {
        let (mut judge, power) = witnessed(&steps, false, seed);
        (0..SECTORS).for_each(|sector| judge.look(sector, found(&power, sector)));
        prop_assert!(judge.verdict().wrong.is_empty(), "{}", judge.verdict());
        prop_assert!(judge.verdict().judged >= SECTORS);
    }

    #[test]
    fn a_write_older_than_a_flushed_one_is_caught(
        steps in prop::collection::vec(step(), 0..40),
        sector in 0..SECTORS,
        seed: u64,
    ) {
        let write = Step::Write { start: sector, count: 1, fua: false };
        let steps = [&steps[..], &[write.clone(), write, Step::Flush]].concat();
        let (mut judge, _) = witnessed(&steps, false, seed);
        let flushed = steps.len() as u64 - 1;
        judge.look(sector, Content::Write(flushed));
        prop_assert!(judge.verdict().wrong.is_empty(), "{}", judge.verdict());
        judge.look(sector, Content::Write(flushed - 1));
        prop_assert_eq!(judge.verdict().wrong.len(), 1);
    }

    #[test]
    fn an_event_is_read_back_as_it_was_written(id in 1..u64::MAX, start in 0..1u64 << 50, other: u64, bytes: [u8; 8]) {
        let (sectors, foreign) = (start..start + 9, Content::Foreign(bytes));
        let contents = vec![Content::Write(other), Content::Misplaced { sector: start, id }, foreign];
        for event in [
            Event::Write { id, sectors: sectors.clone(), fua: start % 2 == 0 },
            Event::Flush { id }, Event::Read { id, sectors }, Event::Ok { id, contents },
            Event::Error { id, errno: 5 }, Event::Reset, Event::Cut,
        ] {
            prop_assert_eq!(event.to_string().parse::<Event>().unwrap(), event);
        }
    }

    #[test]
    fn a_sector_tells_what_it_is(sector: u64, id in 1..u64::MAX, other: u64, at in 0..SECTOR, flip in 1..=255u8) {
        let mut bytes = [0; SECTOR];
        pattern::fill(&mut bytes, sector, id);
        prop_assert_eq!(pattern::identify(&bytes, sector), Content::Write(id));
        if other != sector {
            prop_assert_eq!(pattern::identify(&bytes, other), Content::Misplaced { sector, id });
        }
        bytes[at] ^= flip;
        prop_assert!(matches!(pattern::identify(&bytes, sector), Content::Foreign(_)));
    }
}

#[test]
fn a_lying_disk_is_found_out() {
    let write = |start| Step::Write { start, count: 1, fua: start % 2 == 0 };
    let steps: Vec<_> = (0..SECTORS).map(write).chain([Step::Flush]).collect();
    let (mut judge, power) = witnessed(&steps, true, 1);
    (0..SECTORS).for_each(|sector| judge.look(sector, found(&power, sector)));
    assert!(!judge.verdict().wrong.is_empty());
}

/// On a file, which takes O_DIRECT and RWF_DSYNC as a block device does.
#[test]
fn the_workload_judges_itself_right_and_an_exchanged_sector_wrong() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![0; 1024 * SECTOR]).unwrap();
    let mut judge = Judge::default();
    let (mut fua, mut flushes) = (0, 0);
    let mut emit = |event: &Event| {
        fua += u64::from(matches!(event, Event::Write { fua: true, .. }));
        flushes += u64::from(matches!(event, Event::Flush { .. }));
        judge.event(event.clone()).map_err(std::io::Error::other)
    };
    let workload = Workload {
        seed: 1,
        requests: 400,
        sectors: 0..1024,
        block: 8,
        threads: 4,
        syncs: true,
        first_id: 1,
    };
    workload::run(&path, &workload, &mut emit).unwrap();
    workload::read_back(&path, 0..1024, 8, 1000, &mut emit).unwrap();
    assert!(fua > 40 && flushes > 20, "{fua} FUA writes, {flushes} flushes");
    assert!(
        judge.verdict().wrong.is_empty() && judge.verdict().judged > 1024,
        "{}",
        judge.verdict()
    );

    exchange(&path, 16, 17);
    let mut again = |event: &Event| judge.event(event.clone()).map_err(std::io::Error::other);
    workload::read_back(&path, 0..1024, 8, 2000, &mut again).unwrap();
    let wrong: Vec<_> = judge.verdict().wrong.iter().map(|wrong| wrong.sector).collect();
    assert_eq!(wrong, [16, 17]);
}

fn exchange(path: &Path, a: u64, b: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let read = |sector| {
        let mut bytes = [0; SECTOR];
        file.read_exact_at(&mut bytes, sector * SECTOR as u64).unwrap();
        bytes
    };
    let (in_a, in_b) = (read(a), read(b));
    file.write_all_at(&in_a, b * SECTOR as u64).unwrap();
    file.write_all_at(&in_b, a * SECTOR as u64).unwrap();
}
