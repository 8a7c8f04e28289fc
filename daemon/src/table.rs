//! The table: which sectors of the mapped device are mapped or poisoned, and which sectors of the
//! spare must never be used again. It is what the metadata makes durable and the kernel looks in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::{Sector, Sectors, Slot};

/// What an extent is; see `enum dm_remap_kind` in the protocol's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Mapped(Slot),
    PoisonData,
    PoisonSlot(Slot),
}

impl Kind {
    /// The sectors of the spare that the extent occupies begin here.
    pub fn slot(self) -> Option<Slot> {
        match self {
            Kind::Mapped(slot) | Kind::PoisonSlot(slot) => Some(slot),
            Kind::PoisonData => None,
        }
    }

    /// The kind of the extent's remainder after its first `skip` sectors.
    fn advance(self, skip: Sectors) -> Kind {
        match self {
            Kind::Mapped(slot) => Kind::Mapped(slot + skip),
            Kind::PoisonData => Kind::PoisonData,
            Kind::PoisonSlot(slot) => Kind::PoisonSlot(slot + skip),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    pub start: Sector,
    pub len: Sectors,
    pub kind: Kind,
}

impl Extent {
    pub fn end(&self) -> Sector {
        self.start + self.len
    }
}

/// One durable change of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The range becomes this; sectors of the spare that it occupied before, and occupies no
    /// longer, are retired.
    Set(Extent),
    /// The range is on the data device again. Its slots are free at the next start only, because
    /// an installed slot is not reused while its instance lives.
    Clear { start: Sector, len: Sectors },
    /// A slot that failed.
    Retire { slot: Slot, len: Sectors },
}

/// Extents never overlap; neither do retired ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    extents: BTreeMap<Sector, (Sectors, Kind)>,
    retired: BTreeMap<Slot, Sectors>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.extents.len()
    }

    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// In rising order of start.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.extents.iter().map(|(&start, &(len, kind))| Extent { start, len, kind })
    }

    /// In rising order; neighbours are joined.
    pub fn retired(&self) -> impl Iterator<Item = (Slot, Sectors)> + '_ {
        self.retired.iter().map(|(&slot, &len)| (slot, len))
    }

    /// The parts of the extents that lie in `start..start + len`, in rising order.
    pub fn overlapping(&self, start: Sector, len: Sectors) -> impl Iterator<Item = Extent> + '_ {
        let end = start + len;
        let first = match self.extents.range(..=start).next_back() {
            Some((&s, &(l, _))) if s + l > start => s,
            _ => start,
        };
        self.extents.range(first..end.max(first)).map(move |(&s, &(l, kind))| {
            let from = s.max(start);
            Extent { start: from, len: (s + l).min(end) - from, kind: kind.advance(from - s) }
        })
    }

    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::Set(extent) => {
                for old in self.cut(extent.start, extent.len) {
                    if let Some(slot) = old.kind.slot() {
                        let kept = extent.kind.slot().map(|s| s + (old.start - extent.start));
                        if kept != Some(slot) {
                            self.retire(slot, old.len);
                        }
                    }
                }
                self.extents.insert(extent.start, (extent.len, extent.kind));
            }
            Change::Clear { start, len } => {
                self.cut(start, len);
            }
            Change::Retire { slot, len } => self.retire(slot, len),
        }
    }

    /// Takes the range out of the extents and returns what was there.
    fn cut(&mut self, start: Sector, len: Sectors) -> Vec<Extent> {
        let end = start + len;
        let taken: Vec<Extent> = self.overlapping(start, len).collect();
        for part in &taken {
            let (&whole, &(whole_len, kind)) = match self.extents.range(..=part.start).next_back() {
                Some(found) => found,
                None => continue,
            };
            let whole_end = whole + whole_len;
            self.extents.remove(&whole);
            if whole < start {
                self.extents.insert(whole, (start - whole, kind));
            }
            if whole_end > end {
                self.extents.insert(end, (whole_end - end, kind.advance(end - whole)));
            }
        }
        taken
    }

    fn retire(&mut self, slot: Slot, len: Sectors) {
        let (mut from, mut to) = (slot, slot + len);
        while let Some((&s, &l)) = self.retired.range(..=to).next_back() {
            if s + l < from {
                break;
            }
            self.retired.remove(&s);
            from = from.min(s);
            to = to.max(s + l);
        }
        self.retired.insert(from, to - from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(start: u64, len: u64, slot: u64) -> Extent {
        Extent { start: Sector(start), len: Sectors(len), kind: Kind::Mapped(Slot(slot)) }
    }

    #[test]
    fn setting_inside_an_extent_splits_it_and_retires_the_old_slot() {
        let mut table = Table::default();
        table.apply(&Change::Set(mapped(1000, 8, 64)));
        table.apply(&Change::Set(mapped(1002, 2, 128)));
        let extents: Vec<_> = table.extents().collect();
        assert_eq!(extents, [mapped(1000, 2, 64), mapped(1002, 2, 128), mapped(1004, 4, 68)]);
        assert_eq!(table.retired().collect::<Vec<_>>(), [(Slot(66), Sectors(2))]);
    }

    #[test]
    fn poisoning_a_slot_keeps_it_and_healing_retires_it() {
        let mut table = Table::default();
        table.apply(&Change::Set(mapped(8, 8, 64)));
        let poison = Extent { kind: Kind::PoisonSlot(Slot(65)), ..mapped(9, 1, 0) };
        table.apply(&Change::Set(poison));
        assert_eq!(table.retired().count(), 0);
        table.apply(&Change::Set(mapped(9, 1, 72)));
        assert_eq!(table.retired().collect::<Vec<_>>(), [(Slot(65), Sectors(1))]);
    }

    #[test]
    fn clearing_frees_without_retiring_and_neighbouring_retired_ranges_join() {
        let mut table = Table::default();
        table.apply(&Change::Set(mapped(0, 16, 64)));
        table.apply(&Change::Clear { start: Sector(4), len: Sectors(8) });
        assert_eq!(table.extents().collect::<Vec<_>>(), [mapped(0, 4, 64), mapped(12, 4, 76)]);
        table.apply(&Change::Retire { slot: Slot(200), len: Sectors(8) });
        table.apply(&Change::Retire { slot: Slot(216), len: Sectors(8) });
        table.apply(&Change::Retire { slot: Slot(208), len: Sectors(8) });
        assert_eq!(table.retired().collect::<Vec<_>>(), [(Slot(200), Sectors(24))]);
    }
}
