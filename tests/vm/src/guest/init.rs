//! The guest's first process: sets the guest up, then runs one case after the other as the host orders.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::ctx::Port;
use super::{Ctx, LOGS, checkers, kernel, leftovers};
use crate::proto::{self, Order, SHELL, Said};
use crate::{case::Case, cases};

/// Acknowledgements of earlier phases, for the case's process.
const FACTS: &str = "/run/vm/facts";
/// How the case's process says how it ended.
const RESULT: &str = "/run/vm/result";
/// Lines of each log that are shown when a case fails.
const SHOWN: usize = 60;

/// Runs as the guest's first process and ends by switching the guest off.
pub fn main() -> Result<()> {
    set_up()?;
    let done = if fs::read_to_string("/proc/cmdline")?.split_whitespace().any(|w| w == SHELL) {
        shell()
    } else {
        serve()
    };
    if let Err(error) = &done {
        eprintln!("vm: {error:#}");
    }
    nix::unistd::sync();
    reboot(RebootMode::RB_POWER_OFF)?;
    done
}

fn set_up() -> Result<()> {
    let early = ["/proc", "/sys", "/dev", "/run", "/tmp", "/mnt", "/root"];
    for dir in early {
        fs::create_dir_all(dir)?;
    }
    let attach = |kind: &str, at: &str| {
        fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {kind} at {at}"))
    };
    attach("proc", "/proc")?;
    attach("sysfs", "/sys")?;
    attach("devtmpfs", "/dev")?;
    attach("tmpfs", "/run")?;
    attach("tmpfs", "/tmp")?;
    attach("debugfs", "/sys/kernel/debug")?;
    attach("tracefs", "/sys/kernel/tracing")?;
    super::modprobe("configfs", &[])?;
    attach("configfs", "/sys/kernel/config")?;
    fs::create_dir_all(LOGS)?;
    // Every hung task is reported, not only the first ten.
    fs::write("/proc/sys/kernel/hung_task_warnings", "-1")?;
    checkers::set_up()?;
    super::run(&["ip", "link", "set", "lo", "up"])?;
    Ok(())
}

fn shell() -> Result<()> {
    println!("The cases: guest list, guest case NAME. The guest ends with this shell.");
    Command::new("setsid").args(["cttyhack", "sh", "-l"]).current_dir("/root").status()?;
    Ok(())
}

fn serve() -> Result<()> {
    let mut port = Port::open()?;
    let orders = BufReader::new(port.reader()?);
    let release = super::run(&["uname", "-r"])?.trim().to_string();
    port.say(&Said::Ready { release })?;
    let mut facts = Vec::new();
    for line in orders.lines() {
        let line = line?;
        match Order::parse(&line).with_context(|| format!("an order nobody gives: {line:?}"))? {
            Order::Fact(fact) => facts.push(fact),
            Order::Run { case, phase, seed } => {
                fs::write(FACTS, facts.join("\n"))?;
                facts.clear();
                run(&mut port, &case, phase, seed)?;
            }
            Order::Off => {
                for leak in checkers::leaks().unwrap_or_else(|error| vec![format!("{error:#}")]) {
                    port.say(&Said::Fault(leak))?;
                }
                break;
            }
        }
    }
    Ok(())
}

fn kernel_log(line: &str) -> Result<()> {
    let mut log = OpenOptions::new().write(true).open("/dev/kmsg")?;
    log.write_all(format!("<4>{line}\n").as_bytes()).context("/dev/kmsg")
}

/// Runs a case in its own process, within its time, and tells the host.
fn run(port: &mut Port, name: &str, phase: usize, seed: u64) -> Result<()> {
    let case = cases::find(name)?;
    fs::remove_dir_all(LOGS)?;
    fs::create_dir_all(LOGS)?;
    fs::write(RESULT, "")?;
    kernel_log(&proto::opening(name))?;
    port.say(&Said::Start { case: name.into() })?;
    let start = Instant::now();
    let ended = run_process(&case, phase, seed);
    let millis = u64::try_from(start.elapsed().as_millis())?;

    let mut error = ended.err().map(|error| format!("{error:#}"));
    let mut left = leftovers::clear();
    if let Err(why) = checkers::lockdep_works() {
        left.stuck.push(format!("{why:#}"));
    }
    if !left.stuck.is_empty() {
        port.say(&Said::Dirty(left.stuck.join(", ")))?;
    }
    let left = [left.ended, left.stuck].concat().join(", ");
    if !left.is_empty() {
        error.get_or_insert_with(|| format!("left behind: {left}"));
    }
    if error.is_some() {
        show_logs(port)?;
    }
    kernel_log(&proto::closing(name))?;
    port.say(&Said::Done { case: name.into(), millis, error })
}

fn run_process(case: &Case, phase: usize, seed: u64) -> Result<()> {
    let log = File::create(format!("{LOGS}/case.log"))?;
    let child = Command::new("/proc/self/exe")
        .args(["case", case.name, &phase.to_string(), &seed.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let status = wait(child, case.seconds);
    // Whatever the case has started and forgotten goes with it; there may be nothing.
    let _ = killpg(group, Signal::SIGKILL);
    let status = status?;
    let result = fs::read_to_string(RESULT)?;
    match result.split_once(' ').unwrap_or((&result, "")) {
        ("PASS", _) => Ok(()),
        ("FAIL", why) => bail!("{why}"),
        _ => bail!("the case's process ended without a result: {status:?}"),
    }
}

/// The kernel stacks of all threads that no signal wakes.
fn waiting() -> String {
    let mut text = String::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for thread in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            // One that has ended meanwhile has nothing to tell.
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let status = read("status");
            if status.contains("State:\tD") {
                let name = status.lines().next().unwrap_or_default();
                let id = thread.file_name();
                text += &format!("{} {name}:\n{}", id.to_string_lossy(), read("stack"));
            }
        }
    }
    text
}

fn wait(child: Child, seconds: u64) -> Result<WaitStatus> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let start = Instant::now();
    loop {
        let status = waitpid(pid, Some(WaitPidFlag::WNOHANG))?;
        if status != WaitStatus::StillAlive {
            return Ok(status);
        }
        if start.elapsed() > kernel::scaled(Duration::from_secs(seconds)) {
            fs::write(format!("{LOGS}/waiting.log"), waiting())?;
            bail!("not done within {seconds} s of guest time, times {}", kernel::slowness());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends the end of each log of a failed case to the host.
fn show_logs(port: &mut Port) -> Result<()> {
    for entry in fs::read_dir(LOGS)?.flatten() {
        let mut last = VecDeque::new();
        for line in BufReader::new(File::open(entry.path())?).split(b'\n') {
            last.push_back(String::from_utf8_lossy(&line?).into_owned());
            if last.len() > SHOWN {
                last.pop_front();
            }
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        for line in last {
            port.say(&Said::Note(format!("{name}: {line}")))?;
        }
    }
    Ok(())
}

/// The body of a case's process; the result goes to a file and to standard error.
pub fn case_process(name: &str, phase: usize, seed: u64) -> Result<()> {
    let case = cases::find(name)?;
    let facts = fs::read_to_string(FACTS).unwrap_or_default();
    let mut ctx = Ctx::new(phase, seed, facts.lines().map(String::from).collect())?;
    let body = case.phase(phase).context("the case has no such phase")?.body;
    let done = body(&mut ctx);
    let result = match &done {
        Ok(()) => "PASS".to_string(),
        Err(error) => format!("FAIL {error:#}"),
    };
    fs::write(RESULT, result)?;
    done
}
