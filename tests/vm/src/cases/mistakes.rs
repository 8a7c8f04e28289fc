//! The debug kernel's checkers are at work: each kind of mistake, made on purpose by a module, is held against the case
//! that made it.

use anyhow::Result;

use crate::case::{Case, Kind};
use crate::guest::{Ctx, modprobe, rmmod};

const fn seen(name: &'static str, body: crate::case::Body, report: &'static str) -> Case {
    Case::new(name, 20, body).must_fail(report).only(Kind::Debug)
}

/// After the last four lockdep is off, and each costs a boot.
pub const CASES: &[Case] = &[
    seen(
        "mistakes.sleep-in-atomic-is-seen",
        sleep_in_atomic,
        "BUG: sleeping function called from invalid",
    ),
    seen("mistakes.rcu-without-lock-is-seen", rcu_without_lock, "WARNING: suspicious RCU usage"),
    seen("mistakes.free-of-an-active-timer-is-seen", free_timer, "ODEBUG: free active"),
    // One with a boot of its own, whose end looks for leaks.
    seen("mistakes.a-leak-is-seen", leak, "a leak: unreferenced object").append("vm.alone"),
    seen("mistakes.use-after-free-is-seen", use_after_free, "BUG: KASAN: slab-use-after-free"),
    seen("mistakes.out-of-bounds-is-seen", out_of_bounds, "BUG: KASAN: slab-out-of-bounds"),
    seen("mistakes.an-order-of-locks-is-seen", lock_order, "possible circular locking dependency"),
    seen("mistakes.lockdep-off-is-seen", lockdep_off, "lockdep is off"),
];

fn make(kind: &str) -> Result<()> {
    modprobe("dm_remap_mistakes", &[&format!("kind={kind}")])?;
    rmmod("dm_remap_mistakes")
}

fn sleep_in_atomic(_: &mut Ctx) -> Result<()> {
    make("sleep-in-atomic")
}

fn rcu_without_lock(_: &mut Ctx) -> Result<()> {
    make("rcu-without-lock")
}

fn free_timer(_: &mut Ctx) -> Result<()> {
    make("free-active-timer")
}

fn leak(_: &mut Ctx) -> Result<()> {
    make("leak")
}

fn use_after_free(_: &mut Ctx) -> Result<()> {
    make("use-after-free")
}

fn out_of_bounds(_: &mut Ctx) -> Result<()> {
    make("out-of-bounds")
}

fn lock_order(_: &mut Ctx) -> Result<()> {
    make("lock-order")
}

fn lockdep_off(_: &mut Ctx) -> Result<()> {
    make("lockdep-off")
}
