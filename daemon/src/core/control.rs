//! Where to read to see whether a device answers elsewhere than at a fault; see
//! [`breaker`](super::breaker) for what follows from it.

use super::breaker::Control;
use super::event::{At, Span, Status};
use crate::table::Table;
use crate::units::{Sector, Sectors};

/// The nearest of the near places: as far off as the longest run of bad sectors that we expect.
const NEAR: u64 = 64;
/// A place that turns out to be known damage is passed over, this often.
const TRIES: u64 = 16;

/// What to read, and how to judge it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The near ones first.
    pub spans: Vec<Span>,
    near: usize,
    /// On a side where the device has room, all of it is damage already.
    walled: bool,
}

impl Places {
    pub fn judge(&self, results: &[Status]) -> Control {
        let ok = |status: &Status| *status == Status::Ok;
        if !results.iter().any(ok) {
            Control::Silent
        } else if !self.walled && results.iter().take(self.near).all(ok) {
            Control::Proved
        } else {
            Control::Unproved
        }
    }
}

/// Places on the data device that share no sector with `start..start + len`, an extent or one of
/// the `suspects`: two near ones, where the device has room, then two far ones.
#[derive(Debug)]
pub struct DataPlaces<'a> {
    pub table: &'a Table,
    pub suspects: &'a [(Sector, Sectors)],
    pub size: Sectors,
    pub block: Sectors,
}

impl DataPlaces<'_> {
    pub fn pick(&self, start: Sector, len: Sectors, seed: &mut u64) -> Places {
        let mut places = Places::default();
        for behind in [false, true] {
            let step = NEAR * (1 + next(seed) % 8);
            let place = |n: u64| {
                let off = step + n * NEAR;
                if behind { Some(start.0 + len.0 + off) } else { start.0.checked_sub(off) }
            };
            let found = (0..TRIES).filter_map(place).find_map(|at| self.sound(at));
            let room = place(0).is_some_and(|at| at + self.block.0 <= self.size.0);
            places.walled |= room && found.is_none();
            places.spans.extend(found);
        }
        places.near = places.spans.len();
        let blocks = (self.size.0 / self.block.0).max(1);
        for _ in 0..2 {
            let found = (0..TRIES).find_map(|_| {
                let at = next(seed) % blocks * self.block.0;
                let apart = at + self.block.0 <= start.0 || at >= start.0 + len.0;
                if apart { self.sound(at) } else { None }
            });
            places.spans.extend(found);
        }
        places
    }

    fn sound(&self, at: u64) -> Option<Span> {
        let at = Sector(at / self.block.0 * self.block.0);
        let end = at + self.block;
        let sound = end.0 <= self.size.0
            && self.table.overlapping(at, self.block).next().is_none()
            && !self.suspects.iter().any(|&(s, l)| s < end && at < s + l);
        sound.then_some(Span { at: At::Data(at), len: self.block })
    }
}

/// Places on the spare. Slots have no neighbourhood: damage there only costs slots.
pub fn spare_places(spans: Vec<Span>) -> Places {
    Places { spans, ..Places::default() }
}

