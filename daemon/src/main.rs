//! The policy daemon of dm-remap, and the commands of its operator.

mod cmd;

use std::process::ExitCode;

use clap::Parser;
use dmremap_policyd::error::Words;

fn main() -> ExitCode {
    match cmd::run(cmd::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dmremap-policyd: {}", Words(&error));
            ExitCode::FAILURE
        }
    }
}
