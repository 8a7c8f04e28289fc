//! All cases. Each file holds those of one subject.

mod bad_spare;
mod boot;
mod config;
mod conformance;
mod daemon;
mod demo;
mod disks;
mod doorbell;
mod flush_failures;
mod flushes;
mod fua_cuts;
mod fuzz;
mod geometry;
mod half_formatted;
mod harness;
mod hung;
mod injected;
mod killed;
mod kunit;
mod late_write;
mod log_writes;
mod mistakes;
mod module;
mod no_daemon;
mod partitions;
mod poison;
mod power_cuts;
mod pressure;
mod reload;
mod scattered;
pub mod soak;
mod stopped;
mod storm;
mod superblocks;
mod suspend;
mod target;
mod watched;
mod workloads;
mod wrong_spare;

use anyhow::{Context, Result};

use crate::case::Case;

const TABLES: &[&[Case]] = &[
    boot::CASES,
    disks::CASES,
    module::CASES,
    target::CASES,
    daemon::CASES,
    watched::CASES,
    killed::CASES,
    doorbell::CASES,
    late_write::CASES,
    no_daemon::CASES,
    partitions::CASES,
    pressure::CASES,
    stopped::CASES,
    suspend::CASES,
    fuzz::CASES,
    conformance::CASES,
    flushes::CASES,
    flush_failures::CASES,
    fua_cuts::CASES,
    log_writes::CASES,
    power_cuts::CASES,
    bad_spare::CASES,
    wrong_spare::CASES,
    half_formatted::CASES,
    config::CASES,
    reload::CASES,
    hung::CASES,
    superblocks::CASES,
    scattered::CASES,
    poison::CASES,
    geometry::CASES,
    storm::CASES,
    workloads::CASES,
    soak::CASES,
    demo::CASES,
    injected::CASES,
    kunit::CASES,
    harness::CASES,
    mistakes::CASES,
];

/// Every case, in the order they run.
pub fn all() -> impl Iterator<Item = Case> {
    TABLES.iter().copied().flatten().copied()
}

/// The case of that name.
pub fn find(name: &str) -> Result<Case> {
    all()
        .chain([soak::LONG])
        .find(|case| case.name == name)
        .with_context(|| format!("no case is called {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_one_word() {
        let mut names: Vec<&str> = all().map(|case| case.name).collect();
        assert!(names.iter().all(|name| !name.contains(char::is_whitespace)));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
