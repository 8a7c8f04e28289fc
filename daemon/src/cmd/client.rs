//! Commands that ask the running daemon.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use dmremap_policyd::config::Config;
use dmremap_policyd::service::client::ask;
use dmremap_policyd::service::control::Request;
use serde_json::Value;

use super::text;

/// A file that is broken is refused here, in the words that the daemon would use: it may have lost the
/// place of the daemon's socket as well.
pub fn reload(config: &Path) -> Result<ExitCode> {
    Config::load(config).context("nothing was changed")?;
    ask_daemon(config, &Request::Reload {}, |_, _| Ok(()))
}

/// Fails if a device is not served.
pub fn status(config: &Path, json: bool) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    ask_daemon(config, &Request::Status {}, |out, device| {
        if device["error"].is_string() || device["phase"] == "refused" {
            code = ExitCode::FAILURE;
        }
        match json {
            true => writeln!(out, "{device}"),
            false => text::device(out, &device),
        }
    })?;
    Ok(code)
}

pub fn list(config: &Path, device: String, json: bool) -> Result<ExitCode> {
    ask_daemon(config, &Request::List { device }, |out, part| {
        for extent in part.as_array().into_iter().flatten() {
            match json {
                true => writeln!(out, "{extent}")?,
                false => text::extent(out, extent)?,
            }
        }
        Ok(())
    })
}

/// The daemon's socket is where the configuration says. One that is broken must not keep `status` from
/// working: the default place is tried.
fn ask_daemon(
    config: &Path,
    request: &Request,
    mut part: impl FnMut(&mut dyn Write, Value) -> io::Result<()>,
) -> Result<ExitCode> {
    let daemon = Config::load(config).map(|config| config.daemon).unwrap_or_default();
    let mut out = io::BufWriter::new(io::stdout().lock());
    ask(&daemon.control_socket, request, |value| part(&mut out, value))?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
