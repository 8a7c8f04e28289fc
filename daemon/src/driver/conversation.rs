//! A device's turn: an event for the core, its actions carried out, and so on until none is left.
//!
//! Nothing here waits but for the kernel's answers, so that a simulator can take the same turns.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::Duration;

use dmremap_protocol::{InstanceInfo, Message, Request};

use super::{Ask, Clock, Kernel, Target, reader, translate, writer};
use crate::config::resolve::Disks;
use crate::core::{Action, At, Device, Event};
use crate::link::{Bell, LinkError};

/// The ways to the threads that wait for disks.
pub struct Jobs {
    pub reader: mpsc::Sender<reader::Job>,
    /// For what is on the spare alone: it must not wait for a data disk that takes seconds to say no.
    pub spare_reader: mpsc::Sender<reader::Job>,
    pub writer: mpsc::Sender<writer::Job>,
}

pub struct Conversation<K, C> {
    name: String,
    core: Device,
    kernel: K,
    clock: C,
    target: Target,
    /// None once the threads are to end.
    jobs: Option<Jobs>,
    timer: Option<Duration>,
    instance: Option<InstanceInfo>,
    /// What the instance last did not match, so that it is said once.
    unfit: Option<u32>,
}

impl<K: Kernel, C: Clock> Conversation<K, C> {
    pub fn new(
        name: String,
        core: Device,
        kernel: K,
        clock: C,
        target: Target,
        jobs: Jobs,
    ) -> Conversation<K, C> {
        Conversation {
            name,
            core,
            kernel,
            clock,
            target,
            jobs: Some(jobs),
            timer: None,
            instance: None,
            unfit: None,
        }
    }

    /// The threads end when they have done what they have, and nothing new begins.
    pub fn end(&mut self) {
        self.jobs = None;
    }

    pub fn core(&self) -> &Device {
        &self.core
    }

    /// When [`Conversation::tick`] is due, by its clock.
    pub fn timer(&self) -> Option<Duration> {
        self.timer
    }

    pub async fn tick(&mut self) {
        self.timer = None;
        self.handle(Event::Tick).await;
    }

    pub async fn asked(&mut self, ask: Ask) {
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
    pub async fn look(&mut self) {
        let mut answer = self.kernel.request(&Request::InstanceGet).await;
        if matches!(answer, Err(LinkError::Anew)) {
            // Another that has the number of ours has not its table.
            self.found(None).await;
            answer = self.kernel.request(&Request::InstanceGet).await;
        }
        let found = match answer {
            Ok(messages) => messages.into_iter().find_map(|message| match message {
                Message::Instance(info) if self.is_target(&info) => Some(info),
                _ => None,
            }),
            Err(LinkError::NoModule) => None,
            Err(error) => {
                tracing::warn!("{}: instances cannot be listed: {error}", self.name);
                return;
            }
        };
        self.found(found).await;
    }

    async fn found(&mut self, found: Option<InstanceInfo>) {
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

    pub async fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            tracing::trace!("{}: {event:?}", self.name);
            for action in self.core.handle(self.clock.now(), event) {
                tracing::trace!("{}: {action:?}", self.name);
                events.extend(self.act(action).await);
            }
        }
    }

    /// Carries the action out; the event is its answer if it has one already.
    async fn act(&mut self, action: Action) -> Option<Event> {
        let id = self.instance.as_ref().map_or(0, |instance| instance.instance);
        let last = matches!(action, Action::Install { .. } | Action::Alarm { .. });
        if self.jobs.is_none() && !last {
            return None;
        }
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
            Action::Read { id, spans, retries, until } => {
                let on_spare = spans.iter().all(|span| matches!(span.at, At::Spare(_)));
                let job = reader::Job { id, spans, retries, until };
                let jobs = self.jobs.as_ref();
                drop(jobs.map(|jobs| {
                    if on_spare { jobs.spare_reader.send(job) } else { jobs.reader.send(job) }
                }));
            }
            Action::FlushSpare => self.write(writer::Job::Flush),
            Action::Commit(changes) => self.write(writer::Job::Commit(changes)),
            Action::Restate => self.write(writer::Job::Restate),
            Action::Alarm { alarm, text } => {
                tracing::error!(alarm = ?alarm, "{}: {text}", self.name);
            }
            Action::SetTimer(at) => self.timer = Some(at),
            _ => {}
        }
        None
    }

    fn write(&self, job: writer::Job) {
        drop(self.jobs.as_ref().map(|jobs| jobs.writer.send(job)));
    }
}
