//! What a power cut may and may not do to a [`VolatileStore`], against a model that keeps, for each
//! sector, its last durable content and every write since.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dmremap_disks::SECTOR;
use dmremap_disks::volatile::{Loss, Power, VolatileStore};
use proptest::prelude::*;

const SECTORS: u64 = 16;
const DISKS: [&str; 2] = ["data", "spare"];

#[derive(Debug, Clone)]
enum Step {
    Write { disk: usize, start: u64, count: u64, fua: bool },
    Flush { disk: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let write =
        (0..2usize, 0..SECTORS, 1..5u64, any::<bool>()).prop_map(|(disk, start, count, fua)| {
            Step::Write {
                disk,
                start,
                count: count.min(SECTORS - start),
                fua: fua && start % 2 == 0,
            }
        });
    prop_oneof![6 => write, 1 => (0..2usize).prop_map(|disk| Step::Flush { disk })]
}

fn power() -> Power<Vec<u8>> {
    let disk = || VolatileStore::new(vec![0; SECTORS as usize * SECTOR], SECTORS);
    Power::new(DISKS.iter().map(|name| ((*name).to_owned(), disk())).collect())
}

/// A whole sector that says `id`.
fn content(id: u64) -> Vec<u8> {
    id.to_le_bytes().repeat(SECTOR / 8)
}

fn read(power: &Power<Vec<u8>>, disk: &str, sector: u64) -> std::io::Result<Vec<u8>> {
    let mut buf = vec![0; SECTOR];
    power.request(disk, |store| store.read(&mut buf, sector * SECTOR as u64))?;
    Ok(buf)
}

fn write(
    power: &Power<Vec<u8>>,
    disk: &str,
    sector: u64,
    buf: &[u8],
    fua: bool,
) -> std::io::Result<()> {
    power.request(disk, |store| store.write(buf, sector * SECTOR as u64, fua))
}

proptest! {
    #[test]
    fn a_cut_leaves_each_sector_admissible_and_drops_something(
        steps in prop::collection::vec(step(), 1..60),
        seed: u64,
    ) {
        let power = power();
        // The first is durable, the last is what a read returns.
        let mut model: BTreeMap<(usize, u64), Vec<u64>> = BTreeMap::new();
        for disk in 0..DISKS.len() {
            for sector in 0..SECTORS {
                model.insert((disk, sector), vec![0]);
            }
        }
        for (step, id) in steps.iter().zip(1..) {
            match *step {
                Step::Write { disk, start, count, fua } => {
                    write(&power, DISKS[disk], start, &content(id).repeat(count as usize), fua).unwrap();
                    for sector in start..start + count {
                        let versions = model.get_mut(&(disk, sector)).unwrap();
                        if fua { versions.clear() }
                        versions.push(id);
                    }
                }
                Step::Flush { disk } => {
                    power.request(DISKS[disk], |store| store.flush()).unwrap();
                    for sector in 0..SECTORS {
                        let versions = model.get_mut(&(disk, sector)).unwrap();
                        *versions = vec![*versions.last().unwrap()];
                    }
                }
            }
        }
        for ((disk, sector), versions) in &model {
            prop_assert_eq!(read(&power, DISKS[*disk], *sector).unwrap(), content(*versions.last().unwrap()));
        }
        let report = power.cut(seed, Duration::ZERO).unwrap();
        power.on();
        let mut losses = DISKS.map(|_| Loss::default());
        for ((disk, sector), versions) in &model {
            let after = read(&power, DISKS[*disk], *sector).unwrap();
            prop_assert!(versions.iter().any(|id| content(*id) == after), "{}: sector {sector}", DISKS[*disk]);
            losses[*disk].unflushed += usize::from(versions.len() > 1);
            losses[*disk].lost += usize::from(after != content(*versions.last().unwrap()));
        }
        prop_assert_eq!(DISKS.map(|name| report.disks[name]), losses);
        prop_assert!(report.total().unflushed == 0 || report.total().lost > 0);
        let durable: Vec<_> = DISKS.map(|disk| power.steer(disk, |store| store.medium().clone()).unwrap()).into();
        power.cut(seed.wrapping_add(1), Duration::ZERO).unwrap();
        let again: Vec<_> = DISKS.map(|disk| power.steer(disk, |store| store.medium().clone()).unwrap()).into();
        prop_assert_eq!(durable, again, "what a cut left is durable");
    }
}

#[test]
fn every_outcome_happens_and_a_seed_repeats_it() {
    let outcome = |seed| {
        let power = power();
        for id in [1, 2] {
            write(&power, "data", 0, &content(id).repeat(2), false).unwrap();
        }
        power.cut(seed, Duration::ZERO).unwrap();
        power.on();
        [0, 1].map(|sector| read(&power, "data", sector).unwrap()[0])
    };
    let seen: std::collections::BTreeSet<_> = (0..200).map(outcome).collect();
    let all = (0..3).flat_map(|a| (0..3).map(move |b| [a, b])).filter(|both| *both != [2, 2]);
    assert_eq!(seen, all.collect());
    assert_eq!(outcome(7), outcome(7));
}

#[test]
fn a_lying_flush_keeps_nothing_and_is_acknowledged() {
    let power = power();
    power.steer("data", |disk| disk.faults.lying_flush = true).unwrap();
    write(&power, "data", 0, &content(1), true).unwrap();
    power.request("data", |disk| disk.flush()).unwrap();
    assert_eq!(power.cut(1, Duration::ZERO).unwrap().total().lost, 1);
    power.on();
    assert_eq!(read(&power, "data", 0).unwrap(), content(0));
}

#[test]
fn a_failed_flush_makes_nothing_durable_and_the_next_one_does() {
    let power = power();
    power.steer("data", |disk| disk.faults.failing_flushes = 1).unwrap();
    write(&power, "data", 0, &content(1), false).unwrap();
    assert!(power.request("data", |disk| disk.flush()).is_err());
    assert_eq!(power.steer("data", |disk| disk.unflushed().count()).unwrap(), 1);
    power.request("data", |disk| disk.flush()).unwrap();
    assert_eq!(power.cut(1, Duration::ZERO).unwrap().total().unflushed, 0);
    let counters = power.steer("data", |disk| disk.counters()).unwrap();
    assert_eq!((counters.flushes, counters.flush_errors), (2, 1));
}

#[test]
fn a_failed_flush_that_loses_leaves_what_was_durable() {
    let power = power();
    write(&power, "data", 0, &content(1), true).unwrap();
    power
        .steer("data", |disk| {
            disk.faults.failing_flushes = 1;
            disk.faults.losing_flush = true;
        })
        .unwrap();
    write(&power, "data", 0, &content(2).repeat(2), false).unwrap();
    assert!(power.request("data", |disk| disk.flush()).is_err());
    assert_eq!(read(&power, "data", 0).unwrap(), content(1));
    assert_eq!(read(&power, "data", 1).unwrap(), content(0));
    write(&power, "data", 1, &content(3), false).unwrap();
    power.request("data", |disk| disk.flush()).unwrap();
    assert_eq!(power.cut(1, Duration::ZERO).unwrap().total().unflushed, 0);
}

#[test]
fn bad_sectors_fail_only_what_touches_them() {
    let power = power();
    power
        .steer("data", |disk| {
            disk.faults.bad_reads.add(4..8);
            disk.faults.bad_reads.clear(&(5..6));
            disk.faults.bad_writes.add(2..3);
        })
        .unwrap();
    let readable = |sector| read(&power, "data", sector).is_ok();
    assert_eq!((3..9).map(readable).collect::<Vec<_>>(), [true, false, true, false, false, true]);
    assert_eq!(
        write(&power, "data", 1, &content(9).repeat(3), true).unwrap_err().raw_os_error(),
        Some(5)
    );
    assert_eq!(
        read(&power, "data", 1).unwrap(),
        content(9),
        "the sector before the bad one was reached"
    );
    assert_eq!(read(&power, "data", 2).unwrap(), content(0));
    assert_eq!(read(&power, "data", 3).unwrap(), content(0));
}

#[test]
fn requests_outside_or_across_sectors_are_refused() {
    let power = power();
    assert!(write(&power, "data", SECTORS, &content(1), false).is_err());
    assert!(write(&power, "data", 0, &[1; 100], false).is_err());
    assert!(write(&power, "none", 0, &content(1), false).is_err());
    assert!(power.request("data", |disk| disk.read(&mut [0; SECTOR], u64::MAX - 511)).is_err());
}

/// A guest must not see an acknowledgement, nor an error, after the cut: both would be lines in its history
/// that a machine without power could not have written.
#[test]
fn a_request_after_the_cut_hangs_for_good() {
    let power = Arc::new(power());
    power.cut(0, Duration::ZERO).unwrap();
    let late = Arc::clone(&power);
    let late = std::thread::spawn(move || write(&late, "data", 0, &content(1), false));
    std::thread::sleep(Duration::from_millis(50));
    power.on();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!late.is_finished());
    assert_eq!(read(&power, "data", 0).unwrap(), content(0));
    write(&power, "data", 0, &content(2), false).unwrap();
}

/// Cuts under load once fell on disks that had just been flushed, more than one of four, and lost nothing.
#[test]
fn a_cut_waits_for_something_that_it_can_lose() {
    const LONG: Duration = Duration::from_secs(60);
    let power = power();
    write(&power, "data", 0, &content(1), true).unwrap();
    std::thread::scope(|scope| {
        let cut = scope.spawn(|| power.cut(0, LONG).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!cut.is_finished());
        write(&power, "data", 1, &content(2), true).unwrap();
        assert!(!cut.is_finished(), "what is durable cannot be lost");
        write(&power, "spare", 0, &content(3), false).unwrap();
        let lost = Loss { unflushed: 1, lost: 1 };
        assert_eq!(
            Vec::from_iter(cut.join().unwrap().disks.into_values()),
            [Loss::default(), lost]
        );
    });
}
