//! The thread that makes things durable on the spare: flushes, commits, and checkpoints when it has
//! nothing else to do.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::core::{CommitFailure, Event};
use crate::metadata::{CommitError, Disk, Doubt, Durable, Store};
use crate::service::process::STACK;
use crate::table::Change;

#[derive(Debug)]
pub enum Job {
    Flush,
    Commit(Vec<Change>),
    Restate,
}

/// Ends when its jobs' sender is gone, and then closes the store, unless a commit is unknown. `closed` is
/// dropped after the last event.
pub fn start<D: Disk + Send + 'static>(
    store: Store<D>,
    jobs: Receiver<Job>,
    events: UnboundedSender<Event>,
    closed: oneshot::Sender<()>,
) -> io::Result<JoinHandle<()>> {
    let writer = Writer::new(store);
    thread::Builder::new().name("writer".into()).stack_size(STACK).spawn(move || {
        run(writer, &jobs, &events);
        drop(closed);
    })
}

fn run<D: Disk>(mut writer: Writer<D>, jobs: &Receiver<Job>, events: &UnboundedSender<Event>) {
    loop {
        let told = match jobs.try_recv() {
            Ok(job) => writer.work(job),
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                // Nobody listens any more if the driver has failed.
                writer.rest().into_iter().for_each(|event| drop(events.send(event)));
                match jobs.recv() {
                    Ok(job) => writer.work(job),
                    Err(_) => break,
                }
            }
        };
        if told.into_iter().any(|event| events.send(event).is_err()) {
            break;
        }
    }
    writer.close();
}

/// A commit of the core may take several records. They need not be atomic together, because nothing
/// is acknowledged before all are durable; but once one is submitted, all must become durable.
pub struct Writer<D> {
    store: Store<D>,
    /// The store has an unknown record of the core's commit.
    submitted: bool,
    /// The core's changes that no record was submitted for.
    waiting: VecDeque<Vec<Change>>,
    /// Failed flushes that the core was told of.
    told: u64,
}

impl<D: Disk> Writer<D> {
    pub fn new(store: Store<D>) -> Writer<D> {
        // What was lost while it was opened, no place was sent to yet.
        let told = store.flush_failures();
        Writer { store, submitted: false, waiting: VecDeque::new(), told }
    }

    /// The answer is the last of the events.
    pub fn work(&mut self, job: Job) -> Vec<Event> {
        let answer = match job {
            Job::Flush => Event::FlushDone { ok: self.flush() },
            Job::Commit(changes) => Event::CommitDone(self.commit(&changes)),
            Job::Restate => Event::CommitDone(self.restate()),
        };
        self.news().into_iter().chain([answer]).collect()
    }

    /// To be called when there is no job to do.
    pub fn rest(&mut self) -> Option<Event> {
        if self.idle() && self.store.wants_checkpoint() {
            self.checkpoint();
        }
        self.news()
    }

    /// Nothing comes after it.
    pub fn close(&mut self) {
        if self.idle() {
            if let Err(error) = self.store.leave() {
                tracing::warn!("the spare is left marked as in use: {error}");
            }
        }
    }

    /// Of failed flushes, whatever they were for.
    fn news(&mut self) -> Option<Event> {
        let failures = self.store.flush_failures();
        let before = std::mem::replace(&mut self.told, failures);
        (before != failures).then_some(Event::FlushFailed)
    }

    fn idle(&self) -> bool {
        !self.submitted && self.waiting.is_empty()
    }

    /// Whether others have failed meanwhile, the core sees for itself.
    fn flush(&mut self) -> bool {
        match self.store.flush() {
            Err(error) if !Doubt::is(&error) => {
                tracing::error!("the spare fails a flush: {error}");
                false
            }
            _ => true,
        }
    }

    fn commit(&mut self, changes: &[Change]) -> Result<crate::core::Durable, CommitFailure> {
        let mut admitted = self.store.admit(changes);
        if matches!(admitted, Err(CommitError::Full(_))) && self.idle() {
            self.checkpoint();
            admitted = self.store.admit(changes);
        }
        admitted.map_err(|error| {
            tracing::error!("{error}");
            match error {
                CommitError::Dead(_) => CommitFailure::Dead,
                _ => CommitFailure::Full,
            }
        })?;
        self.waiting = changes.chunks(self.store.max_changes()).map(<[_]>::to_vec).collect();
        self.restate()
    }

    fn restate(&mut self) -> Result<crate::core::Durable, CommitFailure> {
        self.go_on().map(Into::into).map_err(|error| self.fail(&error))
    }

    /// Submits what is owed, in order, up to the first record that is not known to be durable.
    fn go_on(&mut self) -> Result<Durable, CommitError> {
        let mut last = None;
        if self.submitted {
            last = Some(self.store.restate()?);
            self.submitted = false;
        }
        while let Some(changes) = self.waiting.pop_front() {
            last = Some(self.store.commit_admitted(&changes).inspect_err(|error| {
                self.submitted = matches!(error, CommitError::Unknown { .. });
            })?);
        }
        last.ok_or_else(|| CommitError::Invalid("it has no changes".to_owned()))
    }

    fn fail(&mut self, error: &CommitError) -> CommitFailure {
        match error {
            CommitError::Unknown { .. } => {
                tracing::warn!("{error}");
                CommitFailure::Unknown
            }
            // Part of the commit may be durable, and the rest can't be: as if no mirror were left.
            _ => {
                tracing::error!("{error}");
                self.waiting.clear();
                CommitFailure::Dead
            }
        }
    }

    fn checkpoint(&mut self) {
        if let Err(error) = self.store.checkpoint() {
            tracing::warn!("checkpoint: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
