//! Reading a spare: which superblock is in force, what its checkpoint and log hold, and whether
//! that is everything that was ever acknowledged. Writes nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::block::{Damage, HEADER, Header, Kind};
use super::checkpoint;
use super::device::{Disk, block_at, read_blocks, unit};
use super::error::Error;
use super::layout::COPIES;
use super::record::{Bounds, ENTRY, read_entries, slots_are_disjoint};
use super::store::STRIKES;
use super::superblock::{Flaw, Superblock};
use crate::table::Table;
use crate::units::{Sectors, Slot};

/// Something on the spare that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub place: String,
    pub sector: Option<Slot>,
    pub what: String,
    pub remedy: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As after any crash: opening the spare mends it.
    Note,
    /// Redundancy is lost.
    Problem,
    /// The spare is refused.
    Fatal,
}

pub(super) type Findings = Vec<Finding>;

impl Finding {
    pub(super) fn problem(place: String, sector: Option<Slot>, what: String) -> Finding {
        let remedy = "repair rewrites it from what is good; if it comes back, replace the spare";
        Finding { severity: Severity::Problem, place, sector, what, remedy }
    }

    pub(super) fn note(place: String, sector: Option<Slot>, what: String) -> Finding {
        let remedy = "none needed: the next opening puts it right";
        Finding { severity: Severity::Note, place, sector, what, remedy }
    }
}

/// The superblock in force, and the number that each copy holds, if it is good.
pub(super) fn superblock<D: Disk>(
    disk: &mut D,
    findings: &mut Findings,
) -> Result<(Superblock, [Option<u64>; 5]), Error> {
    let physical = unit(disk)?;
    let copies = COPIES.map(|sector| read_copy(disk, sector, physical));
    let incompatible = copies.iter().find_map(|copy| match copy {
        Err(Flaw::Incompatible(bits)) => Some(*bits),
        _ => None,
    });
    if let Some(bits) = incompatible {
        return Err(Error::Incompatible { bits });
    }
    let good = || copies.iter().flatten();
    let Some(best) = good().max_by_key(|copy| copy.number).cloned() else {
        let unreadable = copies.iter().filter(|c| matches!(c, Err(Flaw::Unreadable(_)))).count();
        let blank =
            copies.iter().filter(|c| matches!(c, Err(Flaw::Damaged(Damage::Blank)))).count();
        return Err(match blank {
            5 => Error::NotFormatted,
            _ => Error::NoSuperblock { unreadable, damaged: 5 - unreadable },
        });
    };
    if let Some(other) = good().find(|copy| copy.label != best.label) {
        return Err(Error::TwoLabels { first: best.label.uuid, second: other.label.uuid });
    }
    if good().any(|copy| copy.number == best.number && *copy != best) {
        return Err(Error::Disagree { number: best.number });
    }
    for (n, (copy, sector)) in copies.iter().zip(COPIES).enumerate() {
        let place = || format!("superblock copy {n}");
        match copy {
            Err(flaw) => findings.push(Finding::problem(place(), Some(sector), flaw.to_string())),
            Ok(copy) if copy.number < best.number => {
                let what = format!("is number {}, the newest is {}", copy.number, best.number);
                findings.push(Finding::problem(place(), Some(sector), what));
            }
            Ok(_) => {}
        }
    }
    let numbers = copies.map(|copy| copy.ok().map(|copy| copy.number));
    let size = disk.size();
    if size < best.geometry.spare {
        return Err(Error::Truncated { size, label: best.geometry.spare });
    }
    if physical > best.geometry.unit {
        return Err(Error::BlockGrew { unit: best.geometry.unit, physical });
    }
    Ok((best, numbers))
}

fn read_copy<D: Disk>(disk: &mut D, sector: Slot, unit: Sectors) -> Result<Superblock, Flaw> {
    if sector + unit > Slot(0) + disk.size() {
        return Err(Damage::Blank.into());
    }
    let mut block = vec![0; unit.bytes() as usize];
    disk.read(sector, &mut block).map_err(Flaw::Unreadable)?;
    Superblock::decode(sector, &block)
}

/// What a spare holds.
#[derive(Debug)]
pub(super) struct Recovered {
    pub table: Table,
    /// The last commit in it.
    pub sequence: u64,
    /// The log goes on at this position.
    pub head: u64,
}

