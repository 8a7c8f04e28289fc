//! What a case has left behind. A guest that is not clean is not used for another case.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const MODULE: &str = "/sys/module/dm_remap_shim";
/// How long what was told to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// What was found, in words.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Processes that ended when told to.
    pub ended: Vec<String>,
    /// What only another boot clears away.
    pub stuck: Vec<String>,
}

/// Ends forgotten processes and names everything a case should not have left.
pub fn clear() -> Leftovers {
    let ended = processes();
    let mut left = ended.clone();
    let start = Instant::now();
    while !left.is_empty() && start.elapsed() < super::kernel::scaled(GRACE) {
        std::thread::sleep(Duration::from_millis(10));
        left = processes();
    }
    left.extend(entries("/sys/class/block", |name, path| {
        name.starts_with("dm-")
            || name.starts_with("ram")
            || name.starts_with("md")
            || name.starts_with("nullb")
            || (name.starts_with("loop") && path.join("loop/backing_file").exists())
    }));
    left.extend(entries("/sys/kernel/config/nullb", |_, path| path.is_dir()));
    left.extend(entries("/sys/bus/pseudo/devices", |_, _| true));
    left.extend(mounts());
    if Path::new(MODULE).exists() {
        left.extend(live_objects());
        if super::rmmod("dm_remap_shim").is_err() {
            left.push("module dm_remap_shim in use".into());
        }
    }
    Leftovers { ended, stuck: left }
}

/// What the module still holds, when no device of its is left.
fn live_objects() -> Vec<String> {
    let parameters = entries(&format!("{MODULE}/parameters"), |name, _| name.starts_with("live_"));
    let count = |path: &String| fs::read_to_string(path).unwrap_or_default();
    parameters.into_iter().filter(|path| count(path).trim() != "0").collect()
}

/// Kills every process but this one, and names them.
fn processes() -> Vec<String> {
    while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_))
    {
    }
    entries("/proc", |name, path| {
        // Kernel threads and the dead have no program.
        name.parse::<i32>().is_ok_and(|pid| pid != 1) && fs::read_link(path.join("exe")).is_ok()
    })
    .into_iter()
    .filter_map(|path| {
        let pid = path.rsplit('/').next()?.parse().ok()?;
        let name = fs::read_to_string(format!("{path}/comm")).ok()?;
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        Some(format!("process {}", name.trim()))
    })
    .collect()
}

fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = table.lines().filter_map(|line| line.split(' ').nth(1));
    mounted.filter(|at| at.starts_with("/mnt/")).map(String::from).collect()
}

fn entries(dir: &str, wanted: impl Fn(&str, &Path) -> bool) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| wanted(&entry.file_name().to_string_lossy(), &entry.path()))
        .map(|entry| entry.path().display().to_string())
        .collect();
    found.sort();
    found
}
