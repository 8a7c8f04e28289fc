//! One device, driven: the core's actions are carried out, and what comes of them is told to it.
//!
//! The loop never waits for a disk. It sends requests to the kernel, which answers at once, and hands
//! everything else to two threads: `reader` for reads, `writer` for flushes and commits.

pub mod reader;
pub mod translate;
pub mod writer;

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dmremap_protocol::{InstanceInfo, Message, Request};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::config::resolve::Disks;
use crate::core::{Action, Device, Event, Policy, Snapshot};
use crate::link::{Bell, Link, LinkError};
use crate::table::Table;
use crate::units::Sectors;

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

/// The threads that wait for disks.
pub struct Threads {
    pub reader: mpsc::Sender<reader::Job>,
    pub writer: mpsc::Sender<writer::Job>,
    pub events: UnboundedReceiver<Event>,
}

pub struct Driver<K> {
    name: String,
    core: Device,
    kernel: K,
    target: Target,
    threads: Threads,
    begun: Instant,
    timer: Option<Duration>,
    instance: Option<InstanceInfo>,
    /// What the instance last did not match, so that it is said once.
    unfit: Option<u32>,
}

impl<K: Kernel> Driver<K> {
    pub fn new(
        name: String,
        core: Device,
        kernel: K,
        target: Target,
        threads: Threads,
    ) -> Driver<K> {
        let begun = Instant::now();
        Driver {
            name,
            core,
            kernel,
            target,
            threads,
            begun,
            timer: None,
            instance: None,
            unfit: None,
        }
    }

    /// Until nobody can ask any more, or a thread has died; its claim ends with it.
    pub async fn run(mut self, mut asks: Receiver<Ask>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let timer = self.timer.map(|at| tokio::time::Instant::from_std(self.begun + at));
            let tick = async {
                match timer {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                event = self.threads.events.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => {
                        tracing::error!("{}: a thread has ended, faults are not served", self.name);
                        return;
                    }
                },
                ask = asks.recv() => match ask {
                    Some(ask) => self.asked(ask).await,
                    None => return,
                },
                () = tick => {
                    self.timer = None;
                    self.handle(Event::Tick).await;
                }
                _ = look.tick() => self.look().await,
            }
        }
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Doorbell(bell) => match (bell, &self.instance) {
                (Bell::Instance(rung), Some(ours)) if ours.instance != rung => {}
                _ => self.handle(Event::Doorbell).await,
            },
            Ask::Look => self.look().await,
            Ask::Policy(policy) => self.handle(Event::PolicyChanged(policy)).await,
            // Whoever asked may be gone.
            Ask::Status(to) => {
                self.look().await;
                drop(to.send((self.core.snapshot(), self.instance.clone())));
            }
            Ask::Table(to) => drop(to.send(self.core.table().clone())),
        }
    }

    /// Is the instance there, and still ours?
    async fn look(&mut self) {
        let found = match self.kernel.request(&Request::InstanceGet).await {
            Ok(messages) => messages.into_iter().find_map(|message| match message {
                Message::Instance(info) if self.is_target(&info) => Some(info),
                _ => None,
            }),
            Err(error) => {
                tracing::warn!("{}: instances cannot be listed: {error}", self.name);
                return;
            }
        };
        let found = found.filter(|info| self.fits(info));
        let before = std::mem::replace(&mut self.instance, found);
        let event = match (&before, &self.instance) {
            (None, None) => return,
            (Some(_), None) => Event::Gone,
            (Some(old), Some(new)) if old.instance == new.instance => {
                let ours = Some(self.kernel.port());
                match old.owner == ours && new.owner != ours {
                    true => Event::OwnerLost,
                    // The kernel rings for a flush that fails, not for one that succeeds again.
                    false if old.flags != new.flags => Event::Doorbell,
                    false => return,
                }
            }
            (_, Some(new)) => Event::Instance(translate::instance(new)),
        };
        self.handle(event).await;
    }

    fn is_target(&self, info: &InstanceInfo) -> bool {
        let Disks { data, spare } = self.target.disks;
        info.data_dev == data.wire() && info.spare_dev == spare.wire()
    }

    /// A table for another length or block would mean other sectors.
    fn fits(&mut self, info: &InstanceInfo) -> bool {
        let Target { sectors, block, .. } = self.target;
        if (info.sectors, u64::from(info.block)) == (sectors.0, block.0) {
            return true;
        }
        if self.unfit.replace(info.instance) != Some(info.instance) {
            tracing::error!(
                "{}: the mapped device has {} sectors in blocks of {}, the label says {sectors} and \
                 {block}; remove it and let the daemon make it",
                self.name,
                info.sectors,
                info.block,
            );
        }
        false
    }

    async fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            tracing::trace!("{}: {event:?}", self.name);
            for action in self.core.handle(self.begun.elapsed(), event) {
                tracing::trace!("{}: {action:?}", self.name);
                events.extend(self.act(action).await);
            }
        }
    }

    /// Carries the action out; the event is its answer if it has one already.
    async fn act(&mut self, action: Action) -> Option<Event> {
        let id = self.instance.as_ref().map_or(0, |instance| instance.instance);
        if let Some(request) = translate::request(id, &action) {
            let answer = self.kernel.request(&request).await;
            if let Err(error) = &answer {
                tracing::debug!("{}: {:?}: {error}", self.name, request.command());
            }
            if let (Action::Claim { .. }, Ok(_), Some(instance)) =
                (&action, &answer, &mut self.instance)
            {
                instance.owner = Some(self.kernel.port());
            }
            return translate::event(&action, answer);
        }
        // A thread that is gone is noticed by the end of its events.
        match action {
            Action::Read { id, spans, retries } => {
                let _ = self.threads.reader.send(reader::Job { id, spans, retries });
            }
            Action::FlushSpare => drop(self.threads.writer.send(writer::Job::Flush)),
            Action::Commit(changes) => {
                let _ = self.threads.writer.send(writer::Job::Commit(changes));
            }
            Action::Restate => drop(self.threads.writer.send(writer::Job::Restate)),
            Action::Alarm { alarm, text } => {
                tracing::error!(alarm = ?alarm, "{}: {text}", self.name);
            }
            Action::SetTimer(at) => self.timer = Some(at),
            _ => {}
        }
        None
    }
}
