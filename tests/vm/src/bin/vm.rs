//! Runs cases in guests with stock kernels or the debug kernel, or gives a person a shell in one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use dmremap_vm::case::Case;
use dmremap_vm::cases;
use dmremap_vm::host::kernel::Kernel;
use dmremap_vm::host::qemu::{Machine, sockets};
use dmremap_vm::host::suite::{Suite, Tally};
use dmremap_vm::host::{image, target_dir};

/// The series that a kernel of "all" stands for.
const SERIES: &[&str] = &["6.1", "6.12"];

#[derive(Parser)]
#[command(about)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run cases; the last line counts them, and the exit status tells the same.
    Run {
        /// Kernel series, "debug", or "all" for all stock ones.
        #[arg(long, default_value = "all")]
        kernel: String,
        /// Run only this case (may be given again).
        #[arg(long = "case")]
        cases: Vec<String>,
        /// List the cases and end.
        #[arg(long)]
        list: bool,
        /// Where the log of each boot goes [default: vm-logs in the build directory].
        #[arg(long)]
        logs: Option<PathBuf>,
        /// Replays the random choices of an earlier run.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Everything that can go wrong, for a time, one power cut after the other; a table of what that was at the end.
    Soak {
        #[arg(long, default_value = "6.12")]
        kernel: String,
        /// After so many the boot under way is the last but one.
        #[arg(long)]
        minutes: u64,
        /// Replays the operations of an earlier run in their order.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// A shell in the guest; Ctrl-A X ends QEMU.
    Shell {
        #[arg(long, default_value = "6.12")]
        kernel: String,
        /// A disk for the guest: a raw file or nbd:unix:SOCKET (may be given again).
        #[arg(long = "disk")]
        disks: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().verb {
        Verb::Run { list: true, .. } => {
            cases::all().for_each(|case| println!("{}", case.name));
            Ok(true)
        }
        Verb::Run { kernel, cases, logs, seed, .. } => run(&kernel, &cases, logs, seed),
        Verb::Soak { kernel, minutes, seed } => soak(&kernel, minutes, seed),
        Verb::Shell { kernel, disks } => shell(&kernel, &disks),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(series: &str, names: &[String], logs: Option<PathBuf>, seed: Option<u64>) -> Result<bool> {
    let chosen: Vec<Case> = if names.is_empty() {
        cases::all().collect()
    } else {
        names.iter().map(|name| cases::find(name)).collect::<Result<_>>()?
    };
    let all = if series == "all" { SERIES } else { &[series][..] };
    let kernels = all.iter().map(|series| Kernel::find(series)).collect::<Result<Vec<_>>>()?;
    if let Some(case) = chosen
        .iter()
        .find(|case| !names.is_empty() && !kernels.iter().any(|kernel| case.fits(kernel.kind)))
    {
        bail!("{} is not for this kernel", case.name);
    }
    let logs = logs.map_or_else(|| Ok(target_dir()?.join("vm-logs")), Ok::<_, anyhow::Error>)?;
    let seed = seed.map_or_else(fresh_seed, Ok)?;
    println!("seed {seed}");

    // All images are there before the first guest: building one takes both processors.
    let bare = chosen.iter().all(|case| case.bare);
    let suites = kernels.iter().map(|kernel| Suite::new(kernel, &logs, seed, bare));
    let suites = suites.collect::<Result<Vec<_>>>()?;
    // A guest keeps one processor busy. Who asks for a case wants it undisturbed.
    let together = names.is_empty() && thread::available_parallelism()?.get() >= suites.len();
    let tallies = if together {
        side_by_side(suites, &chosen)
    } else {
        suites.into_iter().map(|suite| suite.run(&chosen)).collect()
    };
    // Without a boot there is none.
    if sockets().exists() {
        std::fs::remove_dir_all(sockets())?;
    }

    let mut total = Tally::default();
    for (kernel, tally) in kernels.iter().zip(tallies) {
        match tally {
            Ok(tally) => {
                total.passed += tally.passed;
                total.failed.extend(tally.failed);
                total.again += tally.again;
                total.others += tally.others;
            }
            Err(error) => total.failed.push(format!(
                "{:<22} FAIL  it did not come to its end: {error:#}",
                kernel.release
            )),
        }
    }
    // Once more, where nobody has to look for them: of a long log the end is kept.
    if !total.failed.is_empty() {
        println!("seed {seed}\n{}", total.failed.join("\n"));
    }
    println!("{} passed, {} failed{}", total.passed, total.failed.len(), besides(&total));
    Ok(total.failed.is_empty() && total.passed > 0)
}

/// What neither passed nor failed, for the last line.
fn besides(total: &Tally) -> String {
    let counts = [
        (total.again, "run again because the emulator had failed"),
        (total.others, "for other kernels"),
    ];
    let said = counts.iter().filter(|(count, _)| *count > 0);
    said.map(|(count, what)| format!(", {count} {what}")).collect()
}

fn soak(series: &str, minutes: u64, seed: Option<u64>) -> Result<bool> {
    let kernel = Kernel::find(series)?;
    let seed = seed.map_or_else(fresh_seed, Ok)?;
    println!("seed {seed}");
    let case = cases::soak::LONG.lasting(Duration::from_secs(minutes * 60));
    let logs = target_dir()?.join("soak-logs");
    let tally = Suite::new(&kernel, &logs, seed, case.bare)?.run(&[case])?;
    std::fs::remove_dir_all(sockets())?;
    Ok(tally.failed.is_empty() && tally.passed > 0)
}

/// Each suite on a thread of its own, to its end, whatever becomes of the others.
fn side_by_side(suites: Vec<Suite<'_>>, cases: &[Case]) -> Vec<Result<Tally>> {
    thread::scope(|scope| {
        let run = |suite: Suite<'_>| suite.run(cases);
        let threads: Vec<_> =
            suites.into_iter().map(|suite| scope.spawn(move || run(suite))).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|tally| tally.unwrap_or_else(|_| bail!("its thread panicked"))).collect()
    })
}

fn fresh_seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(u64::from(now.context("a clock before 1970")?.subsec_nanos()))
}

fn shell(series: &str, drives: &[String]) -> Result<bool> {
    let kernel = Kernel::find(series)?;
    let image = image::build(&kernel, false)?;
    let machine = Machine { kernel: &kernel, image: &image, drives, append: "" };
    let status = machine.for_a_person().status().context("starting qemu-system-x86_64")?;
    Ok(status.success())
}
