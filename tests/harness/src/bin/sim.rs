//! Plays seeds, in a row or one with a trace, and scripts that are stored.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Parser;
use dmremap_harness::cover::Cover;
use dmremap_harness::script::Script;
use dmremap_harness::{generate, shrink, sim};

#[derive(Parser)]
struct Args {
    /// Play this seed, with a trace.
    #[arg(long)]
    seed: Option<u64>,
    /// Play so many seeds.
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// The first of them; a new one each time if none is given.
    #[arg(long)]
    base: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Play this script, with a trace.
    #[arg(long)]
    script: Option<PathBuf>,
    /// Where a script that fails is put, shortened.
    #[arg(long, default_value = "target/sim")]
    out: PathBuf,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
}

#[derive(Default)]
struct Total {
    seeds: u64,
    simulated: Duration,
    ios: u64,
    errors: u64,
    crashes: u64,
    cover: Cover,
    failed: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    match play(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(args: &Args) -> Result<()> {
    if let Some(path) = &args.script {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        return one(&serde_json::from_str(&text)?);
    }
    if let Some(seed) = args.seed {
        println!("seed {seed}");
        return one(&generate::script(seed));
    }
    let base = args.base.unwrap_or_else(fresh);
    println!("base seed {base}, {} seeds", args.seeds);
    let begun = Instant::now();
    let total = many(base, args);
    report(&total, begun.elapsed(), args.jobs);
    for (seed, violation) in &total.failed {
        store(*seed, violation, &args.out)?;
    }
    if !total.failed.is_empty() {
        bail!("{} of {} seeds failed", total.failed.len(), total.seeds);
    }
    let missing = total.cover.missing(total.seeds);
    if !missing.is_empty() {
        bail!("it never came to: {}", missing.join(", "));
    }
    Ok(())
}

fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() << 20
}

fn one(script: &Script) -> Result<()> {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let lines = tracing_subscriber::fmt().with_env_filter(filter).without_time();
        lines.with_target(false).with_level(false).init();
    }
    println!("{:?}", script.config);
    let outcome = sim::run(script, true);
    println!(
        "{} I/Os, {} errors, {} crashes, {:.3} s",
        outcome.ios,
        outcome.errors,
        outcome.crashes,
        outcome.simulated_us as f64 / 1e6
    );
    match outcome.violation {
        Some(violation) => bail!("{violation}"),
        None => Ok(()),
    }
}

fn many(base: u64, args: &Args) -> Total {
    let (next, total) = (AtomicU64::new(0), Mutex::new(Total::default()));
    let end = args.seconds.map(|s| Instant::now() + Duration::from_secs(s));
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let late = end.is_some_and(|end| Instant::now() > end);
                    if n >= args.seeds || late {
                        return;
                    }
                    let seed = base.wrapping_add(n);
                    let outcome = sim::run(&generate::script(seed), false);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.seeds += 1;
                    total.simulated += Duration::from_micros(outcome.simulated_us);
                    total.ios += outcome.ios;
                    total.errors += outcome.errors;
                    total.crashes += outcome.crashes;
                    total.cover.add(&outcome.cover);
                    if let Some(violation) = outcome.violation {
                        println!("seed {seed}: {violation}");
                        total.failed.push((seed, violation));
                        if !args.keep_going || total.failed.len() >= 20 {
                            next.store(u64::MAX / 2, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn report(total: &Total, took: Duration, jobs: u64) {
    let per_core = total.seeds as f64 / took.as_secs_f64() / jobs as f64;
    println!(
        "{} seeds in {:.1} s ({per_core:.0} a second and core), {:.1} simulated hours, {} I/Os, {} of \
         them errors that the script justifies, {} crashes",
        total.seeds,
        took.as_secs_f64(),
        total.simulated.as_secs_f64() / 3600.0,
        total.ios,
        total.errors,
        total.crashes,
    );
    println!("crashes, and what else went wrong:");
    for (point, hits) in total.cover.points() {
        println!("  {hits:>9} {point}");
    }
}

fn store(seed: u64, violation: &str, out: &std::path::Path) -> Result<()> {
    let script = shrink::shrink(&generate::script(seed), violation, 2000);
    std::fs::create_dir_all(out)?;
    let path = out.join(format!("{seed}.json"));
    std::fs::write(&path, script.text()?)?;
    println!("seed {seed} shrinks to {} steps: {}", script.steps.len(), path.display());
    Ok(())
}
