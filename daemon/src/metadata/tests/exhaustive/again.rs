//! The recovery is cut in turn, in every state that a crash left.

use std::collections::HashSet;

use super::cuts::{Bound, Point, cuts};
use super::operations::{Found, Operation};
use super::recorder::{Op, Recorder};
use super::visit::{Left, Row, Written};
use crate::metadata::tests::*;
use crate::metadata::{CommitError, Error};

pub const BOUND: Bound = Bound { sectors: 10, samples: 256, seed: 2 };

/// Every crash of the recovery from every crash; where it gets through, the spare serves on.
pub fn second(operation: &Operation, left: &[Left], row: &mut Row) {
    let mut seen = HashSet::new();
    for Left { point, done, .. } in left {
        let mut disk = Recorder::on(point.image.clone());
        let Ok((found, ops)) = recover(operation, &mut disk) else {
            let begun = format(&mut disk, &request());
            begun.unwrap_or_else(|e| panic!("{}: cannot be begun again: {e}", operation.name));
            continue;
        };
        serves_on(operation, disk, &found, "a crash");
        let after = found == operation.after;
        let fresh = |hash, recovered| seen.insert((hash, recovered, *done, after));
        row.cut[0] += cuts(point, &ops, 0, BOUND, fresh, |state, recovered| {
            row.cut[1] += 1;
            cut(operation, Recorder::on(state.image), *done, recovered.then_some(&found));
        });
    }
}

/// A superblock that was read from the disk's cache was taken for durable, and the checkpoint area of its
/// predecessor overwritten; the power cut then brought the predecessor back. So the process dies after
/// each step, the disk keeps what it has in its cache, and the power fails while the next owner
/// recovers from that.
pub fn killed(operation: &Operation, row: &mut Row) {
    let start = Point { image: operation.start.clone(), hash: 0 };
    let mut seen = HashSet::new();
    let mut disk = Recorder::on(operation.start.clone());
    for n in 0..operation.ops.len() {
        if let Some(Op::Write { block, content, failed: false }) =
            n.checked_sub(1).map(|n| &operation.ops[n])
        {
            (*block..).zip(content).for_each(|(b, content)| disk.image.put(b, content.clone()));
        }
        let mut next = disk.clone();
        let Ok((found, ops)) = recover(operation, &mut next) else { continue };
        let both = [&operation.ops[..n], &ops[..]].concat();
        let fresh = |hash, recovered| seen.insert((hash, recovered, found == operation.after));
        row.killed[0] += cuts(&start, &both, n, BOUND, fresh, |state, recovered| {
            row.killed[1] += 1;
            if recovered {
                cut(operation, Recorder::on(state.image), false, Some(&found));
            } else {
                let mut disk = Recorder::on(state.image);
                let again = operation.open(&mut disk).map(|store| Found::of(&store));
                operation.judge(&again, false, "a crash after the process had died");
            }
        });
    }
}

/// What is found, and what the recovery did to the disk.
pub fn recover(operation: &Operation, disk: &mut Recorder) -> Result<(Found, Vec<Op>), Error> {
    let found = operation.open(disk).map(|store| Found::of(&store))?;
    let ops = std::mem::take(&mut disk.ops);
    let name = operation.name;
    assert!(Written::by(operation, &ops).logs.is_empty(), "{name}: recovery writes to the log");
    Ok((found, ops))
}

/// Opens a disk on which a recovery was cut, or had returned with what it found.
pub fn cut(operation: &Operation, mut disk: Recorder, done: bool, recovered: Option<&Found>) {
    let again = operation.open(&mut disk).map(|store| Found::of(&store));
    let outcome = operation.judge(&again, done, "a crash of its recovery");
    assert!(outcome < 2, "{}: the label was lost in recovery", operation.name);
    if let Some(found) = recovered {
        let name = operation.name;
        assert_eq!(again.as_ref().unwrap(), found, "{name}: recovery is not durable");
    }
}

/// A recovered disk takes a commit; once its bad blocks show again what they had, it holds that and
/// what was found.
pub fn serves_on(operation: &Operation, mut disk: Recorder, found: &Found, when: &str) {
    let name = format!("{}: {when}", operation.name);
    let mut store = operation
        .open(&mut disk)
        .unwrap_or_else(|e| panic!("{name}: opened again after a recovery: {e}"));
    let more = [map(store.superblock(), 60)];
    let mut result = store.commit(&more);
    while let Err(CommitError::Unknown { .. }) = result {
        result = store.restate();
    }
    let durable = result.unwrap_or_else(|e| panic!("{name}: a commit after the recovery: {e}"));
    assert_eq!(durable.sequence(), found.sequence + 1, "{name}");
    disk.bad_reads.clear();
    disk.bad_writes.clear();
    let store = operation
        .open(&mut disk)
        .unwrap_or_else(|e| panic!("{name}: opened after a commit after the recovery: {e}"));
    let wanted = Found { table: table_with(&found.table, &more), sequence: found.sequence + 1 };
    assert_eq!(Found::of(&store), wanted, "{name}: a commit after the recovery");
}
