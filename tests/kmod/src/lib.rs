//! The shipped module in user space, as a kernel's side of its own: a program that [`Host`] talks to over pipes, so
//! that whatever the sanitizers find ends it and nothing else.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use dmremap_conformance::side::{self, ONLOOKER};
use dmremap_conformance::simulated::SETTLES;
use dmremap_conformance::{
    Access, Config, Disk, Ended, Look, Outcome, Side, State, Status, Step, What,
};
use dmremap_protocol::frame::{Answer, frames};
use dmremap_protocol::{Message, Request};

/// The number of the only instance.
const INSTANCE: u32 = 1;
/// `blk_status_t`, as the host's headers have it.
const MEDIUM: u64 = 7;
const IOERR: u64 = 10;
const GARBAGE: u64 = u64::MAX;

pub struct Host {
    child: Child,
    /// None once it has been told to end.
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    errors: File,
    ended: Vec<Ended>,
    rang: bool,
}

fn text(messages: &[u8]) -> String {
    messages.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let byte = |at: usize| Ok(u8::from_str_radix(hex.get(at..at + 2).context("half a byte")?, 16)?);
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn messages(hex: &str) -> Result<Vec<Message>> {
    let mut out = Vec::new();
    for frame in frames(&bytes(hex)?) {
        match frame?.answer()? {
            Answer::Part { payload, .. } => out.push(Message::decode(payload)?),
            other => bail!("in an answer: {other:?}"),
        }
    }
    Ok(out)
}

/// What a command's lines say, but for what applications were told.
#[derive(Default)]
struct Said {
    messages: Vec<Message>,
    errno: Option<i32>,
    look: Option<Look>,
}

impl Host {
    pub fn new(config: &Config) -> Result<Host> {
        let mut errors = tempfile::tempfile()?;
        let mut child = Command::new(env!("KMOD_HOST"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone()?)
            .spawn()
            .context("starting the module's host")?;
        errors.rewind()?;
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().context("its output")?);
        let mut host = Host { child, to, from, errors, ended: Vec::new(), rang: false };
        let options = [
            ("hold_deadline_ms", config.hold_ms),
            ("ready_deadline_ms", config.ready_ms),
            ("max_held_bios", config.max_held),
        ];
        let mut line = format!("new {} 1 {}", config.sectors, config.spare);
        line += &format!(" {}", 2 * options.len() + usize::from(config.queue_unowned));
        for (name, value) in options {
            line += &format!(" {name} {value}");
        }
        if config.queue_unowned {
            line += " queue_if_no_daemon";
        }
        host.command(&line)?;
        if !config.emulated_fua {
            host.command("fua 0 1")?;
            host.command("fua 1 1")?;
        }
        if !config.says_medium {
            host.command(&format!("error 0 {IOERR}"))?;
            host.command(&format!("error 1 {IOERR}"))?;
        }
        Ok(host)
    }

    /// Carries out a command that [`Step`] has no word for; see `host/main.c`.
    pub fn special(&mut self, line: &str) -> Result<()> {
        self.command(line).map(drop)
    }

    fn command(&mut self, line: &str) -> Result<Said> {
        self.converse(line).or_else(|error| {
            let mut why = String::new();
            self.errors.rewind()?;
            self.errors.read_to_string(&mut why)?;
            bail!("{line}: {error:#}: {why}")
        })
    }

    fn converse(&mut self, line: &str) -> Result<Said> {
        let to = self.to.as_mut().context("it has ended")?;
        to.write_all(format!("{line}\n").as_bytes())?;
        to.flush()?;
        let mut said = Said::default();
        loop {
            let mut line = String::new();
            ensure!(self.from.read_line(&mut line)? > 0, "the module's host has died");
            let line = line.trim_end();
            if line == "." {
                return Ok(said);
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "answer" => said.messages.extend(messages(rest)?),
                "done" => said.errno = Some(rest.parse()?),
                "place" => said.look = Some(look(rest)?),
                "end" => self.ended.push(ended(rest)?),
                "bell" => {
                    ensure!(messages(rest)? == [Message::Doorbell { instance: INSTANCE }]);
                    self.rang = true;
                }
                "suspended" => {}
                _ => bail!("it says {line:?}"),
            }
        }
    }

    fn ask(&mut self, port: u32, request: &Request) -> Result<Result<Vec<Message>, i32>> {
        let said = self.command(&format!("ask {port} {}", text(&request.encode()?)))?;
        Ok(match said.errno.context("no end of an answer")? {
            0 => Ok(said.messages),
            errno => Err(errno),
        })
    }

    /// The device is removed and the module unloaded; everything must be over by then.
    pub fn finish(mut self) -> Result<()> {
        self.to = None;
        let status = self.child.wait()?;
        let mut why = String::new();
        self.errors.rewind()?;
        self.errors.read_to_string(&mut why)?;
        ensure!(status.success() && why.is_empty(), "taking the module down: {status}: {why}");
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.to = None;
        // It ends by itself now; whether well is for `finish`.
        let _ = self.child.wait();
    }
}

fn look(rest: &str) -> Result<Look> {
    let [what, sector, len] = rest.split(' ').collect::<Vec<_>>()[..] else { bail!("{rest:?}") };
    let what = match what {
        "data" => What::Data,
        "spare" => What::Spare,
        "fenced" => What::Fenced,
        "poisoned" => What::Poisoned,
        _ => bail!("a place called {what:?}"),
    };
    let found = matches!(what, What::Data | What::Spare);
    let sector = if found { Some(sector.parse()?) } else { None };
    Ok(Look { what, sector, len: len.parse()? })
}

fn ended(rest: &str) -> Result<Ended> {
    let numbers = rest.split(' ').map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
    let [id, status, ref found @ ..] = numbers[..] else { bail!("{rest:?}") };
    let status = match status {
        0 => Status::Ok,
        MEDIUM => Status::Medium,
        IOERR => Status::Io,
        _ => Status::Other,
    };
    let found = found.iter().map(|&tag| (tag != GARBAGE).then_some(tag)).collect();
    Ok(Ended { id, status, found })
}

fn number(disk: Disk) -> u8 {
    match disk {
        Disk::Data => 0,
        Disk::Spare => 1,
    }
}

impl Side for Host {
    fn step(&mut self, step: &Step) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let line = match *step {
            Step::Ask { port, ref request } => {
                outcome.answer = Some(self.ask(port, request)?);
                String::new()
            }
            Step::Close { port } => format!("close {port}"),
            Step::Io(io) => {
                let access = match io.access {
                    Access::Read => 'r',
                    Access::ReadAhead => 'a',
                    Access::Write => 'w',
                    Access::Durable => 'f',
                    Access::Flush => 's',
                };
                format!("io {} {access} {} {}", io.id, io.start, io.len)
            }
            Step::Rest { ms } => format!("run {}", ms * 1000),
            Step::Bad { disk, start, len, reads, writes } => {
                let flags = u8::from(reads) + 2 * u8::from(writes);
                format!("bad {} {start} {len} {flags}", number(disk))
            }
            Step::Stall { disk, stalls } => format!("stall {} {}", number(disk), u8::from(stalls)),
            Step::FailFlushes { disk, flushes } => format!("flushes {} {flushes}", number(disk)),
            Step::NoMemory { nth } => format!("memory {nth}"),
            Step::Suspend { noflush } => format!("suspend {}", u8::from(noflush)),
            Step::Resume => "resume".into(),
            Step::Look { start, len } => format!("look {start} {len}"),
        };
        if !line.is_empty() {
            outcome.look = self.command(&line)?.look;
        }
        self.command(&format!("run {SETTLES}"))?;
        outcome.ended = std::mem::take(&mut self.ended);
        outcome.rang = std::mem::take(&mut self.rang);
        Ok(outcome)
    }

    fn state(&mut self) -> Result<State> {
        side::list(INSTANCE, |request| self.ask(ONLOOKER, &request))
    }
}
