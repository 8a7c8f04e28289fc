//! The guest's side: random requests to a block device, each announced before it is sent and answered after.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use aligned_vec::{AVec, ConstAlign};
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, pwritev2};

use super::{Event, pattern};
use crate::SECTOR;

/// The most sectors of one request.
const LARGEST: u64 = 128;
/// O_DIRECT asks for at most this alignment of memory, in bytes.
type Buffer = AVec<u8, ConstAlign<4096>>;

/// Takes each history line; see [`crate::iocheck`] for what it owes the judge.
pub type Emit<'a> = dyn FnMut(&Event) -> io::Result<()> + Send + 'a;

/// What to do to a device.
#[derive(Debug, Clone)]
pub struct Workload {
    pub seed: u64,
    /// Requests in all; [`u64::MAX`] means until the guest dies.
    pub requests: u64,
    /// Where, in whole blocks.
    pub sectors: Range<u64>,
    /// The device's logical block in sectors.
    pub block: u64,
    /// How many requests are in flight together.
    pub threads: u64,
    /// Whether some requests are flushes and FUA writes, which make durable what others have left out.
    pub syncs: bool,
    /// The first id; ids of one history must not repeat.
    pub first_id: u64,
}

struct Device<'a> {
    file: File,
    next_id: AtomicU64,
    emit: Mutex<&'a mut Emit<'a>>,
}

/// Runs the workload. A failed request is an event; an error is a line that could not be emitted, or a device
/// that could not be opened.
pub fn run<'a>(path: &Path, workload: &Workload, emit: &'a mut Emit<'a>) -> io::Result<()> {
    let device = Device::open(path, workload.first_id, emit)?;
    let end = workload.first_id.saturating_add(workload.requests);
    thread::scope(|scope| {
        let worker = |number| {
            let device = &device;
            scope.spawn(move || device.work(workload, number, end))
        };
        let workers: Vec<_> = (0..workload.threads).map(worker).collect();
        let died = |_| io::Error::other("a worker died");
        workers.into_iter().try_for_each(|worker| worker.join().map_err(died)?)
    })
}

/// Reads all of `sectors`, piece by piece; a piece that cannot be read is halved until single blocks are left.
pub fn read_back<'a>(
    path: &Path,
    sectors: Range<u64>,
    block: u64,
    first_id: u64,
    emit: &'a mut Emit<'a>,
) -> io::Result<()> {
    let device = Device::open(path, first_id, emit)?;
    let largest = (LARGEST / block).max(1) * block;
    // The next one is the last.
    let mut left: Vec<Range<u64>> = (sectors.clone().step_by(largest as usize))
        .map(|at| at..sectors.end.min(at + largest))
        .collect();
    left.reverse();
    while let Some(piece) = left.pop() {
        let blocks = (piece.end - piece.start) / block;
        if device.read(device.next_id(), piece.clone())?.is_err() && blocks > 1 {
            let middle = piece.start + blocks / 2 * block;
            left.extend([middle..piece.end, piece.start..middle]);
        }
    }
    Ok(())
}

impl<'a> Device<'a> {
    fn open(path: &Path, first_id: u64, emit: &'a mut Emit<'a>) -> io::Result<Self> {
        let direct = OFlags::DIRECT.bits() as i32;
        let file = File::options().read(true).write(true).custom_flags(direct).open(path)?;
        Ok(Self { file, next_id: AtomicU64::new(first_id), emit: Mutex::new(emit) })
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn work(&self, workload: &Workload, number: u64, end: u64) -> io::Result<()> {
        let mut random = fastrand::Rng::with_seed(workload.seed.wrapping_add(number));
        let Range { start: first, end: last } = workload.sectors;
        loop {
            let id = self.next_id();
            if id >= end {
                return Ok(());
            }
            let start = first + random.u64(..(last - first) / workload.block) * workload.block;
            let largest = LARGEST / workload.block / random.choice([1, 8]).unwrap_or(1);
            let blocks = random.u64(1..=largest.max(1));
            let sectors = start..last.min(start + blocks * workload.block);
            match random.u8(..10) {
                1 | 2 => drop(self.read(id, sectors)?),
                0 if workload.syncs => self.flush(id)?,
                3 | 4 if workload.syncs => self.write(id, sectors, true)?,
                _ => self.write(id, sectors, false)?,
            }
        }
    }

    fn write(&self, id: u64, sectors: Range<u64>, fua: bool) -> io::Result<()> {
        let mut buffer = buffer(&sectors);
        for (sector, bytes) in sectors.clone().zip(buffer.chunks_exact_mut(SECTOR)) {
            pattern::fill(bytes, sector, id);
        }
        let offset = sectors.start * SECTOR as u64;
        self.emit(Event::Write { id, sectors, fua })?;
        let flags = if fua { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        let written = match pwritev2(&self.file, &[IoSlice::new(&buffer)], offset, flags) {
            Ok(written) if written < buffer.len() => Err(rustix::io::Errno::NOSPC.into()),
            other => other.map(drop).map_err(io::Error::from),
        };
        self.answer(id, written.map(|()| Vec::new())).map(drop)
    }

    fn flush(&self, id: u64) -> io::Result<()> {
        self.emit(Event::Flush { id })?;
        self.answer(id, self.file.sync_data().map(|()| Vec::new())).map(drop)
    }

    fn read(&self, id: u64, sectors: Range<u64>) -> io::Result<Result<(), ()>> {
        let mut buffer = buffer(&sectors);
        self.emit(Event::Read { id, sectors: sectors.clone() })?;
        let read = self.file.read_exact_at(&mut buffer, sectors.start * SECTOR as u64);
        let found = || {
            sectors
                .zip(buffer.chunks_exact(SECTOR))
                .map(|(sector, bytes)| pattern::identify(bytes, sector))
        };
        self.answer(id, read.map(|()| found().collect()))
    }

    /// Emits how a request ended, and says whether it was well.
    fn answer(
        &self,
        id: u64,
        result: io::Result<Vec<pattern::Content>>,
    ) -> io::Result<Result<(), ()>> {
        let ended = result.as_ref().map(drop).map_err(drop);
        self.emit(match result {
            Ok(contents) => Event::Ok { id, contents },
            Err(error) => Event::Error { id, errno: error.raw_os_error().unwrap_or(0) },
        })?;
        Ok(ended)
    }

    fn emit(&self, event: Event) -> io::Result<()> {
        (self.emit.lock().unwrap_or_else(PoisonError::into_inner))(&event)
    }
}

fn buffer(sectors: &Range<u64>) -> Buffer {
    let mut buffer = Buffer::new(4096);
    buffer.resize((sectors.end - sectors.start) as usize * SECTOR, 0);
    buffer
}
