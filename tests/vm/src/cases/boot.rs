//! The guest itself is what the other cases take it for.

use std::fs;

use anyhow::{Result, ensure};

use crate::case::Case;
use crate::guest::{Ctx, run};

pub const CASES: &[Case] = &[Case::new("boot.sane", 20, sane)];

/// The kernel is a stock one with its own modules, and the tools that cases call start.
fn sane(ctx: &mut Ctx) -> Result<()> {
    let release = run(&["uname", "-r"])?;
    let release = release.trim();
    ensure!(fs::exists(format!("/lib/modules/{release}/modules.dep"))?, "no modules of {release}");
    let taint = fs::read_to_string("/proc/sys/kernel/tainted")?;
    ensure!(taint.trim() == "0", "the kernel is tainted: {taint}");
    ensure!(std::thread::available_parallelism()?.get() == 2, "not two processors");
    run(&["dmsetup", "--version"])?;
    run(&["mkfs.ext4", "-V"])?;
    run(&["e2fsck", "-V"])?;
    ctx.note(format!("kernel {release}"))
}
