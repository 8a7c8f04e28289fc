//! Somebody else's flush fails under a commit, and takes with it what had been written.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use super::*;
use crate::metadata::{CommitError, Disk, Failures, Flusher, Shared};

#[derive(Clone, Default)]
struct Other {
    /// What it says, one answer a question; then the last one for ever. `None` is no answer.
    answers: Rc<RefCell<Vec<Option<Option<Failures>>>>>,
    /// Failures of ours that it was told of.
    told: Rc<Cell<u32>>,
    /// So many more it does not hear.
    deaf: Rc<Cell<u32>>,
}

fn says(sender: u32, count: u64) -> Option<Option<Failures>> {
    Some(Some(Failures { sender: (1, sender), count }))
}

impl Other {
    fn will_say(&self, answers: &[Option<Option<Failures>>]) {
        *self.answers.borrow_mut() = answers.iter().rev().copied().collect();
    }
}

impl Flusher for Other {
    fn failures(&mut self) -> io::Result<Option<Failures>> {
        let mut answers = self.answers.borrow_mut();
        let answer = if answers.len() > 1 { answers.pop() } else { answers.last().copied() };
        answer.flatten().ok_or_else(|| io::Error::other("no answer"))
    }

    fn failed(&mut self) -> io::Result<()> {
        if let Some(left) = self.deaf.get().checked_sub(1) {
            self.deaf.set(left);
            return Err(io::Error::other("not heard"));
        }
        self.told.set(self.told.get() + 1);
        Ok(())
    }
}

fn shared(disk: RamDisk) -> (Store<Shared<RamDisk, Other>>, Other) {
    let other = Other::default();
    other.will_say(&[says(1, 5)]);
    let disk = Shared::new(disk, other.clone()).unwrap();
    (Store::open(disk, &expect()).unwrap().0, other)
}

#[test]
fn a_commit_under_which_anothers_flush_failed_is_unknown_until_it_is_restated() {
    let (mut store, other) = shared(formatted());
    let change = map(store.superblock(), 1);
    other.will_say(&[says(1, 6)]);
    let error = store.commit(&[change]).unwrap_err();
    assert!(matches!(error, CommitError::Unknown { sequence: 1, .. }), "{error}");
    assert!(error.to_string().contains("another flush of it has failed meanwhile"), "{error}");
    assert_eq!(store.restate().unwrap().sequence(), 1);
    // The other's caller has been told; nobody else need be.
    assert_eq!(store.flush_failures(), 0);
    assert!(store.commit(&[map(store.superblock(), 2)]).is_ok());
}

/// The first record is gone from both mirrors, as its disk dropped what it had not written.
#[test]
fn the_restated_record_holds_without_the_one_that_was_lost() {
    let (mut store, other) = shared(formatted());
    let (change, geometry) = (map(store.superblock(), 1), *store.geometry());
    let blocks = [0, 1].map(|mirror| geometry.log_block(mirror, store.head));
    other.will_say(&[says(1, 6)]);
    assert!(store.commit(&[change]).is_err());
    blocks.iter().for_each(|&at| store.disk.write(at, &[0; 4096]).unwrap());
    let _ = store.restate().unwrap();
    let after = store.table().clone();
    let disk = store.into_disk().disk;
    assert_eq!(open(disk).table(), &after);
}

#[test]
fn only_a_sender_that_begins_with_none_is_trusted_at_once() {
    let good = [
        (None, None),
        (None, Some(Failures { sender: (1, 1), count: 0 })),
        (Some(Failures { sender: (1, 1), count: 3 }), Some(Failures { sender: (1, 1), count: 3 })),
    ];
    let bad = [
        (None, Some(Failures { sender: (1, 1), count: 1 })),
        (Some(Failures { sender: (1, 1), count: 3 }), Some(Failures { sender: (1, 1), count: 4 })),
        (Some(Failures { sender: (1, 1), count: 0 }), Some(Failures { sender: (1, 2), count: 0 })),
        (Some(Failures { sender: (1, 1), count: 0 }), Some(Failures { sender: (2, 1), count: 0 })),
        (Some(Failures { sender: (1, 1), count: 0 }), None),
    ];
    let all = good.map(|pair| (pair, true)).into_iter().chain(bad.map(|pair| (pair, false)));
    for ((before, now), trusted) in all {
        let other = Other::default();
        other.will_say(&[Some(before)]);
        let mut disk = Shared::new(RamDisk::new(SPARE), other.clone()).unwrap();
        other.will_say(&[Some(now)]);
        assert_eq!(disk.flush().is_ok(), trusted, "{before:?}, then {now:?}");
        assert!(disk.flush().is_ok(), "{before:?}, then {now:?} for good");
    }
}

#[test]
fn it_is_as_large_and_has_the_blocks_of_its_disk() {
    let mut disk = RamDisk::new(SPARE);
    disk.physical = 8192;
    let other = Other::default();
    other.will_say(&[says(1, 0)]);
    let disk = Shared::new(disk, other).unwrap();
    assert_eq!((disk.size(), disk.physical_block()), (Sectors(SPARE), 8192));
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let other = Other::default();
    other.will_say(&[None, None, says(1, 0)]);
    let mut disk = Shared::new(RamDisk::new(SPARE), other.clone()).unwrap();
    other.will_say(&[None, None, says(1, 0)]);
    assert!(disk.flush().is_ok());
    other.will_say(&[None]);
    assert!(disk.flush().unwrap_err().to_string().contains("cannot be told: no answer"));
}

/// A failure of ours is the disk's own, and not a doubt; the other hears of it before anybody else does.
#[test]
fn a_flush_that_the_disk_fails_is_counted_as_ours_and_told() {
    let (mut store, Other { told, deaf, .. }) = shared(formatted());
    store.disk.disk.flushes = vec![false];
    assert!(store.flush().is_err());
    assert_eq!((store.flush_failures(), told.get()), (1, 1));
    assert!(store.flush().is_ok());
    assert_eq!(told.get(), 1);
    // It is told again with the next one if nobody has heard it.
    deaf.set(3);
    store.disk.disk.flushes = vec![false];
    assert!(store.flush().is_err());
    assert_eq!(told.get(), 1);
    assert!(store.flush().is_ok());
    assert_eq!(told.get(), 2);
}

/// The instance may be in service, with slots written since the last good flush, and nobody is left to remember it.
#[test]
fn a_flush_that_fails_in_an_opening_that_fails_is_told() {
    // Five copies, the body of the checkpoint, which is not tried again, and the superblock that puts it in force.
    for (flush, tries) in [3, 3, 3, 3, 3, 1, 3].into_iter().enumerate() {
        let other = Other::default();
        other.will_say(&[says(1, 0)]);
        let mut disk = formatted();
        disk.flushes = [vec![true; flush], vec![false; 3]].concat();
        assert!(Store::open(Shared::new(disk, other.clone()).unwrap(), &expect()).is_err());
        assert_eq!(other.told.get(), tries, "from flush {flush}");
    }
}
