//! What a disk may hold after its power was cut.

use std::collections::BTreeMap;

use super::image::{Image, SECTOR, SECTORS, weight};
use super::recorder::Op;
use crate::metadata::tests::ram::Random;

/// How far subsets are enumerated: all of up to so many sectors, and so many samples beyond.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub sectors: usize,
    pub samples: u64,
    pub seed: u64,
}

/// An image and what it is known by.
#[derive(Debug, Clone)]
pub struct Point {
    pub image: Image,
    pub hash: u64,
}

impl Point {
    fn set(&mut self, sector: u64, bytes: &[u8; SECTOR]) {
        let old = weight(sector, self.image.sector(sector));
        self.hash = self.hash.wrapping_sub(old).wrapping_add(weight(sector, bytes));
        self.image.put_sector(sector, bytes);
    }
}

/// A sector that was written, and may or may not be on the disk.
struct Loose {
    sector: u64,
    bytes: [u8; SECTOR],
    weight: u64,
    /// Which write it belongs to.
    write: usize,
    /// The write or a flush after it failed: no later flush makes it durable.
    doomed: bool,
}

/// Hands to `visit` what the disk may hold if the power fails before, between and after `ops`: at
/// each of these points every subset of the sectors that were written and not flushed, within
/// `bound`, and every choice of blocks that were torn into garbage, were lost or are whole. The flag
/// is set once all is done. Points before `from` are left out. Returns the number of states, those
/// met before included; `fresh` says of what an image is known by whether it is wanted.
pub fn cuts(
    start: &Point,
    ops: &[Op],
    from: usize,
    bound: Bound,
    mut fresh: impl FnMut(u64, bool) -> bool,
    mut visit: impl FnMut(Point, bool),
) -> u64 {
    let mut random = Random(bound.seed);
    let (mut base, mut loose) = (start.clone(), Vec::new());
    let mut states = 0;
    for n in 0..=ops.len() {
        if n > 0 {
            step(&mut base, &mut loose, n, &ops[n - 1]);
        }
        if n < from {
            continue;
        }
        let done = n == ops.len();
        let old: Vec<u64> =
            loose.iter().map(|l| weight(l.sector, base.image.sector(l.sector))).collect();
        let again = written_again(&loose);
        subsets(&loose, bound, &mut random, |kept| {
            states += 1;
            let last = |n: &usize| {
                let mut later = std::iter::successors(again[*n], |&later| again[later]);
                kept[*n] && !later.any(|later| kept[later])
            };
            let change = |n: usize| loose[n].weight.wrapping_sub(old[n]);
            let hash = (0..loose.len()).filter(last).map(change).fold(base.hash, u64::wrapping_add);
            if fresh(hash, done) {
                let mut image = base.image.clone();
                let found = loose.iter().zip(kept).filter(|(_, kept)| **kept);
                found.for_each(|(l, _)| image.put_sector(l.sector, &l.bytes));
                visit(Point { image, hash }, done);
            }
        });
        torn(&base, &loose, bound, &mut random, |torn| {
            states += 1;
            if fresh(torn.hash, done) {
                visit(torn, done);
            }
        });
    }
    states
}

fn step(base: &mut Point, loose: &mut Vec<Loose>, n: usize, op: &Op) {
    match op {
        Op::Write { block, content, failed } => {
            for (sector, bytes) in (block * SECTORS..).zip(content.iter().flat_map(sectors)) {
                // A sector that already holds it cannot be told from one that does not.
                if base.image.sector(sector) != bytes || loose.iter().any(|l| l.sector == sector) {
                    let weight = weight(sector, &bytes);
                    loose.push(Loose { sector, bytes, weight, write: n, doomed: *failed });
                }
            }
        }
        Op::FailedFlush => loose.iter_mut().for_each(|l| l.doomed = true),
        Op::Flush => {
            let mut still: Vec<Loose> = Vec::new();
            for l in loose.drain(..) {
                if l.doomed {
                    still.push(l);
                } else {
                    base.set(l.sector, &l.bytes);
                    still.retain(|old| old.sector != l.sector);
                }
            }
            *loose = still;
        }
    }
}

fn sectors(block: &super::image::Block) -> impl Iterator<Item = [u8; SECTOR]> + '_ {
    block.chunks(SECTOR).map(|bytes| bytes.try_into().unwrap())
}

/// Where each sector is written next.
fn written_again(loose: &[Loose]) -> Vec<Option<usize>> {
    let mut next = vec![None; loose.len()];
    let mut first = BTreeMap::new();
    for (n, l) in loose.iter().enumerate() {
        if let Some(earlier) = first.insert(l.sector, n) {
            next[earlier] = Some(n);
        }
    }
    next
}

fn subsets(loose: &[Loose], bound: Bound, random: &mut Random, mut each: impl FnMut(&[bool])) {
    let mut kept = vec![false; loose.len()];
    if loose.len() <= bound.sectors {
        for mask in 0..1u64 << loose.len() {
            kept.iter_mut().enumerate().for_each(|(n, kept)| *kept = mask >> n & 1 != 0);
            each(&kept);
        }
        return;
    }
    for n in 0..bound.samples {
        // None and all; then few lost, few kept, or even.
        let bias = [0, 16].get(n as usize).copied();
        let bias = bias.unwrap_or_else(|| [1, 8, 15][random.below(3) as usize]);
        kept.iter_mut().for_each(|kept| *kept = random.below(16) < bias);
        each(&kept);
    }
}

/// The power failed while blocks were being written: each of them is lost, whole or garbage, and one
/// is garbage at least.
fn torn(
    base: &Point,
    loose: &[Loose],
    bound: Bound,
    random: &mut Random,
    mut each: impl FnMut(Point),
) {
    let same =
        |a: &Loose, b: &Loose| (a.write, a.sector / SECTORS) == (b.write, b.sector / SECTORS);
    let blocks: Vec<&[Loose]> = loose.chunk_by(same).collect();
    let choices = 3u64.checked_pow(blocks.len() as u32).filter(|&n| n <= 1 << bound.sectors);
    for n in 0..choices.unwrap_or(bound.samples / 16) {
        let fates: Vec<u64> = match choices {
            Some(_) => (0..blocks.len() as u32).map(|block| n / 3u64.pow(block) % 3).collect(),
            None => blocks.iter().map(|_| random.below(3)).collect(),
        };
        if !fates.contains(&2) {
            continue;
        }
        let mut point = base.clone();
        for (written, fate) in blocks.iter().zip(fates) {
            let block = written[0].sector / SECTORS;
            match fate {
                0 => {}
                1 => written.iter().for_each(|l| point.set(l.sector, &l.bytes)),
                _ => (0..SECTORS).for_each(|n| point.set(block * SECTORS + n, &[0xdb; SECTOR])),
            }
        }
        each(point);
    }
}
