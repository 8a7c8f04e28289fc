//! Faults that the debug kernel injects: allocations of the module, and requests to a disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::stat::{major, minor};

use super::modprobe;

/// More than any case injects; what is left says how many were.
const TIMES: u64 = 1_000_000;

/// Some of the calls of one kind fail, until this is dropped.
pub struct Injection {
    dir: PathBuf,
}

impl Injection {
    /// Of the allocations with the module's code on their stack, so many in a hundred fail.
    pub fn of_allocations(percent: u32) -> Result<Self> {
        modprobe("dm_remap_shim", &[])?;
        let (start, end) = code_of_module()?;
        let injection = Self { dir: "/sys/kernel/debug/failslab".into() };
        injection.set("ignore-gfp-wait", "N")?;
        injection.set("require-start", &format!("{start:#x}"))?;
        injection.set("require-end", &format!("{end:#x}"))?;
        // It has a warning of its own, with its stack, for want of memory.
        let (start, end) = code_of_function("__kmem_cache_create_args")?;
        injection.set("reject-start", &format!("{start:#x}"))?;
        injection.set("reject-end", &format!("{end:#x}"))?;
        injection.begin(percent)?;
        Ok(injection)
    }

    /// Of the requests to these disks.
    pub fn of_requests(disks: &[&Path], percent: u32) -> Result<Self> {
        for disk in disks {
            let number = fs::metadata(disk).with_context(|| disk.display().to_string())?.rdev();
            let (major, minor) = (major(number), minor(number));
            let switch = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/make-it-fail"));
            fs::write(&switch, "1").with_context(|| switch.display().to_string())?;
        }
        let injection = Self { dir: "/sys/kernel/debug/fail_make_request".into() };
        injection.begin(percent)?;
        Ok(injection)
    }

    fn begin(&self, percent: u32) -> Result<()> {
        self.set("verbose", "0")?;
        self.set("interval", "1")?;
        self.set("space", "0")?;
        self.set("times", &TIMES.to_string())?;
        self.set("probability", &percent.to_string())
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
    }

    /// How many have failed so far.
    pub fn count(&self) -> Result<u64> {
        let left: u64 = fs::read_to_string(self.dir.join("times"))?.trim().parse()?;
        Ok(TIMES - left)
    }

    /// Ends it; fails unless something was injected.
    pub fn end(self) -> Result<u64> {
        let count = self.count()?;
        ensure!(count > 0, "nothing was injected");
        Ok(count)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // The disks that may fail go with their case.
        let _ = self.set("probability", "0");
    }
}

/// Address and the rest of each function that the kernel knows.
fn functions() -> Result<Vec<(u64, String)>> {
    let text = fs::read_to_string("/proc/kallsyms")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let (address, rest) = line.split_once(' ').context("an odd line of kallsyms")?;
        if let Some(name) = rest.strip_prefix("t ").or_else(|| rest.strip_prefix("T ")) {
            found.push((u64::from_str_radix(address, 16)?, name.to_string()));
        }
    }
    found.sort_unstable();
    ensure!(found.first().is_some_and(|(address, _)| *address > 0), "the symbols are hidden");
    Ok(found)
}

/// Where the module's code is.
fn code_of_module() -> Result<(u64, u64)> {
    let functions = functions()?;
    let mut ours = functions.iter().filter(|(_, name)| name.ends_with("[dm_remap_shim]"));
    let first = ours.next().context("the module has no symbols")?.0;
    // The last function is shorter than a page.
    Ok((first, ours.next_back().map_or(first, |last| last.0) + 4096))
}

fn code_of_function(name: &str) -> Result<(u64, u64)> {
    let functions = functions()?;
    let at = functions.iter().position(|(_, found)| found == name).context("no such function")?;
    let start = functions[at].0;
    let next = functions[at..].iter().find(|(address, _)| *address > start);
    Ok((start, next.context("the last function")?.0))
}
