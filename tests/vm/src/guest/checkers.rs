//! The kernel's own checkers, where it has them: they must be at work to the end, and find nothing. What they report by
//! themselves is in the kernel's log, which the host judges; the rest is asked for here.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::kernel::checked;

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
const LOCKDEP: &str = "/proc/lockdep_stats";
/// kmemleak says nothing of younger objects.
const MIN_AGE: Duration = Duration::from_secs(6);
/// Code of the kernel that has no name, in either place where modules may be: that of a module which is gone.
const GONE: &str = "0xffffffff";

/// Fails where lockdep has stopped, which it does with its first report: no case after it proves anything.
pub fn lockdep_works() -> Result<()> {
    if !checked() {
        return Ok(());
    }
    let stats = fs::read_to_string(LOCKDEP).context(LOCKDEP)?;
    let line = stats.lines().find_map(|line| line.trim().strip_prefix("debug_locks:"));
    ensure!(line.context("lockdep says nothing")?.trim() == "1", "lockdep is off");
    Ok(())
}

/// What nothing points to, and was allocated in a module's name; each in a line. Other modules count too: once they
/// are gone, nobody knows whose frames those were.
pub fn leaks() -> Result<Vec<String>> {
    if !checked() {
        return Ok(Vec::new());
    }
    std::thread::sleep(MIN_AGE);
    // The first only notes sums of what it finds, in case they are in use and changing.
    for _ in 0..2 {
        fs::write(KMEMLEAK, "scan").context("kmemleak does not scan")?;
    }
    Ok(of_modules(&fs::read_to_string(KMEMLEAK).context(KMEMLEAK)?))
}

/// What takes longer here must not count as hung.
pub fn set_up() -> Result<()> {
    if checked() {
        set_hung_after(hung_after()? * u64::from(super::kernel::slowness()))?;
    }
    Ok(())
}

const HUNG_AFTER: &str = "/proc/sys/kernel/hung_task_timeout_secs";

fn hung_after() -> Result<u64> {
    Ok(fs::read_to_string(HUNG_AFTER).context(HUNG_AFTER)?.trim().parse()?)
}

fn set_hung_after(seconds: u64) -> Result<()> {
    fs::write(HUNG_AFTER, seconds.to_string()).context(HUNG_AFTER)
}

/// For as long as this lives, a task counts as hung when it has waited for so long that nothing interrupts.
pub struct HungTasks {
    usual: u64,
}

impl HungTasks {
    pub fn after(seconds: u64) -> Result<HungTasks> {
        let usual = hung_after()?;
        set_hung_after(seconds)?;
        Ok(HungTasks { usual })
    }
}

impl Drop for HungTasks {
    fn drop(&mut self) {
        // It could be set before.
        let _ = set_hung_after(self.usual);
    }
}

fn of_modules(report: &str) -> Vec<String> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    for line in report.lines() {
        if line.starts_with("unreferenced object") {
            found.push(Vec::new());
        }
        if let Some(last) = found.last_mut() {
            last.push(line.trim());
        }
    }
    let named = |line: &str| line.ends_with(']') && line.contains(" [");
    let of_module = |lines: &Vec<&str>| {
        let mut frames = lines.iter().skip_while(|line| !line.starts_with("backtrace")).copied();
        frames.any(|line| named(line) || line.starts_with(GONE))
    };
    found
        .into_iter()
        .filter(of_module)
        .map(|lines| format!("a leak: {}", lines.join(" / ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: &str = "unreferenced object 0xffff888004c55000 (size 8):\n  comm \"init\", pid 1, jiffies 4294667296\n  \
        hex dump (first 8 bytes):\n    01 00 00 00 00 00 00 00  [.......]\n  backtrace (crc 0):\n    \
        kmalloc_trace+0x1f/0x30\n    do_one_initcall+0x40/0x1d0\n";

    #[test]
    fn only_what_modules_allocated_counts() {
        let ours = CORE.replace("do_one_initcall+0x40/0x1d0", "dmr_ctr+0x1/0x2 [dm_remap_shim]");
        let gone =
            |at| CORE.replace("do_one_initcall+0x40/0x1d0", &format!("0xffffffff{at}0123456"));
        assert!(of_modules(CORE).is_empty());
        let found = of_modules(&format!("{CORE}{ours}{CORE}{}{}", gone("a"), gone("c")));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("dmr_ctr") && !found[0].contains("do_one_initcall"));
    }
}
