//! A block fails while a crash is being recovered from: within the tolerance, the two together change
//! nothing.

use std::collections::HashSet;

use super::again::{recover, serves_on};
use super::cuts::{Bound, Point, cuts};
use super::image::{Image, SECTORS};
use super::operations::{Found, Operation};
use super::recorder::{Op, Recorder};
use super::visit::{Left, Row};
use crate::metadata::layout::COPIES;
use crate::metadata::tests::*;
use crate::metadata::{Error, identify};

/// Of a recovery beside a bad block that is cut.
const FAULTY: Bound = Bound { sectors: 4, samples: 16, seed: 3 };

/// In each mirror that may fail, the log from the block before the checkpoint to
/// some behind its end (the others hold old records, as the first of these does), and the checkpoint
/// areas.
fn blocks(operation: &Operation, found: &Superblock) -> Vec<u64> {
    let geometry = &found.geometry;
    let mut at = Vec::new();
    for mirror in (0..2).filter(|&m| operation.faulty.is_none_or(|faulty| faulty == m)) {
        let log = u64::from(geometry.log_blocks);
        let from = found.checkpoint.position + log;
        let around = from - 1..=from + 6;
        at.extend(around.map(|position| geometry.log_block(mirror, position)));
        for area in 0..2 {
            let first = geometry.checkpoint_area(mirror, area);
            at.extend([first, first + geometry.unit]);
        }
    }
    at.into_iter().map(|at| at.0 / SECTORS).collect()
}

/// In every state a superblock copy may fail; and a block of a mirror, in states that differ in more
/// than which copies are lost.
pub fn faults(operation: &Operation, left: &[Left], row: &mut Row) {
    let mut seen = HashSet::new();
    for state in left {
        let Ok(superblock) = identify(&mut Recorder::on(state.point.image.clone())) else {
            continue;
        };
        let mut bad: Vec<u64> = COPIES.iter().map(|at| at.0 / SECTORS).collect();
        let new =
            seen.insert((superblock.number, superblock.label.nonce, state.beside, state.done));
        if new {
            bad.extend(blocks(operation, &superblock));
        }
        let (_, ops) = recover(operation, &mut Recorder::on(state.point.image.clone())).unwrap();
        for block in bad {
            for lasting in [false, true] {
                row.faults += 1;
                let bad = Bad { block, lasting };
                let (found, faulty) = fault(operation, state, bad);
                if let Some(found) = found.filter(|_| new && faulty != ops) {
                    cut(operation, state, bad, (&found, &faulty), &mut row.faulty);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Bad {
    block: u64,
    /// It cannot be written either, until the recovery is over; then it shows again what it had.
    lasting: bool,
}

impl Bad {
    fn disk(self, image: Image) -> Recorder {
        let mut disk = Recorder::on(image);
        disk.bad_reads.insert(self.block);
        if self.lasting {
            disk.bad_writes.insert(self.block);
        }
        disk
    }
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let lasts = if self.lasting { "stays bad" } else { "a write mends" };
        write!(f, "block {} is bad, which {lasts}", self.block)
    }
}

/// What recovery finds in spite of the fault, and does to the disk.
fn fault(operation: &Operation, state: &Left, bad: Bad) -> (Option<Found>, Vec<Op>) {
    let when = format!("a crash, and {bad}");
    let mut disk = bad.disk(state.point.image.clone());
    let recovered = recover(operation, &mut disk);
    if matches!(recovered, Err(Error::NoSuperblock { .. })) && alone(&state.point, bad.block) {
        return (None, vec![]);
    }
    let (found, ops) = recovered.map_or_else(|e| (Err(e), vec![]), |(f, ops)| (Ok(f), ops));
    assert!(operation.judge(&found, state.done, &when) < 2, "{}: {when}", operation.name);
    let found = found.unwrap();
    serves_on(operation, disk, &found, &when);
    (Some(found), ops)
}

/// A recovery that did something else to the disk because of the fault is cut; where it did the same,
/// its crashes are those of an opening, which is an operation itself. The next one meets the fault
/// again, or what the block held.
fn cut(
    operation: &Operation,
    state: &Left,
    bad: Bad,
    (found, ops): (&Found, &[Op]),
    count: &mut [u64; 2],
) {
    let when = format!("a crash, and {bad}, and a crash of its recovery");
    let mut seen = HashSet::new();
    let fresh = |hash, recovered| seen.insert((hash, recovered));
    count[0] += cuts(&state.point, ops, 0, FAULTY, fresh, |cut, recovered| {
        count[1] += 1;
        for mut disk in [bad.disk(cut.image.clone()), Recorder::on(cut.image.clone())] {
            let lost = !disk.bad_reads.is_empty() && alone(&cut, bad.block);
            let again = operation.open(&mut disk).map(|store| Found::of(&store));
            if lost && matches!(again, Err(Error::NoSuperblock { .. })) {
                continue;
            }
            assert!(operation.judge(&again, state.done, &when) < 2, "{}: {when}", operation.name);
            if recovered {
                assert_eq!(again.as_ref().unwrap(), found, "{}: {when}", operation.name);
            }
        }
    });
}

/// The crash left no superblock but the one that fails: that is all five.
fn alone(point: &Point, block: u64) -> bool {
    !COPIES.iter().any(|at| {
        let content = point.image.block(at.0 / SECTORS);
        at.0 / SECTORS != block
            && content.is_some_and(|content| Superblock::decode(*at, &content[..]).is_ok())
    })
}
