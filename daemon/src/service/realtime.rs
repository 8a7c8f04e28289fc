//! Before others for a processor, and for the last free memory: the kernel leaves some of it to realtime processes only.
//! Who takes all the rest may be one that waits for the daemon, to swap.
#![allow(unsafe_code)]

use std::io;

use nix::errno::Errno;
use nix::libc::{SCHED_RR, sched_param, sched_setscheduler};

/// Of those there are, the last: it comes only before all that are not realtime.
const PRIORITY: i32 = 1;

/// Of this thread, and of those that it starts.
pub fn start() -> io::Result<()> {
    let param = sched_param { sched_priority: PRIORITY };
    // SAFETY: it reads the parameter, and 0 is the calling thread.
    let done = unsafe { sched_setscheduler(0, SCHED_RR, &raw const param) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}
