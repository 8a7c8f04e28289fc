//! What reads for the core: a disk that takes seconds to say no delays nothing but what is read after it by the
//! same thread. There are two, see [`super::Jobs`].

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::Clock;
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
    /// By the driver's clock.
    pub until: Option<Duration>,
}

/// The two disks, by descriptors of its own.
pub struct Reader<D, C> {
    data: D,
    spare: D,
    clock: C,
    buffer: Vec<u8>,
}

impl<D: ReadAt, C: Clock> Reader<D, C> {
    pub fn new(data: D, spare: D, clock: C) -> Reader<D, C> {
        Reader { data, spare, clock, buffer: Vec::new() }
    }

    pub fn work(&mut self, job: Job) -> Event {
        let read = |span| match job.until {
            Some(until) if until <= self.clock.now() => Status::NotDone,
            _ => self.read(span, job.retries),
        };
        Event::ReadDone { id: job.id, results: job.spans.iter().map(read).collect() }
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

/// Ends when its jobs' sender is gone. Jobs of faults that have ended take no time, so what waits is bounded as
/// the kernel bounds faults.
pub fn start(
    mut reader: Reader<BlockDevice, Instant>,
    jobs: mpsc::Receiver<Job>,
    events: UnboundedSender<Event>,
) -> io::Result<()> {
    let thread = thread::Builder::new().name("reader".into()).stack_size(STACK);
    thread.spawn(move || {
        for job in jobs {
            if events.send(reader.work(job)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Sector, Sectors};

    /// Each read fails and takes its time.
    struct Dying(u32);

    impl ReadAt for Dying {
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
            self.0 += 1;
            thread::sleep(Duration::from_millis(20));
            Err(io::Error::from_raw_os_error(nix::libc::ENODATA))
        }
    }

    /// One that nobody waits for any more delays those that come after it by one read at most.
    #[test]
    fn a_job_ends_with_the_fault_that_it_is_for() {
        let mut reader = Reader::new(Dying(0), Dying(0), Instant::now());
        let spans = vec![Span { at: At::Data(Sector(8)), len: Sectors(1) }; 1000];
        let until = Some(Duration::from_millis(10));
        let told = reader.work(Job { id: ReadId(1), spans, retries: 0, until });
        let Event::ReadDone { results, .. } = told else { panic!("{told:?}") };
        assert_eq!(results.len(), 1000);
        assert!(results[1..].iter().all(|status| *status == Status::NotDone));
        assert!(reader.data.0 <= 1, "{} reads", reader.data.0);
    }
}