/// Everything after the superblock. `accept_tail` serves a chain that an unreadable block may go on in.
pub(super) fn contents<D: Disk>(
    disk: &mut D,
    superblock: &Superblock,
    accept_tail: bool,
    findings: &mut Findings,
) -> Result<Recovered, Error> {
    let (mut table, checkpointed) = checkpoint::read(disk, superblock, findings)?;
    let log = read_log(disk, superblock, findings)?;
    let mut sequence = superblock.checkpoint.sequence;
    for (&later, record) in &log.records {
        if later != sequence + 1 {
            return Err(Error::Gap { missing: sequence + 1, later });
        }
        let bounds = Bounds::of(superblock);
        let changes = read_entries(&record.block, record.count, &bounds).map_err(Error::Damaged)?;
        changes.iter().for_each(|change| table.apply(change));
        sequence = later;
    }
    if sequence < superblock.sequence {
        let witness = format!("superblock {}", superblock.number);
        return Err(Error::Behind { found: sequence, named: superblock.sequence, witness });
    }
    let held = |sequence, otherwise| log.records.get(&sequence).map_or(otherwise, |r| r.held);
    let last = held(sequence, superblock.live);
    let before = held(sequence.wrapping_sub(1), checkpointed);
    let geometry = &superblock.geometry;
    let unreadable = |m, position| log.unreadable.contains(&geometry.log_block(m, position));
    // Where the next record is, if there is one: a mirror that fails more often is declared dead.
    let window = |head| head..head + u64::from(STRIKES);
    // A cut takes the last record from a mirror, and no more: one that lacks two has fallen behind.
    let vouches = |m: usize| last[m] || before[m];
    let hidden = |position| (0..2).all(|m| !vouches(m) || unreadable(m, position));
    let mut head = log.head;
    if let Some(position) = window(head).find(|&position| hidden(position)) {
        if !accept_tail {
            let sector = geometry.log_block(usize::from(!last[0]), position);
            return Err(Error::UnreadableTail { sequence, sector });
        }
        // Behind such blocks, which may stay as they are: no later opening shall ask for them again.
        let lost = |position| (0..2).all(|m| !superblock.live[m] || unreadable(m, position));
        let clear = |head: &u64| !window(*head).any(lost);
        head = (head..head + u64::from(geometry.log_blocks)).find(clear).unwrap_or(head);
    }
    slots_are_disjoint(&table).map_err(Error::Damaged)?;
    Ok(Recovered { table, sequence, head })
}

struct Record {
    count: u32,
    /// The block up to its last entry; the header blank, as it differs between copies.
    block: Vec<u8>,
    held: [bool; 2],
}

struct Log {
    records: BTreeMap<u64, Record>,
    head: u64,
    unreadable: Vec<Slot>,
}

/// The records after the checkpoint, from all live mirrors together: each was acknowledged only once
/// it was in all of them, and the next one sent only then, so one copy of each is enough.
fn read_log<D: Disk>(
    disk: &mut D,
    superblock: &Superblock,
    findings: &mut Findings,
) -> Result<Log, Error> {
    let geometry = &superblock.geometry;
    let mut log =
        Log { records: BTreeMap::new(), head: superblock.checkpoint.position, unreadable: vec![] };
    let mut refusal = None;
    for mirror in (0..2).filter(|&m| superblock.live[m]) {
        let start = geometry.mirrors[mirror];
        read_blocks(disk, start, geometry.log_blocks, geometry.unit, |index, block| {
            let sector = block_at(start, index, geometry.unit);
            let place = || format!("log block {index} of mirror {mirror}");
            let block = match block {
                Ok(block) => block,
                Err(e) => {
                    log.unreadable.push(sector);
                    let what = format!("cannot be read: {e}");
                    findings.push(Finding::problem(place(), Some(sector), what));
                    return;
                }
            };
            match Header::open(Kind::Record, sector, block) {
                Ok(header) => {
                    if let Err(e) = log.take(superblock, mirror, &header, block) {
                        refusal.get_or_insert(e);
                    }
                }
                Err(Damage::Blank) => {}
                Err(damage) => {
                    findings.push(Finding::note(place(), Some(sector), damage.to_string()));
                }
            }
        });
    }
    refusal.map_or(Ok(log), Err)
}

impl Log {
    fn take(
        &mut self,
        superblock: &Superblock,
        mirror: usize,
        header: &Header,
        block: &[u8],
    ) -> Result<(), Error> {
        if header.label != superblock.label || header.epoch < superblock.epoch {
            return Ok(());
        }
        if header.epoch > superblock.epoch || header.superblock > superblock.number {
            return Err(Error::Behind {
                found: superblock.sequence,
                named: header.sequence,
                witness: format!(
                    "a log record of superblock {} (the newest found is {})",
                    header.superblock, superblock.number
                ),
            });
        }
        let from = superblock.checkpoint.position;
        let log_blocks = u64::from(superblock.geometry.log_blocks);
        if header.sequence <= superblock.checkpoint.sequence {
            return Ok(());
        }
        if !(from..from + log_blocks).contains(&header.ordinal)
            || superblock.geometry.log_block(mirror, header.ordinal) != header.sector
        {
            return Err(Error::Damaged(format!("record {} is out of place", header.sequence)));
        }
        self.head = self.head.max(header.ordinal + 1);
        let Some(entries) = block.get(HEADER..HEADER + header.count as usize * ENTRY) else {
            return Err(Error::Damaged(format!("{} entries in one block", header.count)));
        };
        let record = self.records.entry(header.sequence).or_insert_with(|| Record {
            count: header.count,
            block: [&[0; HEADER], entries].concat(),
            held: [false; 2],
        });
        if record.block[HEADER..] != *entries {
            return Err(Error::Conflict { sequence: header.sequence });
        }
        record.held[mirror] = true;
        Ok(())
    }
}
