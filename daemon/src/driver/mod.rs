//! One device, driven: the core's actions are carried out, and what comes of them is told to it.
//!
//! The loop never waits for a disk. It sends requests to the kernel, which answers at once, and hands
//! everything else to threads: two of `reader` for reads, one of `writer` for flushes and commits.

mod conversation;
pub mod flushes;
pub mod reader;
pub mod translate;
pub mod writer;

use std::future::{Future, pending};
use std::time::{Duration, Instant};

use dmremap_protocol::{InstanceInfo, Message, Request};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::config::resolve::Disks;
use crate::core::{Device, Event, Policy, Snapshot};
use crate::link::{Bell, Link, LinkError};
use crate::table::Table;
use crate::units::Sectors;

pub use conversation::{Conversation, Jobs};

/// How often the instance and its owner are looked at. Faults ring by themselves.
const LOOK: Duration = Duration::from_secs(1);

/// The kernel's side of the conversation.
pub trait Kernel: Send {
    fn request(
        &mut self,
        request: &Request,
    ) -> impl Future<Output = Result<Vec<Message>, LinkError>> + Send;

    /// The name by which an instance knows its owner.
    fn port(&self) -> u32;
}

impl Kernel for Link {
    async fn request(&mut self, request: &Request) -> Result<Vec<Message>, LinkError> {
        Link::request(self, request).await
    }

    fn port(&self) -> u32 {
        Link::port(self)
    }
}

/// Which instance is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub disks: Disks,
    /// As in the label.
    pub sectors: Sectors,
    pub block: Sectors,
}

/// What the rest of the daemon asks of a driver.
#[derive(Debug)]
pub enum Ask {
    Doorbell(Bell),
    /// Something has changed: look for the instance now.
    Look,
    Policy(Policy),
    Status(oneshot::Sender<(Snapshot, Option<InstanceInfo>)>),
    Table(oneshot::Sender<Table>),
}

/// What the core's times count from.
pub trait Clock: Send {
    fn now(&self) -> Duration;
}

impl Clock for Instant {
    fn now(&self) -> Duration {
        self.elapsed()
    }
}

/// The threads that wait for disks.
pub struct Threads {
    pub jobs: Jobs,
    pub events: UnboundedReceiver<Event>,
    /// Ends when the writer has closed the spare.
    pub closed: oneshot::Receiver<()>,
    /// The clock of all of them.
    pub begun: Instant,
}

pub struct Driver<K> {
    name: String,
    conversation: Conversation<K, Instant>,
    events: UnboundedReceiver<Event>,
    closed: oneshot::Receiver<()>,
    begun: Instant,
}

impl<K: Kernel> Driver<K> {
    pub fn new(
        name: String,
        core: Device,
        kernel: K,
        target: Target,
        threads: Threads,
    ) -> Driver<K> {
        let Threads { jobs, events, closed, begun } = threads;
        let conversation = Conversation::new(name.clone(), core, kernel, begun, target, jobs);
        Driver { name, conversation, events, closed, begun }
    }

    /// Until nobody can ask any more, or a thread has died; its claim ends with it.
    pub async fn run(mut self, mut asks: Receiver<Ask>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.conversation.timer();
            let timer = due.map(|at| tokio::time::Instant::from_std(self.begun + at));
            let tick = async {
                match timer {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.conversation.handle(event).await,
                    None => {
                        tracing::error!("{}: a thread has ended, faults are not served", self.name);
                        return;
                    }
                },
                ask = asks.recv() => match ask {
                    Some(ask) => self.conversation.asked(ask).await,
                    None => return self.end().await,
                },
                () = tick => self.conversation.tick().await,
                _ = look.tick() => self.conversation.look().await,
            }
        }
    }

    /// The claim outlives the writer: what it commits at the very end is installed.
    async fn end(mut self) {
        self.conversation.end();
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.conversation.handle(event).await,
                _ = &mut self.closed => break,
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.conversation.handle(event).await;
        }
    }
}
