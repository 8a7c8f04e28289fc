//! Slots. A run that was handed out is never handed out again while this value lives, whatever
//! becomes of it; after a restart the table says what is in use or retired.

use std::collections::BTreeMap;

use serde::Serialize;

use super::control::{Places, next, spare_places};
use super::event::{Area, At, Span};
use crate::table::Table;
use crate::units::{Sectors, Slot};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub used: Sectors,
    pub total: Sectors,
}

impl Usage {
    pub fn free_percent(self) -> u64 {
        (self.total - self.used).0 * 100 / self.total.0.max(1)
    }
}

#[derive(Debug, Clone)]
pub struct Spare {
    area: Area,
    /// Runs of whole units, apart from each other.
    free: BTreeMap<Slot, Sectors>,
    /// Their sum.
    room: Sectors,
    /// Allocation goes on from here: behind the highest slot in use, so that a restart finds the
    /// same place and what was given up is taken last.
    cursor: Slot,
}

impl Spare {
    pub fn new(area: Area, table: &Table) -> Spare {
        let free = BTreeMap::from([(area.start, area.len)]);
        let mut spare = Spare { area, free, room: area.len, cursor: area.start };
        let in_use = table.extents().filter_map(|e| Some((e.kind.slot()?, e.len)));
        for (slot, len) in in_use.chain(table.retired()) {
            spare.burn(slot, len);
        }
        spare
    }

    /// Takes every unit that the range touches out of the free ones.
    pub fn burn(&mut self, slot: Slot, len: Sectors) {
        let unit = self.area.unit.0;
        let start = Slot(slot.0 / unit * unit);
        let end = Slot((slot + len).0.div_ceil(unit) * unit);
        let mut at = end;
        while let Some((&run, &run_len)) = self.free.range(..at).next_back() {
            let run_end = run + run_len;
            if run_end <= start {
                break;
            }
            self.free.remove(&run);
            self.room = self.room - (run_end.min(end) - run.max(start));
            if run < start {
                self.free.insert(run, start - run);
            }
            if run_end > end {
                self.free.insert(end, run_end - end);
            }
            at = run;
        }
        self.cursor = self.cursor.max(end);
    }

    /// Slots for each of the lengths: one run a length where there is one, several otherwise.
    /// `None`, and nothing taken, when there is not enough.
    pub fn allocate(&mut self, lens: &[Sectors]) -> Option<Vec<Vec<(Slot, Sectors)>>> {
        let units = lens.iter().map(|len| len.round_up(self.area.unit));
        if units.fold(Sectors(0), |sum, len| sum + len) > self.room {
            return None;
        }
        lens.iter().map(|&len| self.one(len)).collect()
    }

    fn one(&mut self, len: Sectors) -> Option<Vec<(Slot, Sectors)>> {
        let mut left = len;
        let mut taken = Vec::new();
        while left > Sectors(0) {
            let (slot, room) = self.run(left.round_up(self.area.unit))?;
            let part = left.min(room);
            taken.push((slot, part));
            left = left - part;
            self.burn(slot, part);
        }
        Some(taken)
    }

    /// The next run of at least `want`, or the largest there is.
    fn run(&self, want: Sectors) -> Option<(Slot, Sectors)> {
        let all = || self.free.iter().map(|(&slot, &len)| (slot, len));
        let behind = self.free.range(self.cursor..).map(|(&slot, &len)| (slot, len));
        behind
            .chain(all())
            .find(|&(_, len)| len >= want)
            .or_else(|| all().reduce(|best, run| if run.1 > best.1 { run } else { best }))
    }

    pub fn is_full(&self) -> bool {
        self.room == Sectors(0)
    }

    /// Four to read, to see whether it answers: two are free, as what is in use may be known damage, and two anywhere, as
    /// the free ones may be few.
    pub fn places(&self, seed: &mut u64) -> Places {
        let unit = self.area.unit;
        let free = self.room.0 / unit.0;
        let units = (self.area.len.0 / unit.0).max(1);
        let place = |n| {
            let slot = match next(seed).checked_rem(free) {
                Some(at) if n < 2 => self.free_unit(at),
                _ => self.area.start + Sectors(next(seed) % units * unit.0),
            };
            Span { at: At::Spare(slot), len: unit }
        };
        spare_places((0..4).map(place).collect())
    }

