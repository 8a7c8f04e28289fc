//! Goes through all that a crash may leave, and cuts the recovery in turn.

use std::collections::{BTreeSet, HashSet};

use super::cuts::{Bound, Point, cuts};
use super::image::{BLOCK, SECTOR, SECTORS, weight};
use super::operations::{Found, Operation};
use super::recorder::{Op, Recorder};
use crate::metadata::block::{Header, Kind as Block};
use crate::metadata::check::read;
use crate::metadata::layout::COPIES;
use crate::metadata::recover::Recovered;
use crate::metadata::tests::*;
use crate::metadata::{Error, identify};

pub const FIRST: Bound = Bound { sectors: 16, samples: 4096, seed: 1 };

/// What an operation's crashes came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Row {
    /// Points times subsets, and different images.
    pub states: u64,
    pub images: u64,
    /// How many images hold the table before, the table after, no label.
    pub found: [u64; 3],
    /// Images that recovery can tell apart.
    pub apart: u64,
    /// States of a recovery that was cut in any of those, and different ones.
    pub cut: [u64; 2],
    /// The same where the process died first, and the power failed while the next one recovered.
    pub killed: [u64; 2],
    /// Recoveries with a bad block; states of those that were cut, and different ones.
    pub faults: u64,
    pub faulty: [u64; 2],
}

/// An image that recovery can tell from others, and whether the operation had returned.
pub struct Left {
    pub point: Point,
    /// What it is known by, superblock copies aside.
    pub beside: u64,
    pub done: bool,
}

impl Operation {
    fn outcome(&self, found: &Result<Found, Error>, done: bool) -> Option<usize> {
        match found {
            Ok(found) if *found == self.after => Some(1),
            Ok(found) if !done && Some(found) == self.before.as_ref() => Some(0),
            Err(Error::NotFormatted | Error::NoSuperblock { .. }) if self.unlabelled && !done => {
                Some(2)
            }
            _ => None,
        }
    }

    /// What recovery finds must be what was before, or what was after.
    pub fn judge(&self, found: &Result<Found, Error>, done: bool, when: &str) -> usize {
        self.outcome(found, done).unwrap_or_else(|| {
            let what = match found {
                Ok(found) if Some(found) == self.before.as_ref() => "the table before".into(),
                Ok(found) => format!("a third table, of commit {}", found.sequence),
                Err(e) => e.to_string(),
            };
            let returned = if done { ", which had returned" } else { "" };
            panic!("{}{returned}: {when}: {what}", self.name)
        })
    }

    pub fn open<'a>(&self, disk: &'a mut Recorder) -> Result<Store<&'a mut Recorder>, Error> {
        let epoch = identify(disk)?.epoch;
        let store = Store::open(disk, &self.expect)?.0;
        assert_eq!(store.superblock().epoch, epoch + 1, "{}: an epoch is used again", self.name);
        Ok(store)
    }
}

/// Every crash of the operation: all that recovery reads of it. It goes on from that in `again`, once
/// for those that it cannot tell apart. Returns what is left.
pub fn first(operation: &Operation, row: &mut Row) -> Vec<Left> {
    let start = Point { image: operation.start.clone(), hash: 0 };
    let written = Written::by(operation, &operation.ops);
    let (mut seen, mut told, mut used) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut left = Vec::new();
    let fresh = |hash, done| seen.insert((hash, done));
    row.states = cuts(&start, &operation.ops, 0, FIRST, fresh, |point, done| {
        row.images += 1;
        let mut disk = Recorder::on(point.image.clone());
        let found = read(&mut disk, &mut vec![]);
        if let (true, Ok((found, _))) = (done, &found) {
            assert_eq!(*found, operation.superblock, "{}: another superblock", operation.name);
        }
        let found = found.map(|(_, Recovered { table, sequence, .. })| Found { table, sequence });
        let outcome = operation.judge(&found, done, "a crash");
        row.found[outcome] += 1;
        let (mut apart, mut beside) = told_apart(&point, &written, outcome < 2);
        if !told.insert((apart, done)) {
            return;
        }
        if outcome < 2 {
            let unused = unused(&point);
            (apart, beside) = (apart.wrapping_sub(unused), beside.wrapping_sub(unused));
        }
        if used.insert((apart, done)) {
            left.push(Left { point, beside, done });
        }
    });
    row.apart = left.len() as u64;
    left
}

