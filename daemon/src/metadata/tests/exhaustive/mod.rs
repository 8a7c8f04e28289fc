//! Every crash of every operation, every crash of the recovery from it, and a bad block at the same
//! time: what is found is exactly the table before or exactly the table after, and after it once the
//! operation has returned.

mod again;
mod cuts;
mod faults;
mod image;
mod operations;
mod recorder;
mod visit;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use operations::Operation;
use visit::Row;

const COLUMNS: [&str; 13] = [
    "states", "images", "before", "after", "no label", "apart", "cut", "images", "killed",
    "images", "faults", "cut", "images",
];

/// What is visited; see `Row`. All of it is enumerated or comes from fixed seeds: less than this is
/// coverage lost, and a change of what is written shows here too.
const VISITED: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/metadata/tests/exhaustive/visited.txt");

#[test]
fn every_crash_leaves_the_table_before_or_the_table_after() {
    let mut table = format!("{:28}", "");
    COLUMNS.iter().for_each(|column| table += &format!("{column:>9}"));
    table += "\n";
    for operation in operations::all() {
        table += &format!("{:28}", operation.name);
        match catch_unwind(AssertUnwindSafe(|| explore(&operation))) {
            Ok(row) => row.iter().for_each(|n| table += &format!("{n:>9}")),
            Err(_) => table += " FAILED, as said above",
        }
        table += "\n";
    }
    // Past the harness, which shows what a test prints only when it fails.
    writeln!(std::io::stderr(), "\nCrashes of the metadata:\n{table}").unwrap();
    let expected = std::fs::read_to_string(VISITED).unwrap();
    assert!(table == expected, "{VISITED} expects\n{expected}");
}

fn explore(operation: &Operation) -> [u64; 13] {
    let mut row = Row::default();
    let left = visit::first(operation, &mut row);
    again::second(operation, &left, &mut row);
    again::killed(operation, &mut row);
    faults::faults(operation, &left, &mut row);
    let Row { states, images, found, apart, cut, killed, faults, faulty } = row;
    let [before, after, none] = found;
    let first = [states, images, before, after, none, apart];
    let again = [cut[0], cut[1], killed[0], killed[1], faults, faulty[0], faulty[1]];
    std::array::from_fn(|n| *first.get(n).unwrap_or_else(|| &again[n - first.len()]))
}