/// SplitMix64: spreads the places and repeats itself in every replay.
pub(super) fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::table::{Change, Extent, Kind};

    fn sectors(places: &Places) -> Vec<u64> {
        let sector = |span: &Span| match span.at {
            At::Data(at) => at.0,
            At::Spare(slot) => panic!("{slot:?} is not on the data device"),
        };
        places.spans.iter().map(sector).collect()
    }

    #[test]
    fn places_are_fresh_apart_from_the_fault_and_never_known_damage() {
        let mut table = Table::default();
        let kind = Kind::PoisonData;
        table.apply(&Change::Set(Extent { start: Sector(0), len: Sectors(900), kind }));
        let suspects = [(Sector(1008), Sectors(600))];
        let block = Sectors(8);
        let places = DataPlaces { table: &table, suspects: &suspects, size: Sectors(4096), block };
        let mut seed = 1;
        let first = places.pick(Sector(1000), Sectors(8), &mut seed);
        assert_ne!(first, places.pick(Sector(1000), Sectors(8), &mut seed));
        for at in sectors(&first) {
            assert!((900..1000).contains(&at) || at >= 1608, "{at}");
            assert_eq!(at % 8, 0);
        }
        assert!(first.spans.iter().all(|span| span.len == block));
    }

    #[test]
    fn one_is_near_on_each_side_and_two_are_anywhere() {
        let (table, size, block) = (Table::default(), Sectors(1 << 20), Sectors(8));
        let places = DataPlaces { table: &table, suspects: &[], size, block };
        let (start, len) = (Sector(1 << 19), Sectors(64));
        let mut seed = 1;
        let (mut steps, mut regions) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..400 {
            let places = places.pick(start, len, &mut seed);
            assert_eq!((places.near, places.walled, places.spans.len()), (2, false, 4));
            let at = sectors(&places);
            steps.extend([start.0 - at[0], at[1] - (start.0 + len.0)]);
            for far in &at[2..] {
                assert_eq!((far % 8, *far < size.0), (0, true), "{far}");
                regions.insert(far / (size.0 / 16));
            }
        }
        assert_eq!(steps, (1..=8).map(|n| n * NEAR).collect());
        assert_eq!(regions.len(), 16);
    }

    #[test]
    fn far_ones_are_apart_from_the_fault_and_may_touch_it() {
        let (table, size, block) = (Table::default(), Sectors(24), Sectors(8));
        let places = DataPlaces { table: &table, suspects: &[], size, block };
        let mut seen = BTreeSet::new();
        let mut seed = 1;
        for _ in 0..200 {
            let places = places.pick(Sector(8), Sectors(8), &mut seed);
            // There is no room for near ones, which is no wall.
            assert_eq!((places.near, places.walled), (0, false));
            seen.extend(sectors(&places));
        }
        assert_eq!(seen, [0, 16].into());
    }

    #[test]
    fn a_near_one_next_to_a_suspect_will_do_and_one_inside_goes_on() {
        let (table, size, block) = (Table::default(), Sectors(1 << 20), Sectors(1));
        // The near place behind the fault.
        let behind = |suspects: &[(Sector, Sectors)]| {
            let places = DataPlaces { table: &table, suspects, size, block };
            sectors(&places.pick(Sector(10_000), Sectors(10), &mut 1))[1]
        };
        let first = behind(&[]);
        assert_eq!(
            behind(&[(Sector(first - 5), Sectors(5)), (Sector(first + 1), Sectors(5))]),
            first
        );
        assert_eq!(behind(&[(Sector(first), Sectors(1))]), first + NEAR);
        assert_eq!(behind(&[(Sector(first - 5), Sectors(6))]), first + NEAR);
    }

    #[test]
    fn the_generator_is_splitmix64() {
        let mut seed = 1_234_567;
        let drawn: Vec<u64> = (0..3).map(|_| next(&mut seed)).collect();
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(drawn, published);
    }

    #[test]
    fn damage_all_around_is_a_wall_and_the_end_of_the_device_is_not() {
        let mut table = Table::default();
        let (kind, block) = (Kind::PoisonData, Sectors(8));
        table.apply(&Change::Set(Extent { start: Sector(0), len: Sectors(4000), kind }));
        let places = DataPlaces { table: &table, suspects: &[], size: Sectors(9000), block };
        assert!(places.pick(Sector(4000), Sectors(8), &mut 1).walled);
        assert!(!places.pick(Sector(8990), Sectors(8), &mut 1).walled);
    }

    #[test]
    fn silence_is_not_damage_and_a_bad_neighbour_is_no_proof() {
        use Status::{IoErr, Medium, Ok, Other};
        let open = Places { near: 2, ..Places::default() };
        assert_eq!(open.judge(&[IoErr, Other, IoErr, Medium]), Control::Silent);
        assert_eq!(open.judge(&[Ok, Medium, Ok, Ok]), Control::Unproved);
        assert_eq!(open.judge(&[Ok, Ok, IoErr, Ok]), Control::Proved);
        assert_eq!(Places::default().judge(&[]), Control::Silent);
        assert_eq!(Places { walled: true, ..open }.judge(&[Ok; 4]), Control::Unproved);
    }
}
