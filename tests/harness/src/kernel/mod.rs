//! The kernel's side, after `kmod/`: a file here for each there. Time, chance and disks are the
//! system's, so all of it is methods of [`Sys`].
//!
//! Its table has one cell a sector: slow, and obviously right.

mod bio;
mod fault;
mod flush;
mod hold;
mod issue;
mod list;
mod place;
mod request;
mod suspend;
mod target;
mod verdict;

use std::collections::VecDeque;

use dmremap_protocol::uapi::{FaultState, Status};
use dmremap_protocol::{Piece, SlotArea};

pub use target::{GARBAGE, fill};

pub use bio::{Bio, Failure, Flight, Io, IoKind, Reason, Slab, Sts, Why};

use crate::script::{Config, Which};
use crate::sys::{Ev, Sys};

/// A socket that is not the daemon's.
pub const RIVAL: u32 = 1;
pub const DM_DEV: u64 = 253 << 32;
pub const DATA_DEV: u64 = 8 << 32;
pub const SPARE_DEV: u64 = (8 << 32) | 16;

/// Of faults, as in `shim.h`.
const MAX_FAULTS: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Direct,
    Mapped(u64),
    PoisonData,
    PoisonSlot(u64),
}

impl Cell {
    fn advance(self, n: u64) -> Cell {
        match self {
            Cell::Mapped(slot) => Cell::Mapped(slot + n),
            Cell::PoisonSlot(slot) => Cell::PoisonSlot(slot + n),
            other => other,
        }
    }

