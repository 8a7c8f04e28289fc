//! The command line. Commands only parse their arguments and call the library.

mod client;
mod offline;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use dmremap_policyd::service::{log, process, realtime, supervisor};
use dmremap_policyd::{config, pair};

/// Keeps disks with bad sectors in service: without a command, the daemon itself, in the foreground.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the running daemon read its configuration again: all of it, or none
    Reload,
    /// Show what the running daemon serves
    Status {
        /// One JSON object a line, one line a device
        #[arg(long)]
        json: bool,
    },
    /// List the mapped and poisoned sectors of a device
    List {
        device: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Make a disk the spare of another one
    Format {
        #[arg(long, value_name = "DEVICE")]
        data: PathBuf,
        #[arg(long, value_name = "DEVICE")]
        spare: PathBuf,
        /// Overwrite what the spare holds
        #[arg(long)]
        force: bool,
        /// Accept a disk that only its size tells from others
        #[arg(long)]
        weak_identity: bool,
    },
    /// Read a spare and say what is wrong with it
    Check { spare: PathBuf },
    /// Rewrite what is lost of a spare's metadata from what is good
    Repair {
        spare: PathBuf,
        /// Take a spare that another machine left open; that machine must be off
        #[arg(long)]
        take_over: bool,
        /// Accept that the last change may be lost with an unreadable block
        #[arg(long)]
        accept_unreadable_tail: bool,
    },
    /// Write a spare's metadata as JSON
    Dump {
        spare: PathBuf,
        /// The only format there is
        #[arg(long, required = true)]
        json: bool,
    },
    /// Write a dump's metadata to the spare it was made of
    ///
    /// What was mapped after the dump was made is stale or lost.
    Restore {
        spare: PathBuf,
        /// What `dump` wrote
        dump: PathBuf,
        /// Overwrite what the spare holds
        #[arg(long)]
        force: bool,
        /// Use another spare, because that one is lost: what was mapped is an error until it is written again
        #[arg(long)]
        other_spare: bool,
        /// Accept another spare that only its size tells from others
        #[arg(long, requires = "other_spare")]
        weak_identity: bool,
    },
}

/// 0: done and well; 1: an error; 2 (`check`, `repair`): the spare is not clean.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { config, command } = cli;
    match command {
        None => daemon(config),
        Some(Command::Reload) => client::reload(&config),
        Some(Command::Status { json }) => client::status(&config, json),
        Some(Command::List { device, json }) => client::list(&config, device, json),
        Some(Command::Format { data, spare, force, weak_identity }) => {
            offline::format(&pair::Request { data, spare, force, weak_identity })
        }
        Some(Command::Check { spare }) => offline::check(&spare),
        Some(Command::Repair { spare, take_over, accept_unreadable_tail }) => {
            offline::repair(&spare, take_over, accept_unreadable_tail)
        }
        Some(Command::Dump { spare, .. }) => offline::dump(&spare),
        Some(Command::Restore { spare, dump, force, other_spare, weak_identity }) => {
            offline::restore(&spare, &dump, force, other_spare.then_some(weak_identity))
        }
    }
}

fn daemon(file: PathBuf) -> Result<ExitCode> {
    process::harden()?;
    let _log = log::start();
    if let Err(error) = realtime::start() {
        tracing::warn!(
            "not a realtime process: {error}; when memory is short what is held may wait for longer; give it CAP_SYS_NICE"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(process::STACK)
        .thread_keep_alive(process::IDLE)
        .thread_name(process::WAITING)
        .build()
        .context("cannot start")?;
    let served = runtime.block_on(supervisor::run(file));
    // A thread that still waits for a disk does not keep the process.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}
