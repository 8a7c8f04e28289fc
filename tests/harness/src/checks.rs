//! What can be seen of the invariants in the conversation itself: I4 and I8.

use std::collections::{BTreeMap, BTreeSet};

use dmremap_protocol::Piece;
use dmremap_protocol::uapi::Kind;

use crate::oracle::Oracle;

#[derive(Default)]
pub struct Checks {
    /// Sectors of the spare that were installed while the instance lives.
    installed: BTreeSet<u64>,
    /// That failed, with the commit from which on this is durable for sure.
    failed: BTreeMap<u64, u64>,
    fresh: BTreeSet<u64>,
    commit: u64,
    pub violation: Option<String>,
}

impl Checks {
    /// A PLACE was accepted.
    pub fn placed(&mut self, pieces: &[Piece], unit: u64) {
        for piece in pieces.iter().filter(|p| p.kind == Kind::Mapped) {
            for slot in piece.slot..piece.slot + u64::from(piece.len).next_multiple_of(unit) {
                if self.installed.contains(&slot) {
                    self.violate(format!("I4: installed slot {slot} is placed again"));
                }
                if self.failed.get(&slot).is_some_and(|&from| self.commit >= from) {
                    self.violate(format!("I4: slot {slot}, which failed, is handed out again"));
                }
            }
        }
    }

    pub fn installed(&mut self, start: u64, piece: &Piece, oracle: &Oracle, now: u64) {
        let at = start + u64::from(piece.offset);
        for i in 0..u64::from(piece.len) {
            if piece.kind == Kind::Mapped {
                self.installed.insert(piece.slot + i);
            }
            let ok = match piece.kind {
                Kind::Direct => true,
                Kind::Mapped => oracle.excuses.may_map(at + i, now),
                _ => oracle.excuses.was_bad(at + i),
            };
            if !ok {
                self.violate(format!("I8: sector {} was never bad and becomes {piece:?}", at + i));
            }
        }
    }

    pub fn slot_failed(&mut self, slot: u64, len: u64) {
        self.fresh.extend(slot..slot + len);
    }

    /// The owner has seen which slots failed: a commit that it begins from here on says so. One may be
    /// under way that does not.
    pub fn listed(&mut self, commit: u64) {
        let fresh = std::mem::take(&mut self.fresh);
        self.failed.extend(fresh.into_iter().map(|slot| (slot, commit + 2)));
    }

    pub fn committed(&mut self, commit: u64) {
        self.commit = self.commit.max(commit);
    }

    /// What is not durable is forgotten, and slots of mappings that were replaced may be free.
    pub fn power_cut(&mut self) {
        self.installed.clear();
        self.fresh.clear();
        let commit = self.commit;
        self.failed.retain(|_, &mut from| from <= commit);
    }

    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}