    pub fn slot(self) -> Option<u64> {
        match self {
            Cell::Mapped(slot) | Cell::PoisonSlot(slot) => Some(slot),
            Cell::Direct | Cell::PoisonData => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Go,
    Fenced,
    Poisoned,
}

#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub what: What,
    pub dest: Which,
    pub sector: u64,
    pub len: u64,
}

#[derive(Debug)]
pub struct Fault {
    pub opened: u64,
    pub id: u64,
    pub start: u64,
    pub len: u64,
    pub state: FaultState,
    pub write: bool,
    pub held: bool,
    pub pinned: bool,
    pub fence: bool,
    pub heal: bool,
    pub status: Status,
    pub listed: bool,
    pub placing: bool,
    pub rest_failed: bool,
    pub installing: bool,
    pub bio: Option<usize>,
    pub pieces: Vec<Piece>,
}

impl Fault {
    pub fn overlaps(&self, start: u64, len: u64) -> bool {
        self.start < start + len && start < self.start + self.len
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspend {
    No,
    /// What is under way is waited for.
    Flushing {
        noflush: bool,
    },
    Done,
}

#[derive(Default, Debug, Clone, Copy)]
pub struct Counts {
    pub faults: u64,
    pub installs: u64,
    pub releases: u64,
    pub fails: u64,
    pub expired: u64,
    pub refused: u64,
    pub unowned: u64,
    pub passed: u64,
    pub poison_reads: u64,
    pub redone: u64,
    pub spare_flush_errors: u64,
}

pub struct Kernel {
    pub id: u32,
    pub on: bool,
    pub sectors: u64,
    pub block: u64,
    pub cells: Vec<Cell>,
    /// Whether an extent begins at a cell: neighbours stay two, even if one goes on where the other ends.
    begins: Vec<bool>,
    pub extents: u64,
    /// There were extents when the table was last published.
    pub mapped: bool,
    /// The request's allocation, counted from 1, that finds no memory; 0: none.
    pub memory_fails: u64,
    pub ready: bool,
    pub generation: u64,
    direct_generation: u64,
    pub owner: u32,
    pub commit: u64,
    /// Commits that it was told to install, however many records each took.
    pub commits: u64,
    pub slots: Option<SlotArea>,
    used: Vec<bool>,
    retired: Vec<bool>,
    loaded: u64,
    next_fault: u64,
    pub faults: Vec<Fault>,
    pub bios: Slab<Bio>,
    pub ios: Slab<Io>,
    pub flights: Slab<Flight>,
    parked: Vec<usize>,
    incoming: Vec<usize>,
    go: VecDeque<usize>,
    queue_unowned: bool,
    flush_owed: [bool; 2],
    pub flush_fails: [u64; 2],
    pub flush_bad: [bool; 2],
    /// The second: of those that a disk had taken before.
    pub held_bios: [u64; 2],
    held_sectors: [u64; 2],
    max_held: u64,
    hold_us: u64,
    ready_us: u64,
    bell: bool,
    /// The ring that is due; others were put off.
    ringing: u64,
    work_due: bool,
    send_due: bool,
    listing_due: bool,
    deadlines_due: bool,
    pub suspend: Suspend,
    resume_after: u64,
    new_hold_us: u64,
    /// Bios that wait for the end of a suspend: their I/O and range.
    deferred: VecDeque<(usize, u64, u64)>,
    pub counts: Counts,
}

impl Kernel {
    /// Nothing is under way, and it is not suspended.
    pub fn is_idle(&self) -> bool {
        self.on && self.bios.is_empty() && self.flights.is_empty() && self.suspend == Suspend::No
    }

    /// A new instance, which is not ready.
    pub fn new(id: u32, config: &Config) -> Kernel {
        Kernel {
            id,
            on: true,
            sectors: config.sectors,
            block: config.block,
            cells: vec![Cell::Direct; config.sectors as usize],
            begins: vec![false; config.sectors as usize],
            extents: 0,
            mapped: false,
            memory_fails: 0,
            ready: false,
            generation: 1,
            direct_generation: 0,
            owner: 0,
            commit: 0,
            commits: 0,
            slots: None,
            used: Vec::new(),
            retired: Vec::new(),
            loaded: 0,
            next_fault: 1,
            faults: Vec::new(),
            bios: Slab::default(),
            ios: Slab::default(),
            flights: Slab::default(),
            parked: Vec::new(),
            incoming: Vec::new(),
            go: VecDeque::new(),
            queue_unowned: config.queue_unowned,
            flush_owed: [false; 2],
            flush_fails: [0; 2],
            flush_bad: [false; 2],
            held_bios: [0, 0],
            held_sectors: [0, 0],
            max_held: config.max_held,
            hold_us: config.hold_ms * 1000,
            ready_us: config.ready_ms * 1000,
            bell: false,
            ringing: 0,
            work_due: false,
            send_due: false,
            listing_due: false,
            deadlines_due: false,
            suspend: Suspend::No,
            resume_after: 0,
            new_hold_us: config.hold_ms * 1000,
            deferred: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    fn find(&self, id: u64) -> Option<usize> {
        self.faults.iter().position(|f| f.id == id && f.listed)
    }

    pub fn is_used(&self, slot: u64, len: u64) -> bool {
        let first = (slot - self.area_start()) as usize;
        self.used[first..first + len as usize].iter().any(|&used| used)
    }

    fn area_start(&self) -> u64 {
        self.slots.map_or(0, |area| area.start)
    }

    fn unit(&self) -> u64 {
        self.slots.map_or(8, |area| u64::from(area.unit))
    }

    fn mark(&mut self, slot: u64, len: u64, set: bool, retired: bool) {
        let first = (slot - self.area_start()) as usize;
        let bits = if retired { &mut self.retired } else { &mut self.used };
        bits[first..first + len as usize].fill(set);
    }

    /// The range becomes one extent, or direct.
    fn set(&mut self, start: u64, len: u64, cell: Cell) {
        let end = start + len;
        for sector in start..end {
            self.cells[sector as usize] = cell.advance(sector - start);
            self.begin(sector, false);
        }
        self.begin(start, cell != Cell::Direct);
        // What it cuts off behind it.
        if self.cells.get(end as usize).is_some_and(|&cell| cell != Cell::Direct) {
            self.begin(end, true);
        }
    }

    fn begin(&mut self, sector: u64, begins: bool) {
        let old = std::mem::replace(&mut self.begins[sector as usize], begins);
        self.extents = self.extents + u64::from(begins) - u64::from(old);
    }

    /// The cell at a sector, and how far its extent, or what is direct, goes on.
    fn run(&self, sector: u64, most: u64) -> (Cell, u64) {
        let cell = self.cells[sector as usize];
        let same = |&n: &u64| {
            let at = (sector + n) as usize;
            self.cells[at] == cell.advance(n) && !self.begins[at]
        };
        (cell, 1 + (1..most).take_while(same).count() as u64)
    }
}

/// How late work in a queue begins, in microseconds.
impl Sys {
    fn soon(&mut self) -> u64 {
        if self.steady {
            return 1;
        }
        match self.rng.below(20) {
            0 => self.rng.range(500, 20_000),
            _ => self.rng.range(1, 100),
        }
    }

    pub(crate) fn kernel_event(&mut self, event: Ev) {
        match event {
            Ev::Work => {
                self.k.work_due = false;
                self.work();
            }
            Ev::Send => {
                self.k.send_due = false;
                self.send();
            }
            Ev::Listing => {
                self.k.listing_due = false;
                self.listing();
            }
            Ev::Deadlines => {
                self.k.deadlines_due = false;
                self.end_holds();
                if self.k.held_bios != [0, 0] {
                    self.queue_deadlines();
                }
            }
            Ev::Bell(ring) => self.doorbell(ring),
            Ev::Operate(fault) => self.operate(fault),
            Ev::Io(flight) => self.landed(flight),
            Ev::Resume => self.resume(),
            Ev::Made => self.switch_on(),
            Ev::RivalLeaves => self.rival_leaves(),
            _ => {}
        }
    }
}
