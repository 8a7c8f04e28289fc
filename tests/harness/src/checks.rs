//! What can be seen of the invariants in the conversation itself: I4 and I8.

use std::collections::{BTreeMap, BTreeSet};

use dmremap_protocol::Piece;
use dmremap_protocol::uapi::Kind;

use crate::disk::Disk;
use crate::oracle::Oracle;

#[derive(Default)]
pub struct Checks {
    /// Sectors of the spare that were installed while the instance lives.
    installed: BTreeSet<u64>,
    /// Sectors of the data disk that are in a slot, with reason. If the slot fails they go to another.
    moved: BTreeSet<u64>,
    /// That failed, with the number of the listing in which the owner was shown it.
    failed: BTreeMap<u64, u64>,
    fresh: BTreeSet<u64>,
    listings: u64,
    /// Faults, with the number of listings before their last PLACE.
    placed: BTreeMap<u64, u64>,
    /// What was listed by then is durable for sure.
    durable: u64,
    pub violation: Option<String>,
}

impl Checks {
    /// A PLACE was accepted.
    pub fn placed(&mut self, fault: u64, pieces: &[Piece], unit: u64) {
        self.placed.insert(fault, self.listings);
        for piece in pieces.iter().filter(|p| p.kind == Kind::Mapped) {
            for slot in piece.slot..piece.slot + u64::from(piece.len).next_multiple_of(unit) {
                if self.installed.contains(&slot) {
                    self.violate(format!("I4: installed slot {slot} is placed again"));
                }
                if self.failed.get(&slot).is_some_and(|&listing| listing <= self.durable) {
                    self.violate(format!("I4: slot {slot}, which failed, is handed out again"));
                }
            }
        }
    }

    /// All that is known of a sound sector is what the storm says.
    pub fn placed_in_a_storm(&mut self, start: u64, pieces: &[Piece], oracle: &Oracle) {
        for piece in pieces.iter().filter(|p| p.kind == Kind::Mapped) {
            let at = start + u64::from(piece.offset);
            let sound = |s: &u64| !self.moved.contains(s) && !oracle.excuses.seemed_bad_itself(*s);
            if let Some(sector) = (at..at + u64::from(piece.len)).find(sound) {
                self.violate(format!("I8: sector {sector} was never bad and is placed in a storm"));
            }
        }
    }

    pub fn installed(&mut self, start: u64, piece: &Piece, oracle: &Oracle, spare: &Disk) {
        let at = start + u64::from(piece.offset);
        for i in 0..u64::from(piece.len) {
            let sector = at + i;
            let ok = match piece.kind {
                Kind::Direct => {
                    self.moved.remove(&sector);
                    true
                }
                Kind::Mapped => {
                    self.installed.insert(piece.slot + i);
                    !self.moved.insert(sector) || oracle.excuses.may_map(sector)
                }
                Kind::PoisonSlot => spare.is_unreadable(piece.slot + i),
                _ => oracle.excuses.was_bad(sector),
            };
            if !ok {
                self.violate(format!("I8: sector {sector} was never bad and becomes {piece:?}"));
            }
        }
    }

    pub fn slot_failed(&mut self, slot: u64, len: u64) {
        self.fresh.extend(slot..slot + len);
    }

    /// The owner is shown which slots failed.
    pub fn listed(&mut self) {
        self.listings += 1;
        let fresh = std::mem::take(&mut self.fresh);
        self.failed.extend(fresh.into_iter().map(|slot| (slot, self.listings)));
    }

    /// The commit that names a fault, which has pieces, was begun after its PLACE, and says too which slots had failed by
    /// then.
    pub fn committed(&mut self, fault: u64) {
        let listing = self.placed.remove(&fault).unwrap_or(0);
        self.durable = self.durable.max(listing);
    }

    /// What is not durable is forgotten, and slots of mappings that were replaced may be free.
    pub fn instance_gone(&mut self) {
        self.installed.clear();
        self.fresh.clear();
        self.placed.clear();
        let durable = self.durable;
        self.failed.retain(|_, &mut listing| listing <= durable);
    }

    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}
