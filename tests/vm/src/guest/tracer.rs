//! Stops the daemon at a chosen step of a commit. Nothing in it knows: it is traced, and its system calls say what it is
//! doing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The steps of a commit, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Faults are placed; the flush of the spare is about to begin.
    Placed,
    /// That flush has ended.
    Flushed,
    /// The record is in one mirror.
    HalfSubmitted,
    /// The records are written; the flush that makes them durable is about to begin.
    Submitted,
    /// The commit is durable; INSTALL is about to be sent.
    Committed,
    /// The kernel has answered INSTALL.
    Installed,
}

impl Point {
    pub const ALL: [Point; 6] = [
        Point::Placed,
        Point::Flushed,
        Point::HalfSubmitted,
        Point::Submitted,
        Point::Committed,
        Point::Installed,
    ];
}

/// What is done with a daemon that has been stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Kill,
    GoOn,
}

/// A daemon being traced, by a thread of its own: only the thread that traces may, and its end sets the daemon free.
pub struct Tracer {
    reached: Receiver<()>,
    orders: Sender<Order>,
    thread: JoinHandle<Result<Vec<Point>>>,
}

impl Tracer {
    /// Traces a process that has `spare` open, up to where it reaches `stop`: the thread that does stays there, and the
    /// others go on. Without a point it is only watched.
    pub fn attach(pid: u32, spare: &Path, stop: Option<Point>) -> Result<Tracer> {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        let spare = spare.to_path_buf();
        let (tell, reached) = channel();
        let (orders, ordered) = channel();
        let (attached, ready) = channel();
        let thread = thread::spawn(move || {
            let memory = File::open(format!("/proc/{pid}/mem")).context("the daemon's memory")?;
            let threads = seize_all(pid)?;
            let mut tracing = Tracing {
                pid,
                spare,
                memory,
                stop,
                written: Written::Unsure,
                syncing: Written::Unsure,
                seen: Vec::new(),
            };
            tracing.first_stops(threads)?;
            // Whoever attached is gone only if the case is over.
            let _ = attached.send(());
            tracing.follow(&tell, &ordered)?;
            Ok(tracing.seen)
        });
        let tracer = Tracer { reached, orders, thread };
        match ready.recv() {
            Ok(()) => Ok(tracer),
            Err(_) => Err(tracer.failed()),
        }
    }

    /// Returns when the daemon has been stopped at the point.
    pub fn wait(self, limit: Duration) -> Result<Tracer> {
        match self.reached.recv_timeout(super::kernel::scaled(limit)) {
            Ok(()) => Ok(self),
            Err(RecvTimeoutError::Timeout) => bail!("the point was not reached within {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => Err(self.failed()),
        }
    }

    fn failed(self) -> anyhow::Error {
        match self.thread.join() {
            Ok(Err(error)) => error.context("tracing the daemon"),
            Ok(Ok(_)) => anyhow!("the tracer has ended early"),
            Err(_) => anyhow!("the tracer panicked"),
        }
    }

    /// kill -9 where it stands. What was seen up to there, in order.
    pub fn kill(self) -> Result<Vec<Point>> {
        self.end(Order::Kill)
    }

    /// Sets it free.
    pub fn go_on(self) -> Result<Vec<Point>> {
        self.end(Order::GoOn)
    }

    fn end(self, order: Order) -> Result<Vec<Point>> {
        // If nobody takes it, the thread has ended with an error.
        let _ = self.orders.send(order);
        self.thread.join().map_err(|_| anyhow!("the tracer panicked"))?
    }
}

/// Every thread, also those that are made meanwhile: what a traced thread makes is traced from its beginning.
fn seize_all(pid: Pid) -> Result<Vec<Pid>> {
    let mut threads = Vec::new();
    loop {
        let before = threads.len();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let tid = Pid::from_raw(entry?.file_name().to_string_lossy().parse()?);
            if threads.contains(&tid) {
                continue;
            }
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
            match ptrace::seize(tid, options) {
                Ok(()) => ptrace::interrupt(tid)?,
                // Traced already, by the thread that made it; or it has ended.
                Err(Errno::EPERM | Errno::ESRCH) => continue,
                Err(error) => return Err(error).context("seizing the daemon"),
            }
            threads.push(tid);
        }
        if threads.len() == before {
            return Ok(threads);
        }
    }
}

/// What was written to the spare since its last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// It was not watched all the while.
    Unsure,
    Nothing,
    Records,
    /// Superblocks and checkpoints.
    Other,
}

struct Tracing {
    pid: Pid,
    spare: PathBuf,
    memory: File,
    stop: Option<Point>,
    written: Written,
    /// What the flush under way is for.
    syncing: Written,
    seen: Vec<Point>,
}

fn gone(result: nix::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).context("letting the daemon go on"),
    }
}

