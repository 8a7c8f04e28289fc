//! The thread that reads for the core: a disk that takes seconds to say no delays nothing else.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::UnboundedSender;

use crate::core::{At, Event, ReadId, Span, Status};
use crate::io::BlockDevice;
use crate::io::probe::{self, Class};
use crate::service::process::STACK;

/// One [`crate::core::Action::Read`].
#[derive(Debug)]
pub struct Job {
    pub id: ReadId,
    pub spans: Vec<Span>,
    pub retries: u32,
}

/// Ends when its jobs' sender is gone. Jobs are no more than the core has faults, which the kernel
/// bounds.
pub fn start(
    mut data: BlockDevice,
    mut spare: BlockDevice,
    jobs: mpsc::Receiver<Job>,
    events: UnboundedSender<Event>,
) -> io::Result<JoinHandle<()>> {
    let mut buffer = Vec::new();
    let mut read = move |span: &Span, retries| {
        let (disk, at) = match span.at {
            At::Data(sector) => (&mut data, sector.bytes()),
            At::Spare(slot) => (&mut spare, slot.bytes()),
        };
        buffer.resize(span.len.bytes() as usize, 0);
        match probe::read(disk, at, &mut buffer, retries) {
            Ok(()) => Status::Ok,
            Err(Class::Medium) => Status::Medium,
            Err(Class::Unspecific) => Status::IoErr,
            Err(Class::Other) => Status::Other,
        }
    };
    thread::Builder::new().name("reader".into()).stack_size(STACK).spawn(move || {
        for Job { id, spans, retries } in jobs {
            let results = spans.iter().map(|span| read(span, retries)).collect();
            if events.send(Event::ReadDone { id, results }).is_err() {
                return;
            }
        }
    })
}
