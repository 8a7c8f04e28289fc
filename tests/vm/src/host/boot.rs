//! One running guest: its output is collected, its port is spoken to, every wait has a limit.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::judge::Transcript;
use super::qemu::{Machine, socket_dir};
use crate::case::{Case, End};
use crate::proto::{Order, Said};

/// From QEMU's start to the guest's first word; it takes 5 s on an idle machine.
const UP: Duration = Duration::from_secs(120);
/// From the order to switch off to QEMU's end.
const DOWN: Duration = Duration::from_secs(30);
/// From a case's end on the port to its end on the console.
const CONSOLE: Duration = Duration::from_secs(20);
/// One boot, whatever runs in it.
const WHOLE: Duration = Duration::from_secs(45 * 60);

/// How long a case may take by the host's clock, on a stock kernel. The guest's own limit comes first unless the guest
/// is stuck or starved.
fn host_limit(case: &Case) -> Duration {
    Duration::from_secs(60 + 4 * case.seconds)
}

enum Event {
    Console(String),
    Port(String),
    /// One of the two streams ended.
    Closed,
}

/// A running guest. Dropping it kills QEMU.
pub struct Boot {
    qemu: Child,
    port: UnixStream,
    events: Receiver<Event>,
    closed: u8,
    start: Instant,
    log: File,
    /// The kernel, for lines of the report.
    release: String,
    /// What each limit is multiplied by.
    slowness: u32,
    /// What it has shown so far.
    pub seen: Transcript,
}

impl Boot {
    /// Starts QEMU and waits until the guest is ready, or has failed to be; see [`Transcript::broken`].
    pub fn start(machine: &Machine<'_>, log: &Path) -> Result<Boot> {
        let path = socket_dir(machine.kernel)?.join("port");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        let log = File::create(log).with_context(|| log.display().to_string())?;
        let mut command = machine.for_cases(&path);
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .context("starting qemu-system-x86_64: run `make deps`")?;
        let console = qemu.stdout.take().context("QEMU without a standard output")?;
        let (send, events) = mpsc::channel();
        let port = connect(&listener, &mut qemu)?;
        follow(console, send.clone(), Event::Console);
        follow(port.try_clone()?, send, Event::Port);
        let start = Instant::now();
        let seen = Transcript::default();
        let release = machine.kernel.release.clone();
        let slowness = machine.kernel.slowness();
        let mut boot = Boot { qemu, port, events, closed: 0, start, log, release, slowness, seen };
        if !boot.until(UP, |seen| seen.release.is_some())? {
            boot.seen.stillborn = boot.closed > 0;
            boot.broken("the guest did not come up");
        } else if boot.seen.release.as_ref() != Some(&machine.kernel.release) {
            boot.broken("the guest runs another kernel");
        }
        Ok(boot)
    }

