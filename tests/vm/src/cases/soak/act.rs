//! Doing what the plan says.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmremap_disks::server::Side;
use nix::sys::signal::Signal;

use super::judge::{self, Line};
use super::plan::Act;
use super::{DATA_SECTORS, flat::Sample};
use crate::guest::dm::Device;
use crate::guest::load::Random;
use crate::guest::served::{self, NAME, Served, policyd};
use crate::guest::spare::Areas;
use crate::guest::steer::Steer;
use crate::guest::wait_until;

/// How long what is under way may take to end, in guest time.
const PATIENCE: Duration = Duration::from_secs(60);
/// The name of the threads of the daemon that wait for disks; all but one end when they have been idle for some seconds.
const WAITING: &str = "waiting";
/// The daemon's C library keeps nothing that was given back for later, of stacks neither: what grows is in use.
pub const FRUGAL: [(&str, &str); 1] = [(
    "GLIBC_TUNABLES",
    "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072:\
     glibc.pthread.stack_cache_size=0",
)];
/// Restarts are well within it.
const OPTIONS: &str = "hold_deadline_ms = 110000";

/// What a boot serves, and what makes trouble for it.
pub struct Scene {
    pub served: Served,
    pub disks: [std::path::PathBuf; 2],
    pub steer: Steer,
    pub slots: Areas,
}

fn device() -> Device {
    Device::shared(NAME)
}

/// What is held is pushed back.
fn push_back() -> Result<()> {
    device().suspend_noflush()?;
    device().resume()
}

impl Scene {
    /// On disks that were formatted before.
    pub fn configure(disks: &[std::path::PathBuf; 2], policy: &str) -> Result<()> {
        served::configure_all(policy, &[(&disks[0], &disks[1])], OPTIONS)
    }

    /// Before anything can come of it, `tell` has written it down.
    pub fn act(
        &mut self,
        act: Act,
        random: &mut Random,
        tell: &dyn Fn(Line) -> Result<()>,
    ) -> Result<()> {
        match act {
            Act::Bad { places, side } => {
                // Near each other, as they are on real disks.
                let start = random.below(DATA_SECTORS - 600);
                for _ in 0..places {
                    let at = start + random.below(590);
                    let sectors = at..at + 1 + random.below(3);
                    tell(Line::Bad { sectors: sectors.clone(), reads: side != Side::Write })?;
                    self.steer.bad(0, sectors, side)?;
                    tell(Line::BadNow)?;
                }
            }
            Act::BadSlots { places } => {
                for _ in 0..places {
                    tell(Line::Did(judge::SLOTS))?;
                    let at = self.slots.slots + random.below(self.slots.slot_sectors / 4);
                    self.steer.bad(1, at..at + 1, Side::Write)?;
                }
            }
            Act::Kill { down_ms, suspend } => {
                tell(Line::Did(judge::KILL))?;
                self.served.kill()?;
                if suspend {
                    push_back()?;
                }
                thread::sleep(Duration::from_millis(down_ms));
                self.served.again_in_env(&FRUGAL).context("after a kill")?;
            }
            Act::Stop { down_ms, suspend } => {
                tell(Line::Did(judge::STOP))?;
                self.served.daemon.signal(Signal::SIGSTOP)?;
                thread::sleep(Duration::from_millis(down_ms));
                let suspended = if suspend { push_back() } else { Ok(()) };
                self.served.daemon.signal(Signal::SIGCONT)?;
                suspended?;
            }
            Act::Reload { value } => {
                tell(Line::Did(judge::RELOAD))?;
                Self::configure(&self.disks, &format!("[policy]\nread_retries = {}", value % 5))?;
                policyd(&["reload"])?.run()?;
            }
            Act::Suspend => {
                tell(Line::Did(judge::SUSPEND))?;
                device().suspend()?;
                device().resume()?;
            }
            Act::Table { value } => {
                tell(Line::Did(judge::TABLE))?;
                let table = device().table()?;
                let mut words: Vec<String> = table.split_whitespace().map(str::to_owned).collect();
                let at = words.iter().position(|word| word == "max_held_bios");
                words[at.context("no max_held_bios")? + 1] = value.to_string();
                device().load(&format!("{}\n", words.join(" ")))?;
                device().suspend()?;
                device().resume()?;
            }
        }
        Ok(())
    }

    /// Once nothing is under way.
    pub fn sample(&self) -> Result<Sample> {
        let live = |what: &str| -> Result<u64> {
            let path = format!("/sys/module/dm_remap_shim/parameters/live_{what}");
            let text = fs::read_to_string(&path).context(path)?;
            Ok(text.trim().parse()?)
        };
        // What does not end by itself is seen by the judge.
        let _ = wait_until("the end of all faults", PATIENCE, || {
            Ok(live("faults")? == 0 && device().remap_status()?.held == 0)
        });
        let usage = self.served.status()?;
        ensure!(!usage.contains("spare-low"), "the spare is too small for so long: {usage}");
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        let pid = self.served.daemon.pid();
        // Each has a stack, all of it in memory. One stays: it looks at the system.
        wait_until("the end of the daemon's waiting threads", PATIENCE, || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
            let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
            // One that has just ended has no name.
            let names = tasks.flatten().filter_map(|task| name(task).ok());
            Ok(names.filter(|comm| comm.trim() == WAITING).count() <= 1)
        })?;
        let status = device().remap_status()?;
        Ok(Sample {
            rss_kib: kib(&format!("/proc/{pid}/status"), "VmRSS:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            live: [live("instances")?, live("faults")?, status.held],
            slab_kib: kib("/proc/meminfo", "SUnreclaim:")?,
            extents: status.extents,
        })
    }
}

fn kib(path: &str, field: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.with_context(|| format!("no {field} in {path}"))?.parse()?)
}
