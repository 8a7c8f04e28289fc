//! Commands with a time limit and their output.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A command to run; 60 seconds of a stock guest's time unless it says otherwise.
pub struct Cmd {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    limit: Duration,
    input: Option<String>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command that must succeed; its standard output.
pub fn run(argv: &[&str]) -> Result<String> {
    let (program, args) = argv.split_first().context("an empty command")?;
    Cmd::new(program).args(args).run()
}

impl Cmd {
    pub fn new(program: &str) -> Self {
        let limit = Duration::from_secs(60);
        Self { argv: vec![program.into()], env: Vec::new(), limit, input: None }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.argv.push(arg.into());
        self
    }

    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_string()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Text for its standard input.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Runs it; an error if it fails, with what it said.
    pub fn run(self) -> Result<String> {
        let line = self.argv.join(" ");
        let ended = self.end()?;
        if !ended.status.success() {
            bail!("`{line}`: {}: {}{}", ended.status, ended.stderr.trim(), ended.stdout.trim());
        }
        Ok(ended.stdout)
    }

    /// Runs it to its end, good or bad; an error only if it cannot start or takes too long.
    pub fn end(self) -> Result<Ended> {
        let line = self.argv.join(" ");
        let limit = super::kernel::scaled(self.limit);
        let mut child = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .envs(self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting `{line}`"))?;
        let stdin = child.stdin.take();
        if let (Some(text), Some(mut stdin)) = (self.input, stdin) {
            use std::io::Write;
            stdin.write_all(text.as_bytes()).with_context(|| format!("feeding `{line}`"))?;
        }
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(limit), stderr.recv_timeout(limit))
        else {
            // It may end by itself between the two lines; then there is nothing to kill.
            let _ = child.kill();
            bail!("`{line}`: not done within {limit:?}");
        };
        Ok(Ended { status: child.wait()?, stdout, stderr })
    }
}

/// Reads a pipe to its end in the background.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A broken pipe ends the text where it broke.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}