    /// Seconds since QEMU's start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Whether another case may run in it.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.seen.broken.is_none()
            && self.seen.dirty.is_none()
            && self.start.elapsed() < WHOLE * self.slowness
    }

    /// Runs one phase of a case up to its end, or to when the power is to be cut; cutting it is the caller's.
    pub fn run(
        &mut self,
        case: &Case,
        phase: usize,
        end: End,
        seed: u64,
        facts: &[String],
    ) -> Result<()> {
        for fact in facts {
            self.order(&Order::Fact(fact.clone()));
        }
        self.order(&Order::Run { case: case.name.into(), phase, seed });
        let cut_at = match end {
            End::CutAfterAcks { least, most } => least + seed % (most.saturating_sub(least) + 1),
            _ => u64::MAX,
        };
        let cut = |seen: &Transcript| match end {
            End::Off => false,
            End::CutOnRequest | End::CutUnderLoad => seen.cut_requested,
            End::CutAfterAcks { .. } => seen.acks.len() as u64 >= cut_at,
        };
        let limit = host_limit(case);
        if !self.until(limit, |seen| seen.answered(case.name) || cut(seen))? {
            self.broken(&format!("nothing for {} s", (limit * self.slowness).as_secs()));
        } else if !cut(&self.seen) && !self.until(CONSOLE, |seen| seen.settled(case.name))? {
            self.broken("the console is silent");
        }
        Ok(())
    }

    /// Adds the host's own line to the log.
    pub fn log(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.log, "{:8.3} host: {line}", self.seconds())?)
    }

    /// Switches the guest off in good order and reads what it says last.
    pub fn off(&mut self) -> Result<()> {
        if self.seen.broken.is_none() {
            self.order(&Order::Off);
            let end = Instant::now() + DOWN * self.slowness;
            while self.closed < 2 && Instant::now() < end {
                self.step(end)?;
            }
            if self.closed < 2 {
                self.seen.broken = Some("the guest did not switch itself off".into());
            }
        }
        self.kill()
    }

    /// Ends QEMU at once, and reads what had reached the host before.
    pub fn kill(&mut self) -> Result<()> {
        // It fails only when QEMU has already ended.
        let _ = self.qemu.kill();
        self.qemu.wait()?;
        while self.closed < 2 {
            self.step(Instant::now() + DOWN)?;
        }
        Ok(())
    }

    /// An order that cannot be given shows as the silence that follows.
    fn order(&mut self, order: &Order) {
        let _ = writeln!(self.port, "{order}");
    }

    /// Takes what comes until `done`; false if the limit, on this kernel, or the end of the guest comes first.
    fn until(&mut self, limit: Duration, done: impl Fn(&Transcript) -> bool) -> Result<bool> {
        let now = Instant::now();
        let end = (now + limit * self.slowness).min(self.start + WHOLE * self.slowness);
        while !done(&self.seen) {
            if self.closed > 0 || Instant::now() >= end {
                return Ok(false);
            }
            self.step(end)?;
        }
        Ok(true)
    }

    /// Takes one event, or waits until `end` in vain.
    fn step(&mut self, end: Instant) -> Result<()> {
        let limit = end.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(limit) {
            Ok(Event::Console(line)) => {
                writeln!(self.log, "{line}")?;
                self.seen.console(&line);
            }
            Ok(Event::Port(line)) => {
                writeln!(self.log, "{:8.3} port: {line}", self.seconds())?;
                if let Some(Said::Note(text)) = Said::parse(&line) {
                    println!("{:<22}       {text}", self.release);
                }
                self.seen.port(&line);
            }
            Ok(Event::Closed) => self.closed += 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.closed = 2,
        }
        Ok(())
    }

    /// Notes that no more can be expected, and reads what is left.
    fn broken(&mut self, why: &str) {
        let mut how = String::new();
        if self.closed > 0 {
            // It has closed its port or its console, so it is about to end by itself.
            let end = Instant::now() + CONSOLE;
            while matches!(self.qemu.try_wait(), Ok(None)) && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
            how = match self.qemu.try_wait() {
                Ok(Some(status)) => format!("the guest ended, QEMU with {status}: "),
                _ => "the guest ended, QEMU did not: ".into(),
            };
        }
        // Whatever fails here, the boot is broken already.
        let _ = self.kill();
        self.seen.broken.get_or_insert(format!("{how}{why}"));
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // Both fail only when QEMU has already ended.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Waits for QEMU to connect, unless it ends first.
fn connect(listener: &UnixListener, qemu: &mut Child) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("waiting for QEMU"),
        }
        if let Some(status) = qemu.try_wait()? {
            anyhow::bail!("QEMU ended at its start: {status}; see the log");
        }
        anyhow::ensure!(Instant::now() < end, "QEMU did not connect to the port");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends each line of a stream, and its end.
fn follow(stream: impl Read + Send + 'static, events: Sender<Event>, line: fn(String) -> Event) {
    thread::spawn(move || {
        for bytes in BufReader::new(stream).split(b'\n') {
            let Ok(bytes) = bytes else { break };
            let text = String::from_utf8_lossy(&bytes);
            if events.send(line(text.trim_end_matches('\r').to_string())).is_err() {
                return;
            }
        }
        // Nobody listens any more when the boot has been dropped.
        let _ = events.send(Event::Closed);
    });
}
