//! `iogen`: the workload that [`dmremap_disks::iocheck`] judges, as a program for the guest.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use dmremap_disks::iocheck::Event;
use dmremap_disks::iocheck::workload::{self, Workload};

/// Writes to a block device and prints each history line before the request it announces is sent.
#[derive(Parser)]
struct Arguments {
    device: PathBuf,
    /// First sector
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Number of sectors
    #[arg(long)]
    count: u64,
    /// Logical block in sectors
    #[arg(long, default_value_t = 1)]
    block: u64,
    /// First id; ids must not repeat in a history
    #[arg(long, default_value_t = 1)]
    first_id: u64,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Random writes, FUA writes, flushes and reads
    Run {
        #[arg(long)]
        seed: u64,
        /// Without it: until the guest dies
        #[arg(long, default_value_t = u64::MAX)]
        requests: u64,
        /// Requests in flight together
        #[arg(long, default_value_t = 4)]
        threads: u64,
        /// Neither flushes nor FUA writes
        #[arg(long)]
        no_syncs: bool,
    },
    /// Read everything once
    ReadBack,
}

fn main() -> io::Result<()> {
    let Arguments { device, start, count, block, first_id, work } = Arguments::parse();
    let sectors = start..start.saturating_add(count);
    if block == 0 || block > 128 || count == 0 || start % block != 0 || count % block != 0 {
        return Err(io::Error::other(
            "--start and --count must be whole blocks of at most 128 sectors",
        ));
    }
    let mut out = io::stdout();
    let mut emit = |event: &Event| {
        writeln!(out, "{event}")?;
        out.flush()
    };
    match work {
        Work::Run { seed, requests, threads, no_syncs } => {
            let syncs = !no_syncs;
            let workload = Workload { seed, requests, sectors, block, threads, syncs, first_id };
            workload::run(&device, &workload, &mut emit)
        }
        Work::ReadBack => workload::read_back(&device, sectors, block, first_id, &mut emit),
    }
}
