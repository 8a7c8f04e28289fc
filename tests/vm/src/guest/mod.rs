//! The side inside the guest.
//!
//! [`init`] is the guest's first process; it runs each case in a process of its own. The rest is what cases are
//! written with. Whatever a case sets up is a value that takes it down again when dropped; what is left behind
//! all the same fails the case.

pub mod checkers;
pub mod churn;
pub mod cmd;
mod ctx;
pub mod daemon;
pub mod deadline;
pub mod devices;
pub mod disk;
pub mod dm;
pub mod fs;
pub mod init;
pub mod inject;
pub mod journal;
pub mod kernel;
pub mod kmsg;
mod leftovers;
pub mod load;
pub mod lvm;
pub mod manager;
pub mod md;
pub mod module;
pub mod owner;
pub mod pattern;
pub mod pliable;
pub mod scsi;
pub mod served;
pub mod setup;
pub mod spare;
pub mod stat;
pub mod steer;
pub mod trace;
pub mod tracer;

pub use cmd::{Cmd, run};
pub use ctx::Ctx;
pub use disk::Disk;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Where logs of a case go; shown by the host when the case fails.
pub const LOGS: &str = "/run/vm/logs";

/// Waits until `true`, or fails saying what did not come within `limit` of a stock guest's time.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut come: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !come()? {
        if start.elapsed() > kernel::scaled(limit) {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Loads a module and what it needs, with parameters.
pub fn modprobe(module: &str, parameters: &[&str]) -> Result<()> {
    Cmd::new("modprobe").arg(module).args(parameters).run()?;
    Ok(())
}

/// Unloads a module.
pub fn rmmod(module: &str) -> Result<()> {
    run(&["modprobe", "-r", module])?;
    Ok(())
}

/// The driver of the guest's virtio disks.
fn load_virtio_blk() -> Result<()> {
    modprobe("virtio_pci", &[])?;
    modprobe("virtio_blk", &[])
}
