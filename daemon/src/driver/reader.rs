//! The thread that reads for the core: a disk that takes seconds to say no delays nothing else.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::UnboundedSender;

use crate::core::{At, Event, ReadId, Span, Status};
use crate::io::BlockDevice;
use crate::io::probe::{self, Class, ReadAt};
use crate::service::process::STACK;

/// One [`crate::core::Action::Read`].
#[derive(Debug)]
pub struct Job {
    pub id: ReadId,
    pub spans: Vec<Span>,
    pub retries: u32,
}

/// The two disks, by descriptors of its own.
pub struct Reader<D> {
    data: D,
    spare: D,
    buffer: Vec<u8>,
}

impl<D: ReadAt> Reader<D> {
    pub fn new(data: D, spare: D) -> Reader<D> {
        Reader { data, spare, buffer: Vec::new() }
    }

    pub fn work(&mut self, job: Job) -> Event {
        let results = job.spans.iter().map(|span| self.read(span, job.retries)).collect();
        Event::ReadDone { id: job.id, results }
    }

    fn read(&mut self, span: &Span, retries: u32) -> Status {
        let (disk, at) = match span.at {
            At::Data(sector) => (&mut self.data, sector.bytes()),
            At::Spare(slot) => (&mut self.spare, slot.bytes()),
        };
        self.buffer.resize(span.len.bytes() as usize, 0);
        match probe::read(disk, at, &mut self.buffer, retries) {
            Ok(()) => Status::Ok,
            Err(Class::Medium) => Status::Medium,
            Err(Class::Unspecific) => Status::IoErr,
            Err(Class::Other) => Status::Other,
        }
    }
}

/// Ends when its jobs' sender is gone. Jobs are no more than the core has faults, which the kernel
/// bounds.
pub fn start(
    mut reader: Reader<BlockDevice>,
    jobs: mpsc::Receiver<Job>,
    events: UnboundedSender<Event>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("reader".into()).stack_size(STACK).spawn(move || {
        for job in jobs {
            if events.send(reader.work(job)).is_err() {
                return;
            }
        }
    })
}
