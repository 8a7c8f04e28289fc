//! The two disks, as cells: one sector of data, and of the spare two slots, the log and the superblock.
//!
//! A cell has what a read returns and what a power cut leaves. A write sits in the cache until a flush that was
//! sent after it. A flush that fails dooms any part of the cache: that still reads, no later flush makes it durable,
//! and a power cut may or may not leave it (the worst of what `metadata::Disk` allows).

/// What a slot has before anything was written to it: bytes that nobody wrote.
pub const JUNK: u8 = 7;
pub const SLOTS: usize = 2;
/// Records since the format: a superblock and a checkpoint are one cell, and the log is never reused here.
pub const LOG: usize = 6;

/// What the one range is: `enum dm_remap_kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    Direct,
    Mapped(u8),
    PoisonData,
    PoisonSlot(u8),
}

impl Extent {
    pub fn slot(self) -> Option<u8> {
        match self {
            Extent::Mapped(slot) | Extent::PoisonSlot(slot) => Some(slot),
            Extent::Direct | Extent::PoisonData => None,
        }
    }

    pub fn is_poison(self) -> bool {
        matches!(self, Extent::PoisonData | Extent::PoisonSlot(_))
    }

    /// Where a sound range is read from and written to.
    pub fn dest(self) -> At {
        self.slot().map_or(At::Data, At::Slot)
    }
}

/// A commit's record (`metadata::record`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    pub epoch: u8,
    /// Of the superblock it was written under.
    pub number: u8,
    pub extent: Option<Extent>,
    pub retire: u8,
}

/// The superblock with its checkpoint, which puts all up to `sequence` in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Super {
    pub epoch: u8,
    pub number: u8,
    pub sequence: u8,
    pub table: Extent,
    pub retired: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    Data,
    Slot(u8),
}

/// A set of cells: bit 0 the data, then the slots, the log, the superblock.
pub type Cells = u16;
const DATA: Cells = 1;
const fn slot(n: u8) -> Cells {
    2 << n
}
const fn record(sequence: u8) -> Cells {
    1 << (SLOTS + sequence as usize)
}
const SUPER: Cells = 1 << (SLOTS + LOG + 1);

/// Whose flush it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    Application,
    Daemon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Image {
    data: u8,
    slots: [u8; SLOTS],
    log: [Option<Record>; LOG],
    sup: Super,
}

impl Image {
    fn copy(&mut self, from: &Image, cells: Cells) {
        if cells & DATA != 0 {
            self.data = from.data;
        }
        for n in 0..SLOTS {
            if cells & slot(n as u8) != 0 {
                self.slots[n] = from.slots[n];
            }
        }
        for n in 0..LOG {
            if cells & record(n as u8 + 1) != 0 {
                self.log[n] = from.log[n];
            }
        }
        if cells & SUPER != 0 {
            self.sup = from.sup;
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disks {
    live: Image,
    durable: Image,
    /// In the cache; to be made durable by a flush.
    dirty: Cells,
    /// A flush that failed has forgotten them.
    doomed: Cells,
    /// What a flush under way covers, by [`Whose`].
    covers: [Cells; 2],
    pub data_bad: bool,
    /// It cannot be read until it is written, which the disk takes.
    pub data_weak: bool,
    pub slot_bad: u8,
}

impl Disks {
    /// After `metadata::format`.
    pub fn formatted() -> Disks {
        let sup = Super { epoch: 0, number: 0, sequence: 0, table: Extent::Direct, retired: 0 };
        let image = Image { data: 0, slots: [JUNK; SLOTS], log: [None; LOG], sup };
        Disks {
            live: image,
            durable: image,
            dirty: 0,
            doomed: 0,
            covers: [0; 2],
            data_bad: false,
            data_weak: false,
            slot_bad: 0,
        }
    }

    fn wrote(&mut self, cell: Cells, through: bool) {
        self.doomed &= !cell;
        self.covers.iter_mut().for_each(|covers| *covers &= !cell);
        if through {
            self.dirty &= !cell;
            let live = self.live;
            self.durable.copy(&live, cell);
        } else {
            self.dirty |= cell;
        }
    }

    pub fn write(&mut self, at: At, value: u8, fua: bool) {
        match at {
            At::Data => {
                self.live.data = value;
                self.data_weak = false;
            }
            At::Slot(n) => self.live.slots[usize::from(n)] = value,
        }
        self.wrote(cell(at), fua);
    }

    pub fn read(&self, at: At) -> u8 {
        match at {
            At::Data => self.live.data,
            At::Slot(n) => self.live.slots[usize::from(n)],
        }
    }

    pub fn is_bad(&self, at: At) -> bool {
        match at {
            At::Data => self.data_bad,
            At::Slot(n) => self.slot_bad >> n & 1 != 0,
        }
    }

    pub fn is_unreadable(&self, at: At) -> bool {
        self.is_bad(at) || at == At::Data && self.data_weak
    }

    pub fn write_record(&mut self, sequence: u8, what: Record) {
        self.live.log[usize::from(sequence) - 1] = Some(what);
        self.wrote(record(sequence), false);
    }

    pub fn write_super(&mut self, sup: Super) {
        self.live.sup = sup;
        self.wrote(SUPER, false);
    }

    pub fn sup(&self) -> Super {
        self.live.sup
    }

    pub fn record(&self, sequence: u8) -> Option<Record> {
        self.live.log.get(usize::from(sequence) - 1).copied().flatten()
    }

    pub fn flush_sent(&mut self, whose: Whose) {
        self.covers[whose as usize] = match whose {
            Whose::Application => self.dirty,
            Whose::Daemon => self.dirty & !DATA,
        };
    }

    pub fn flushed(&mut self, whose: Whose) {
        let cells = std::mem::take(&mut self.covers[whose as usize]);
        let live = self.live;
        self.durable.copy(&live, cells);
        self.dirty &= !cells;
        self.covers.iter_mut().for_each(|covers| *covers &= !cells);
    }

    /// A flush of the spare fails, and dooms these. The data disk's, which goes with an application's, is good.
    pub fn flush_failed(&mut self, whose: Whose, lost: Cells) {
        let data = self.covers[whose as usize] & DATA;
        let live = self.live;
        self.durable.copy(&live, data);
        self.dirty &= !(data | lost);
        self.doomed |= lost;
        self.covers[whose as usize] = 0;
        self.covers.iter_mut().for_each(|covers| *covers &= !(data | lost));
    }

    /// What a flush that fails may doom.
    pub fn in_spare_cache(&self) -> Cells {
        self.dirty & !DATA
    }

    /// What a power cut may or may not leave.
    pub fn in_cache(&self) -> Cells {
        self.dirty | self.doomed
    }

    pub fn cut(&mut self, left: Cells) {
        let live = self.live;
        self.durable.copy(&live, left);
        self.live = self.durable;
        self.dirty = 0;
        self.doomed = 0;
        self.covers = [0; 2];
    }

    /// The daemon is gone; its flush may still end, and nobody learns of it.
    pub fn forget_flush(&mut self, whose: Whose) {
        self.covers[whose as usize] = 0;
    }
}

fn cell(at: At) -> Cells {
    match at {
        At::Data => DATA,
        At::Slot(n) => slot(n),
    }
}

/// Every part of `cells`, the empty one included.
pub fn parts(cells: Cells) -> impl Iterator<Item = Cells> {
    let mut next = Some(cells);
    std::iter::from_fn(move || {
        let part = next?;
        next = if part == 0 { None } else { Some((part - 1) & cells) };
        Some(part)
    })
}
