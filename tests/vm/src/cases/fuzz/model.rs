//! What the kernel side may do, from the words of `uapi/dm_remap.h` and nothing else: an instance that is claimed and
//! ready, whose only faults are fences.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Attrs, Piece, attr, command, kind};

pub const SECTORS: u64 = 131_072;
pub const SLOT_START: u64 = 64;
pub const SLOT_SECTORS: u64 = 122_880;
pub const UNIT: u64 = 8;
const MAX_FAULTS: usize = 512;

/// Start, slot, length and kind of an extent.
pub type Extent = (u64, u64, u64, u8);

#[derive(Default)]
struct Fence {
    start: u64,
    len: u64,
    placed: Option<Vec<Piece>>,
}

/// The table, the slots and the fences as they should be.
pub struct Model {
    pub instance: u32,
    pub commit: u64,
    next: u64,
    /// By start: slot, length, kind.
    extents: BTreeMap<u64, (u64, u64, u8)>,
    used: BTreeSet<u64>,
    retired: BTreeSet<u64>,
    fences: BTreeMap<u64, Fence>,
}

impl Model {
    pub fn new(instance: u32) -> Self {
        Self {
            instance,
            commit: 0,
            next: 1,
            extents: BTreeMap::new(),
            used: BTreeSet::new(),
            retired: BTreeSet::new(),
            fences: BTreeMap::new(),
        }
    }

    pub fn extents(&self) -> Vec<Extent> {
        self.extents.iter().map(|(&start, &(slot, len, kind))| (start, slot, len, kind)).collect()
    }

    /// Slot, length and kind of the extent that begins there.
    pub fn extent_at(&self, start: u64) -> Option<(u64, u64, u8)> {
        self.extents.get(&start).copied()
    }

    /// Runs of retired sectors: first and length.
    pub fn retired(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &sector in &self.retired {
            match runs.last_mut() {
                Some((first, len)) if *first + *len == sector => *len += 1,
                _ => runs.push((sector, 1)),
            }
        }
        runs
    }

    /// IDs of fences, with whether they are placed.
    pub fn fences(&self) -> impl Iterator<Item = (u64, u64, u64, bool)> {
        self.fences.iter().map(|(&id, f)| (id, f.start, f.len, f.placed.is_some()))
    }

    /// Takes a command that arrived well-formed; whether the kernel must accept it.
    pub fn command(&mut self, cmd: u8, attrs: &Attrs) -> bool {
        let wanted: &[u16] = match cmd {
            command::CLAIM => {
                &[attr::SLOT_START, attr::SLOT_SECTORS, attr::SLOT_UNIT, attr::COMMIT]
            }
            command::LOAD => &[attr::EXTENTS],
            command::READY | command::FLUSH_FAILED => &[],
            command::TRY | command::PLACE => &[attr::FAULT_ID, attr::PIECES],
            command::INSTALL => &[attr::COMMIT, attr::FAULT_IDS],
            command::RELEASE | command::FAIL => &[attr::FAULT_ID],
            command::FENCE => &[attr::START, attr::LEN],
            _ => return false,
        };
        let given: BTreeSet<u16> = attrs.keys().copied().collect();
        let wanted: BTreeSet<u16> = wanted.iter().copied().chain([attr::INSTANCE]).collect();
        if given != wanted || attrs[&attr::INSTANCE].number() != u64::from(self.instance) {
            return false;
        }
        let number = |a: u16| attrs[&a].number();
        match cmd {
            command::CLAIM => self.claim(
                number(attr::SLOT_START),
                number(attr::SLOT_SECTORS),
                number(attr::SLOT_UNIT),
                number(attr::COMMIT),
            ),
            command::READY | command::FLUSH_FAILED => true,
            command::PLACE => match attrs[&attr::PIECES].pieces() {
                Some(pieces) => self.place(number(attr::FAULT_ID), pieces),
                None => false,
            },
            command::INSTALL => match attrs[&attr::FAULT_IDS].numbers() {
                Some(ids) => self.install(number(attr::COMMIT), &ids),
                None => false,
            },
            command::RELEASE => self.release(number(attr::FAULT_ID)),
            command::FENCE => self.fence(number(attr::START), number(attr::LEN)),
            // Ready for long, and no fence holds a bio that could be tried or failed.
            _ => false,
        }
    }

    fn claim(&mut self, start: u64, sectors: u64, unit: u64, commit: u64) -> bool {
        let same = (start, sectors, unit) == (SLOT_START, SLOT_SECTORS, UNIT);
        if same && commit >= self.commit {
            self.commit = commit;
            return true;
        }
        false
    }

    fn fence(&mut self, start: u64, len: u64) -> bool {
        let Some(end) = start.checked_add(len) else { return false };
        let overlaps = self.fences.values().any(|f| f.start < end && start < f.start + f.len);
        let right = len > 0 && end <= SECTORS && !overlaps && self.fences.len() < MAX_FAULTS;
        if right {
            self.fences.insert(self.next, Fence { start, len, placed: None });
            self.next += 1;
        }
        right
    }