impl Tracing {
    /// Every thread has stopped once. A writer that waits for work then has nothing unflushed behind it.
    fn first_stops(&mut self, mut threads: Vec<Pid>) -> Result<()> {
        while let Some(tid) = threads.pop() {
            let status = waitpid(tid, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))?;
            let name = fs::read_to_string(format!("/proc/{}/task/{tid}/comm", self.pid))?;
            if name.trim() == "writer" && number(tid)? == libc::SYS_futex {
                self.written = Written::Nothing;
            }
            match status {
                WaitStatus::PtraceEvent(..) => gone(ptrace::syscall(tid, None))?,
                WaitStatus::Stopped(_, signal) => {
                    // The stop that was asked for follows.
                    gone(ptrace::syscall(tid, signal))?;
                }
                other => bail!("a thread's first stop: {other:?}"),
            }
        }
        Ok(())
    }

    fn follow(&mut self, reached: &Sender<()>, orders: &Receiver<Order>) -> Result<()> {
        let mut polls = self.stop.is_none();
        loop {
            match orders.try_recv() {
                Ok(Order::Kill) => return Ok(kill(self.pid, Signal::SIGKILL)?),
                Ok(Order::GoOn) => return Ok(()),
                Err(TryRecvError::Disconnected) => bail!("nobody waits for it"),
                Err(TryRecvError::Empty) => {}
            }
            // Of this thread's tracees only: the case's own children are no business of it.
            let mut how = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            how.set(WaitPidFlag::WNOHANG, polls);
            match waitpid(None, Some(how))? {
                WaitStatus::StillAlive => thread::sleep(Duration::from_millis(1)),
                WaitStatus::PtraceSyscall(tid) => {
                    if self.reaches(tid)? {
                        polls = true;
                        reached.send(()).context("nobody waits for it")?;
                    } else {
                        gone(ptrace::syscall(tid, None))?;
                    }
                }
                WaitStatus::PtraceEvent(tid, ..) => gone(ptrace::syscall(tid, None))?,
                WaitStatus::Stopped(tid, signal) => gone(ptrace::syscall(tid, signal))?,
                WaitStatus::Exited(tid, _) | WaitStatus::Signaled(tid, ..) if tid == self.pid => {
                    bail!("the daemon has ended")
                }
                _ => {}
            }
        }
    }

    /// Whether a thread's system call brings the daemon to where it is to be stopped.
    fn reaches(&mut self, tid: Pid) -> Result<bool> {
        let entry = match ptrace::syscall_info(tid) {
            Ok(info) => info.op == libc::PTRACE_SYSCALL_INFO_ENTRY,
            Err(Errno::ESRCH) => return Ok(false),
            Err(error) => return Err(error).context("a system call of the daemon"),
        };
        let point = match (number(tid)?, entry) {
            (libc::SYS_pwrite64, true) => {
                self.writes(tid)?;
                None
            }
            (libc::SYS_pwrite64, false) => (self.spares(tid)? && self.written == Written::Records)
                .then_some(Point::HalfSubmitted),
            (libc::SYS_fdatasync, true) if self.spares(tid)? => {
                self.syncing = std::mem::replace(&mut self.written, Written::Nothing);
                match self.syncing {
                    Written::Nothing => Some(Point::Placed),
                    Written::Records => Some(Point::Submitted),
                    Written::Unsure | Written::Other => None,
                }
            }
            (libc::SYS_fdatasync, false) if self.spares(tid)? => {
                (self.syncing == Written::Nothing).then_some(Point::Flushed)
            }
            (libc::SYS_sendto, true) if self.installs(tid)? => Some(Point::Committed),
            (libc::SYS_sendto, false) if self.installs(tid)? => Some(Point::Installed),
            _ => None,
        };
        // Of two records the first is the half.
        let again = point == Some(Point::HalfSubmitted) && self.seen.last() == point.as_ref();
        if !again {
            self.seen.extend(point);
        }
        Ok(!again && point.is_some() && point == self.stop.take_if(|stop| Some(*stop) == point))
    }

    fn writes(&mut self, tid: Pid) -> Result<()> {
        if self.spares(tid)? && self.written != Written::Unsure {
            let record = self.read(ptrace::getregs(tid)?.rsi)? == *b"dmremapL";
            self.written = match (self.written, record) {
                (Written::Nothing | Written::Records, true) => Written::Records,
                _ => Written::Other,
            };
        }
        Ok(())
    }

    /// Whether the call's first argument is a descriptor of the spare.
    fn spares(&self, tid: Pid) -> Result<bool> {
        let fd = ptrace::getregs(tid)?.rdi;
        let path = fs::read_link(format!("/proc/{}/fd/{fd}", self.pid));
        Ok(path.is_ok_and(|path| path == self.spare))
    }

    /// Whether a message is INSTALL: its type that of a family, not of the list of families, and the command.
    fn installs(&self, tid: Pid) -> Result<bool> {
        const GENL_ID_CTRL: u8 = 0x10;
        const INSTALL: u8 = 9;
        let regs = ptrace::getregs(tid)?;
        if regs.rdx < 20 {
            return Ok(false);
        }
        let (kind, command) = (self.read(regs.rsi)?[4], self.read(regs.rsi + 16)?[0]);
        Ok(kind > GENL_ID_CTRL && command == INSTALL)
    }

    fn read(&self, at: u64) -> Result<[u8; 8]> {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, at).context("the daemon's memory")?;
        Ok(bytes)
    }
}

fn number(tid: Pid) -> Result<i64> {
    Ok(i64::try_from(ptrace::getregs(tid)?.orig_rax).unwrap_or(-1))
}