/// Of the log blocks and the superblock copies, those that are written.
pub struct Written {
    pub logs: Vec<Slot>,
    copies: Vec<Slot>,
}

impl Written {
    pub fn by(operation: &Operation, ops: &[Op]) -> Written {
        let geometry = operation.superblock.geometry;
        let len = Sectors(u64::from(geometry.log_blocks) * geometry.unit.0);
        let log = |at: &Slot| geometry.mirrors.iter().any(|&log| (log..log + len).contains(at));
        let blocks = ops.iter().flat_map(|op| match op {
            Op::Write { block, content, .. } => *block..block + content.len() as u64,
            _ => 0..0,
        });
        let blocks: BTreeSet<Slot> = blocks.map(|block| Slot(block * SECTORS)).collect();
        let logs = blocks.iter().copied().filter(log).collect();
        Written { logs, copies: COPIES.into_iter().filter(|at| blocks.contains(at)).collect() }
    }
}

/// What recovery can tell an image by. A log block is none, whatever it holds, if it is no record or one
/// that counts under no superblock that is there: recovery never writes to the log (which
/// `again::recover` asserts). A superblock copy that is none is lost, whatever it holds: it is written
/// whole before anything else is. See `unused` too.
fn told_apart(point: &Point, written: &Written, labelled: bool) -> (u64, u64) {
    let (mut beside, mut copies) = (point.hash, 0u64);
    let content = |at: Slot| point.image.block(at.0 / SECTORS).map(|content| (at, &content[..]));
    for (at, content) in written.copies.iter().copied().filter_map(content) {
        let known = known_by(at, content);
        beside = beside.wrapping_sub(known);
        // A blank disk and a damaged one are refused in different words.
        let blank = *content == [0; BLOCK];
        copies = copies.wrapping_add(match Superblock::decode(at, content) {
            Ok(_) => known,
            Err(_) if blank => 0,
            Err(_) => weight(at.0, &[0xdb; SECTOR]),
        });
    }
    let there: Vec<Superblock> = COPIES
        .into_iter()
        .filter_map(content)
        .filter_map(|(at, content)| Superblock::decode(at, content).ok())
        .collect();
    for (at, content) in written.logs.iter().copied().filter_map(content) {
        let record = Header::open(Block::Record, at, content);
        if !record.is_ok_and(|record| there.iter().any(|found| counts(&record, found))) {
            beside = beside.wrapping_sub(known_by(at, content));
        }
    }
    (if labelled { beside.wrapping_add(copies) } else { copies }, beside)
}

/// Whether the record has a place behind the superblock's checkpoint, or says that it is an old one.
fn counts(record: &Header, found: &Superblock) -> bool {
    let later = record.epoch > found.epoch || record.superblock > found.number;
    let beyond = record.sequence > found.checkpoint.sequence;
    record.label == found.label && record.epoch >= found.epoch && (later || beyond)
}

/// The checkpoint area that is not in force is written before it is read.
fn unused(point: &Point) -> u64 {
    let superblock = identify(&mut Recorder::on(point.image.clone())).unwrap();
    let Superblock { geometry, checkpoint, .. } = superblock;
    let areas =
        [0, 1].map(|mirror| geometry.checkpoint_area(mirror, 1 - checkpoint.area).0 / SECTORS);
    let blocks = areas.iter().flat_map(|&b| b..b + u64::from(geometry.checkpoint_blocks));
    let content = |block| point.image.block(block).map(|content| (Slot(block * SECTORS), content));
    blocks.filter_map(content).map(|(at, c)| known_by(at, &c[..])).fold(0, u64::wrapping_add)
}

fn known_by(at: Slot, content: &[u8]) -> u64 {
    let sectors = (at.0..).zip(content.chunks(SECTOR));
    sectors.map(|(sector, bytes)| weight(sector, bytes)).fold(0, u64::wrapping_add)
}
