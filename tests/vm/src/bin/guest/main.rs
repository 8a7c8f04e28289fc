//! Process 1 of a test guest: mounts, runs the cases that the kernel command line names, reports
//! each on the second serial port, powers off. With `list`, prints the names of all cases.

mod cases;
mod disks;
mod owner;

use std::fs::{self, OpenOptions};
use std::io::Write;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("list") {
        for (name, _) in cases::CASES {
            println!("{name}");
        }
        return Ok(());
    }
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>).context(place)?;
    }
    let mut report = OpenOptions::new().write(true).open("/dev/ttyS1")?;
    let line = fs::read_to_string("/proc/cmdline")?;
    let wanted = line.split_whitespace().find_map(|w| w.strip_prefix("cases=")).unwrap_or("");
    for name in wanted.split(',') {
        let result = match cases::CASES.iter().find(|(n, _)| *n == name) {
            Some((_, case)) => case(),
            None => Err(anyhow::anyhow!("no such case")),
        };
        let said = match result {
            Ok(()) => "PASS".to_owned(),
            Err(error) => format!("FAIL {error:#}").replace('\n', " / "),
        };
        writeln!(report, "{}{name} {said}", dmremap_vm::PREFIX)?;
    }
    report.flush()?;
    drop(report);
    // The port is drained before the power goes.
    std::thread::sleep(std::time::Duration::from_millis(300));
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(())
}
