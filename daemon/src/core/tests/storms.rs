//! Where the breaker draws its line: damage is mapped at any rate, a storm is not.

use std::collections::BTreeSet;

use super::model::World;
use crate::core::Alarm;
use crate::core::event::Area;
use crate::units::{Sectors, Slot};

const DEVICE: u64 = 1 << 18;

/// 4 KiB writes to each of the places, as many at a time as the queue is deep.
fn write_all(world: &mut World, places: &[u64], depth: usize) {
    for batch in places.chunks(depth) {
        for &at in batch {
            if !world.kernel.fenced(at, 8) {
                world.kernel.write(at, 8, None);
            }
        }
        world.settle();
    }
}

#[test]
fn two_hundred_runs_of_bad_sectors_are_mapped_without_an_error() {
    for (seed, depth) in [(1, 32), (2, 1), (3, 32)] {
        let mut world = World::new(DEVICE, 1, seed);
        for _ in 0..200 {
            let (at, run) = (world.random(DEVICE - 64), 1 + world.random(64));
            world.kernel.bad_data.extend(at..at + run);
        }
        let touched: BTreeSet<u64> = world.kernel.bad_data.iter().map(|s| s / 8 * 8).collect();
        let places: Vec<u64> = touched.into_iter().collect();
        write_all(&mut world, &places, depth);
        assert_eq!(world.kernel.errors, 0, "seed {seed}, depth {depth}");
        let bad: Vec<u64> = world.kernel.bad_data.iter().copied().collect();
        let extents = world.kernel.table.extents();
        let mapped: Vec<u64> = extents.flat_map(|e| e.start.0..e.end().0).collect();
        assert_eq!(mapped, bad, "exactly the bad sectors are mapped");
    }
}

#[test]
fn fifty_thousand_bad_sectors_in_a_row_are_a_storm() {
    for (depth, backwards) in [(32, false), (1, false), (32, true)] {
        let mut world = World::new(DEVICE, 1, 4);
        world.kernel.bad_data = (100_000..150_000).collect();
        let mut places: Vec<u64> = (100_000..150_000).step_by(8).collect();
        if backwards {
            places.reverse();
        }
        write_all(&mut world, &places, depth);
        assert!(world.kernel.table.len() <= 64, "{} mappings", world.kernel.table.len());
        assert_eq!(world.kernel.errors, 6250 - world.kernel.table.len() as u64);
        assert_eq!(world.alarms, [Alarm::Storm]);
    }
}

#[test]
fn a_silent_disk_gets_no_mapping_and_service_resumes_when_it_answers() {
    let mut world = World::new(DEVICE, 1, 5);
    world.kernel.silent = true;
    let places: Vec<u64> = (0..DEVICE).step_by(8).collect();
    write_all(&mut world, &places[..10_000], 32);
    assert_eq!((world.kernel.table.len(), world.kernel.errors), (0, 10_000));
    assert_eq!(world.alarms, [Alarm::Storm]);

    world.kernel.silent = false;
    world.kernel.bad_data = [5000, 9000].into();
    world.now += std::time::Duration::from_secs(1);
    write_all(&mut world, &[5000, 9000], 1);
    assert_eq!((world.kernel.table.len(), world.kernel.errors), (2, 10_000));
    assert_eq!(world.alarms, [Alarm::Storm, Alarm::StormOver]);
}

#[test]
fn a_full_spare_raises_one_alarm_and_keeps_what_it_has() {
    let area = Area { start: Slot(64), len: Sectors(80), unit: Sectors(8) };
    let mut world = World::on(area, DEVICE, 1, 6);
    let places: Vec<u64> = (0..20).map(|i| 10_000 * i).collect();
    world.kernel.bad_data = places.iter().copied().collect();
    write_all(&mut world, &places, 4);
    assert_eq!((world.kernel.table.len(), world.kernel.errors), (10, 10));
    assert_eq!(world.alarms, [Alarm::SpareLow, Alarm::SpareFull]);
}

#[test]
fn a_full_log_is_tried_again_after_a_pause() {
    let mut world = World::new(DEVICE, 1, 7);
    world.kernel.bad_data = [8, 80].into();
    world.log_full = true;
    write_all(&mut world, &[8], 1);
    assert_eq!((world.kernel.table.len(), world.kernel.errors), (0, 1));
    world.log_full = false;
    world.now += std::time::Duration::from_secs(10);
    write_all(&mut world, &[80], 1);
    assert_eq!((world.kernel.table.len(), world.kernel.errors), (1, 1));
}
