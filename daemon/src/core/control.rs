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
    use super::*;
    use crate::table::{Change, Extent, Kind};

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
        for span in first.spans {
            let At::Data(at) = span.at else { panic!("not on the data device") };
            assert!((900..1000).contains(&at.0) || at.0 >= 1608, "{at}");
            assert_eq!((at.0 % 8, span.len), (0, block));
        }
    }

    #[test]
    fn damage_all_around_is_a_wall_and_the_end_of_the_device_is_not() {
        let mut table = Table::default();
        let (kind, block) = (Kind::PoisonData, Sectors(1));
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