    /// Parts of extents in a range.
    fn parts(&self, start: u64, len: u64) -> Vec<Extent> {
        let end = start + len;
        let mut parts: Vec<Extent> = (self.extents.range(..end).rev())
            .take_while(|&(&s, &(_, l, _))| start < s + l)
            .map(|(&s, &(slot, l, k))| {
                let (from, to) = (s.max(start), (s + l).min(end));
                let slot = if k == kind::POISON_DATA { 0 } else { slot + (from - s) };
                (from, slot, to - from, k)
            })
            .collect();
        parts.reverse();
        parts
    }

    fn only(&self, start: u64, len: u64, kinds: &[u8]) -> bool {
        let parts = self.parts(start, len);
        let covered: u64 = parts.iter().map(|part| part.2).sum();
        parts.iter().all(|part| kinds.contains(&part.3))
            && (covered == len || kinds.contains(&kind::DIRECT))
    }

    fn piece_is_right(&self, fence: &Fence, piece: &Piece, taken: &mut BTreeSet<u64>) -> bool {
        let (offset, len) = (u64::from(piece.offset), u64::from(piece.len));
        if len == 0 || piece.result != 0 || !piece.padded || offset + len > fence.len {
            return false;
        }
        let start = fence.start + offset;
        match piece.kind {
            kind::DIRECT => {
                piece.slot == 0 && self.only(start, len, &[kind::MAPPED, kind::POISON_DATA])
            }
            kind::MAPPED => {
                let whole = len.next_multiple_of(UNIT);
                let inside = piece.slot >= SLOT_START
                    && piece.slot <= SLOT_START + SLOT_SECTORS
                    && piece.slot + whole <= SLOT_START + SLOT_SECTORS;
                if piece.slot % UNIT != 0 || !inside {
                    return false;
                }
                (piece.slot..piece.slot + whole)
                    .all(|sector| !self.used.contains(&sector) && taken.insert(sector))
            }
            kind::POISON_DATA => piece.slot == 0 && self.only(start, len, &[kind::DIRECT]),
            kind::POISON_SLOT => self.parts(start, len) == [(start, piece.slot, len, kind::MAPPED)],
            _ => false,
        }
    }

    fn place(&mut self, id: u64, pieces: Vec<Piece>) -> bool {
        let Some(fence) = self.fences.get(&id).filter(|f| f.placed.is_none()) else { return false };
        let mut taken = BTreeSet::new();
        let mut done = 0;
        for piece in &pieces {
            if u64::from(piece.offset) < done || !self.piece_is_right(fence, piece, &mut taken) {
                return false;
            }
            done = u64::from(piece.offset) + u64::from(piece.len);
        }
        self.used.append(&mut taken);
        if let Some(fence) = self.fences.get_mut(&id) {
            fence.placed = Some(pieces);
        }
        true
    }

    fn install(&mut self, commit: u64, ids: &[u64]) -> bool {
        let known = |id: &u64| match self.fences.get(id) {
            Some(fence) => fence.placed.is_some(),
            None => (1..self.next).contains(id),
        };
        if commit < self.commit || !ids.iter().all(known) {
            return false;
        }
        self.commit = commit;
        for id in ids {
            let Some(Fence { start, placed: Some(pieces), .. }) = self.fences.remove(id) else {
                continue;
            };
            for piece in pieces {
                self.set(start + u64::from(piece.offset), &piece);
            }
        }
        true
    }

    fn set(&mut self, start: u64, piece: &Piece) {
        let len = u64::from(piece.len);
        for (from, slot, part, k) in self.parts(start, len) {
            if piece.kind == kind::MAPPED && k != kind::POISON_DATA {
                let kept = piece.slot + (from - start) == slot;
                self.retired.extend((slot..slot + part).filter(|_| !kept));
            }
        }
        let end = start + len;
        while let Some((&s, &(slot, l, k))) = self.extents.range(..end).next_back() {
            if s + l <= start {
                break;
            }
            self.extents.remove(&s);
            if s < start {
                self.extents.insert(s, (slot, start - s, k));
            }
            if s + l > end {
                let slot = if k == kind::POISON_DATA { 0 } else { slot + (end - s) };
                self.extents.insert(end, (slot, s + l - end, k));
            }
        }
        if piece.kind != kind::DIRECT {
            self.extents.insert(start, (piece.slot, len, piece.kind));
        }
    }

    fn release(&mut self, id: u64) -> bool {
        let Some(fence) = self.fences.remove(&id) else { return false };
        for piece in fence.placed.into_iter().flatten().filter(|p| p.kind == kind::MAPPED) {
            let whole = u64::from(piece.len).next_multiple_of(UNIT);
            for sector in piece.slot..piece.slot + whole {
                self.used.remove(&sector);
            }
        }
        true
    }
}
