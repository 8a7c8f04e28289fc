//! Tests that run in the kernel: the shipped table and holds, alone, under KASAN, lockdep and RCU proving.

use anyhow::{Result, ensure};

use crate::case::{Case, Kind};
use crate::guest::{Ctx, modprobe, rmmod, run};

pub const CASES: &[Case] = &[
    Case::new("kunit.table-and-holds", 60, table_and_holds).only(Kind::Debug),
    Case::new("kunit.a-wrong-account-is-seen", 60, wrong)
        .must_fail("not ok 1 forgets_a_sector")
        .only(Kind::Debug),
];

/// In the order in which they run.
const TESTS: &[&str] = &[
    "ok 1 empty_is_direct",
    "ok 2 a_lookup_ends_at_an_edge",
    "ok 3 slots_far_below_and_above",
    "ok 4 direct_cuts_and_counts",
    "ok 5 random_changes",
    "ok 6 tables_of_every_size_end",
    "ok 7 a_store_over_many_extents",
    "ok 1 dm_remap_table",
    "ok 1 the_bound_on_bios",
    "ok 2 the_bound_on_sectors",
    "ok 3 without_an_owner",
    "ok 4 a_deadline_is_never_reset",
    "ok 5 unready_has_its_own_deadline",
    "ok 6 a_noflush_suspend_ends_every_hold",
    "ok 7 a_heal_waits_for_a_fault",
    "ok 2 dm_remap_hold",
];

fn table_and_holds(ctx: &mut Ctx) -> Result<()> {
    expect(&of_suites("dm_remap_*")?, TESTS)?;
    ctx.note(format!("{} results of tests in the kernel", TESTS.len()))
}

/// The control: its account of the table lacks a sector.
fn wrong(_: &mut Ctx) -> Result<()> {
    expect(&of_suites("wrong_on_purpose")?, &["ok 1 forgets_a_sector", "ok 1 wrong_on_purpose"])
}

/// What the kernel says while the suites of such names run.
fn of_suites(names: &str) -> Result<String> {
    run(&["dmesg", "-c"])?;
    modprobe("kunit", &[&format!("filter_glob={names}")])?;
    modprobe("dm_remap_kunit", &[])?;
    rmmod("dm_remap_kunit")?;
    let said = run(&["dmesg"])?;
    // It may have gone with the last module that needed it.
    if std::path::Path::new("/sys/module/kunit").exists() {
        rmmod("kunit")?;
    }
    Ok(said)
}

/// Every result, in the TAP format, is a wanted one; and none is missing.
fn expect(said: &str, wanted: &[&str]) -> Result<()> {
    let lines =
        || said.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text).trim());
    let results: Vec<&str> =
        lines().filter(|line| line.starts_with("ok ") || line.starts_with("not ok ")).collect();
    let text: Vec<&str> = lines().collect();
    ensure!(results == wanted, "{}; of: {}", results.join(", "), text.join(" / "));
    Ok(())
}
