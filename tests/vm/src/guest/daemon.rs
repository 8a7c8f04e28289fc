//! The policy daemon under a case's control.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LOGS, wait_until};

/// Numbers the logs of a case.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A running daemon; dropping it kills it.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

/// Where `make install` put it.
pub fn program() -> Result<PathBuf> {
    ["/usr/sbin/dmremap-policyd", "/usr/local/sbin/dmremap-policyd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .context("dmremap-policyd is not installed in the guest")
}

impl Daemon {
    pub fn start(config: &Path) -> Result<Self> {
        Self::start_in_env(config, &[])
    }

    pub fn start_in_env(config: &Path, env: &[(&str, &str)]) -> Result<Self> {
        Self::spawn(config, Path::new(LOGS), Path::new("/"), env)
    }

    /// It works in `dir` and logs there, what it is refused too.
    pub fn start_in(config: &Path, dir: &Path) -> Result<Self> {
        Self::spawn(config, dir, dir, &[("DMREMAP_LOG", "debug")])
    }

    fn spawn(config: &Path, logs: &Path, dir: &Path, env: &[(&str, &str)]) -> Result<Self> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = logs.join(format!("daemon-{number}.log"));
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        let child = Command::new(program()?)
            .arg("--config")
            .arg(config)
            .envs(env.iter().copied())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()
            .context("starting the daemon")?;
        Ok(Self { child, log })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a pid beyond i32")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to the daemon"))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().context("killing the daemon")?;
        Ok(self.child.wait()?)
    }

    /// SIGTERM; it must end well within `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let mut ended = None;
        wait_until("the end of the daemon", limit, || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        match ended {
            Some(status) if !status.success() => bail!("the daemon ended with {status}"),
            _ => Ok(()),
        }
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