    /// The free unit of that number, from 0.
    fn free_unit(&self, n: u64) -> Slot {
        let mut skip = Sectors(n * self.area.unit.0);
        for (&slot, &len) in &self.free {
            if skip < len {
                return slot + skip;
            }
            skip = skip - len;
        }
        self.area.start
    }

    pub fn usage(&self) -> Usage {
        Usage { used: self.area.len - self.room, total: self.area.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::ops::Range;

    use crate::table::{Change, Extent, Kind};
    use crate::units::Sector;

    const AREA: Area = Area { start: Slot(64), len: Sectors(64), unit: Sectors(8) };

    fn mapped(start: u64, len: u64, slot: u64) -> Change {
        let kind = Kind::Mapped(Slot(slot));
        Change::Set(Extent { start: Sector(start), len: Sectors(len), kind })
    }

    #[test]
    fn a_restart_goes_on_behind_the_highest_slot_and_takes_what_was_freed_last() {
        let mut table = Table::default();
        table.apply(&mapped(0, 3, 64));
        table.apply(&mapped(100, 8, 80));
        table.apply(&Change::Retire { slot: Slot(105), len: Sectors(1) });
        let mut spare = Spare::new(AREA, &table);
        assert_eq!(spare.usage(), Usage { used: Sectors(24), total: Sectors(64) });
        let slots = spare.allocate(&[Sectors(9), Sectors(1), Sectors(1)]).unwrap();
        assert_eq!(
            slots,
            [[(Slot(112), Sectors(9))], [(Slot(72), Sectors(1))], [(Slot(88), Sectors(1))]]
        );
    }

    fn spare_with(extents: [(u64, u64, u64); 2]) -> Spare {
        let mut table = Table::default();
        extents.iter().for_each(|&(start, len, slot)| table.apply(&mapped(start, len, slot)));
        Spare::new(AREA, &table)
    }

    #[test]
    fn what_is_used_leaves_no_empty_runs() {
        let spare = spare_with([(0, 24, 64), (100, 16, 112)]);
        assert_eq!(spare.free, [(Slot(88), Sectors(24))].into());
    }

    #[test]
    fn a_long_range_is_cut_when_no_run_is_long_enough_and_too_much_takes_nothing() {
        let mut spare = spare_with([(0, 24, 64), (100, 16, 104)]);
        assert_eq!(spare.allocate(&[Sectors(16), Sectors(9)]), None);
        let slots = spare.allocate(&[Sectors(20)]).unwrap();
        assert_eq!(slots, [[(Slot(88), Sectors(16)), (Slot(120), Sectors(4))]]);
        assert_eq!(spare.allocate(&[Sectors(1)]), None);
    }

    #[test]
    fn the_largest_run_comes_first_when_none_is_long_enough() {
        let mut spare = spare_with([(0, 8, 72), (100, 8, 96)]);
        assert_eq!(spare.usage().free_percent(), 75);
        let slots = spare.allocate(&[Sectors(32)]).unwrap();
        assert_eq!(slots, [[(Slot(104), Sectors(24)), (Slot(64), Sectors(8))]]);
    }

    #[test]
    fn it_is_read_where_it_is_free_and_anywhere() {
        let mut spare = spare_with([(0, 24, 64), (100, 16, 104)]);
        let read = |spare: &Spare, which: Range<usize>| {
            let spans = |seed: u64| spare.places(&mut (seed + 1)).spans[which.clone()].to_vec();
            let at = |span: Span| match span.at {
                At::Spare(slot) => (slot.0, span.len.0),
                At::Data(_) => panic!("on the data disk"),
            };
            (0..50).flat_map(spans).map(at).collect::<BTreeSet<_>>()
        };
        assert_eq!(read(&spare, 0..2), [(88, 8), (96, 8), (120, 8)].into());
        for anywhere in [read(&spare, 2..3), read(&spare, 3..4)] {
            assert_eq!(anywhere, (64..128).step_by(8).map(|slot| (slot, 8)).collect());
        }
        spare.burn(AREA.start, AREA.len);
        assert!(spare.is_full());
        assert_eq!(read(&spare, 0..2).len(), 8);
    }
}
