//! Narrows a fault down to its bad blocks: rounds of pieces, each smaller than the last.

use super::event::Status;
use crate::units::Sectors;

/// The most pieces of one TRY.
const MAX_PIECES: usize = 1024;
/// Few, because most faults have few bad blocks.
const FIRST_PIECES: usize = 64;
/// 2,048 sectors take six rounds when all are bad; more means that results do not come.
const MAX_ROUNDS: u32 = 16;

/// A part of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    pub offset: Sectors,
    pub len: Sectors,
}

impl Part {
    pub fn end(self) -> Sectors {
        self.offset + self.len
    }

    pub fn blocks(self, block: Sectors) -> impl Iterator<Item = Part> {
        let at = move |n| Part { offset: self.offset + Sectors(n * block.0), len: block };
        (0..self.len.0 / block.0).map(at)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Ask for another round.
    More,
    /// [`Search::bad`] is exact.
    Found,
    /// The device is not there, or will not answer: not a matter of its medium.
    Gone,
}

#[derive(Debug, Clone, Default)]
pub struct Search {
    suspects: Vec<Part>,
    asked: Vec<Part>,
    bad: Vec<Part>,
    damage: bool,
    rounds: u32,
}

impl Search {
    /// `bad` is so without asking.
    pub fn new(suspects: Vec<Part>, bad: Vec<Part>) -> Search {
        Search { suspects, bad: joined(bad), ..Search::default() }
    }

    /// The next pieces to try, in rising order; none when there is nothing to find out.
    pub fn round(&mut self, block: Sectors) -> &[Part] {
        self.rounds += 1;
        let budget = if self.rounds == 1 { FIRST_PIECES } else { MAX_PIECES };
        let now = self.suspects.len().min(MAX_PIECES / 2);
        let each = (budget / now.max(1)).max(2) as u64;
        self.asked.clear();
        for suspect in self.suspects.drain(..now) {
            let size = Sectors(suspect.len.0.div_ceil(each)).round_up(block);
            let mut offset = suspect.offset;
            while offset < suspect.end() {
                let len = size.min(suspect.end() - offset);
                self.asked.push(Part { offset, len });
                offset = offset + len;
            }
        }
        &self.asked
    }

    pub fn asked(&self) -> &[Part] {
        &self.asked
    }

    /// May an answer to these pieces call a block bad?
    pub fn decides(&self, block: Sectors) -> bool {
        self.asked.iter().any(|part| part.len <= block)
    }

    /// One result a piece of the last round.
    pub fn answer(&mut self, block: Sectors, results: &[Status]) -> Progress {
        for (i, part) in std::mem::take(&mut self.asked).into_iter().enumerate() {
            match results.get(i).copied().unwrap_or(Status::NotDone) {
                Status::Ok => {}
                Status::Medium | Status::IoErr if part.len <= block => {
                    self.damage = true;
                    self.bad.push(part);
                }
                Status::Medium | Status::IoErr | Status::NotDone => self.suspects.push(part),
                Status::Other => return Progress::Gone,
            }
        }
        self.suspects.sort();
        self.bad = joined(std::mem::take(&mut self.bad));
        match (self.suspects.is_empty(), self.rounds < MAX_ROUNDS) {
            (true, _) => Progress::Found,
            (false, true) => Progress::More,
            (false, false) => Progress::Gone,
        }
    }

    /// Has a device refused a block?
    pub fn damage(&self) -> bool {
        self.damage
    }

    /// In rising order; neighbours are joined.
    pub fn bad(&self) -> &[Part] {
        &self.bad
    }
}

fn joined(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort();
    let mut out: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match out.last_mut() {
            Some(last) if last.end() == part.offset => last.len = last.len + part.len,
            _ => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn find(len: u64, block: u64, bad: &BTreeSet<u64>) -> (Vec<Part>, u32) {
        let block = Sectors(block);
        let whole = Part { offset: Sectors(0), len: Sectors(len) };
        let mut search = Search::new(vec![whole], Vec::new());
        loop {
            let pieces = search.round(block).to_vec();
            assert!(pieces.len() <= MAX_PIECES);
            assert!(pieces.iter().all(|p| p.end().0 <= len));
            let least = pieces.iter().map(|p| p.len).min();
            assert_eq!(search.decides(block), least.is_some_and(|len| len <= block));
            let is_bad = |p: &Part| bad.range(p.offset.0..p.end().0).next().is_some();
            let results: Vec<Status> = pieces
                .iter()
                .map(|p| if is_bad(p) { Status::Medium } else { Status::Ok })
                .collect();
            match search.answer(block, &results) {
                Progress::More => {}
                Progress::Found => return (search.bad().to_vec(), search.rounds),
                Progress::Gone => panic!("gave up"),
            }
        }
    }

    #[test]
    fn exactly_the_bad_blocks_are_found_in_few_rounds() {
        let part = |offset, len| Part { offset: Sectors(offset), len: Sectors(len) };
        let (bad, rounds) = find(512, 1, &[0, 1, 100, 200, 300].into());
        assert_eq!(bad, [part(0, 2), part(100, 1), part(200, 1), part(300, 1)]);
        assert_eq!(rounds, 2);
        let (bad, rounds) = find(2048, 1, &(0..2048).collect());
        assert_eq!(bad, [part(0, 2048)]);
        assert!(rounds <= 6, "{rounds} rounds");
        let (bad, _) = find(2048, 1, &(0..2048).step_by(2).collect());
        assert_eq!(bad.len(), 1024);
        let (bad, _) = find(64, 8, &[9, 23, 60].into());
        assert_eq!(bad, [part(8, 16), part(56, 8)]);
        let (bad, _) = find(67, 1, &[66].into());
        assert_eq!(bad, [part(66, 1)]);
    }

    #[test]
    fn a_part_has_its_blocks() {
        let part = |offset, len| Part { offset: Sectors(offset), len: Sectors(len) };
        let blocks: Vec<Part> = part(16, 24).blocks(Sectors(8)).collect();
        assert_eq!(blocks, [part(16, 8), part(24, 8), part(32, 8)]);
    }

    #[test]
    fn results_that_never_come_end_the_search() {
        let whole = Part { offset: Sectors(0), len: Sectors(8) };
        let mut search = Search::new(vec![whole], Vec::new());
        let mut round = || {
            search.round(Sectors(1));
            search.answer(Sectors(1), &[])
        };
        for n in 1..MAX_ROUNDS {
            assert_eq!(round(), Progress::More, "round {n}");
        }
        assert_eq!(round(), Progress::Gone);
        assert!(!search.damage());
    }

    #[test]
    fn a_device_that_is_gone_ends_the_search() {
        let mut search = Search::new(vec![Part { offset: Sectors(0), len: Sectors(2) }], vec![]);
        assert_eq!(search.round(Sectors(1)).len(), 2);
        assert_eq!(search.answer(Sectors(1), &[Status::Medium, Status::Other]), Progress::Gone);
    }
}
