//! The harness sees what goes wrong: each of these fails, and counts as passed because it does.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::case::Case;
use crate::guest::checkers::HungTasks;
use crate::guest::devices::Brd;
use crate::guest::kernel::slowness;
use crate::guest::{Ctx, dm, run, wait_until};

pub const CASES: &[Case] = &[
    Case::new("harness.error-is-seen", 10, |_| bail!("on purpose")).must_fail("on purpose"),
    Case::new("harness.kernel-warning-is-seen", 10, kernel_warning)
        .must_fail("WARNING: CPU: 0 PID: 1 at"),
    Case::new("harness.hung-task-is-seen", 30, hung_task).must_fail("INFO: task waiting:"),
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

/// A real one, which waits for a page of a suspended device to be written.
fn hung_task(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(1, 4)?;
    let device = dm::disk_with_bad_sectors("suspended", &brd.path(0), &[])?;
    let _limit = HungTasks::after(u64::from(slowness()))?;
    let mut file = OpenOptions::new().write(true).open(device.path())?;
    device.suspend()?;
    let write = move || file.write_all(&[1; 4096]).and_then(|()| file.sync_all());
    let waiting = thread::Builder::new().name("waiting".into()).spawn(write)?;
    let seen = wait_until("the report", Duration::from_secs(20), || {
        Ok(run(&["dmesg"])?.contains("task waiting:"))
    });
    device.resume()?;
    waiting.join().map_err(|_| anyhow!("the writer panicked"))??;
    seen
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
