//! What keeps the daemon from waiting for the device it serves: memory that is never swapped out,
//! allocations that start no I/O, and no death for want of memory.

use std::fs;
use std::io;
use std::time::Duration;

use nix::sys::mman::{MlockAllFlags, mlockall};

use super::supervisor::AGAIN;

/// Of each thread, in bytes: all of it is locked in memory.
pub const STACK: usize = 512 << 10;
/// Of the threads that wait for disks, one each: how long one lasts when it has nothing to do. Longer than it is between
/// two looks at the system, for a new one takes memory; less than twice that, or two would look in turn for ever.
pub const IDLE: Duration = AGAIN.saturating_add(Duration::from_secs(2));
/// And their name.
pub const WAITING: &str = "waiting";
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// To be called before any thread starts, because threads inherit part of it.
pub fn harden() -> io::Result<()> {
    let step = |what: &str, result: io::Result<()>| {
        result.map_err(|error| {
            let remedy = "run it as root, with CAP_SYS_RESOURCE and CAP_IPC_LOCK";
            io::Error::new(error.kind(), format!("cannot {what}: {error}; {remedy}"))
        })
    };
    let flusher = rustix::process::configure_io_flusher_behavior(true);
    step("become an I/O flusher", flusher.map_err(Into::into))?;
    let locked = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    step("lock memory", locked.map_err(Into::into))?;
    // Below -999 the kernel would rather panic than end the daemon.
    step("lower the out-of-memory score", fs::write(OOM_SCORE, "-999"))
}
