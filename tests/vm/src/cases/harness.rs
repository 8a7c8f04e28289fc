//! The harness sees what goes wrong: each of these fails, and counts as passed because it does.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::case::Case;
use crate::guest::devices::Brd;
use crate::guest::{Ctx, dm};

pub const CASES: &[Case] = &[
    Case::new("harness.error-is-seen", 10, |_| bail!("on purpose")).must_fail("on purpose"),
    Case::new("harness.kernel-warning-is-seen", 10, kernel_warning)
        .must_fail("WARNING: CPU: 0 PID: 1 at"),
    Case::new("harness.hung-task-is-seen", 10, hung_task).must_fail("blocked for more than"),
    Case::new("harness.slow-case-is-seen", 2, slow).must_fail("not done within 2 s"),
    Case::new("harness.dead-case-is-seen", 10, dead).must_fail("ended without a result"),
    Case::new("harness.forgotten-process-is-seen", 10, forgotten_process)
        .must_fail("left behind: process sleep"),
    // The last two cost a boot each.
    Case::new("harness.forgotten-device-is-seen", 10, forgotten_device)
        .must_fail("left behind: /sys/class/block/dm-0"),
    Case::new("harness.panic-is-seen", 10, panic_is_seen).must_fail("Kernel panic"),
];

fn kernel_warning(_: &mut Ctx) -> Result<()> {
    fs::write("/dev/kmsg", "<4>WARNING: CPU: 0 PID: 1 at drivers/md/nowhere.c:1\n")?;
    Ok(())
}

fn hung_task(_: &mut Ctx) -> Result<()> {
    fs::write("/dev/kmsg", "<3>INFO: task vm:1 blocked for more than 120 seconds.\n")?;
    Ok(())
}

fn slow(_: &mut Ctx) -> Result<()> {
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

fn dead(_: &mut Ctx) -> Result<()> {
    std::process::abort()
}

/// A process of its own group, which the end of the case does not reach.
fn forgotten_process(_: &mut Ctx) -> Result<()> {
    Command::new("sleep").arg("1000").process_group(0).spawn()?;
    Ok(())
}

fn forgotten_device(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 4)?;
    let device = dm::disk_with_bad_sectors("forgotten", &brd.path(0), &[1])?;
    std::mem::forget(device);
    std::mem::forget(brd);
    Ok(())
}

/// A real panic, of a real kernel.
fn panic_is_seen(_: &mut Ctx) -> Result<()> {
    fs::write("/proc/sysrq-trigger", "c")?;
    Ok(())
}
