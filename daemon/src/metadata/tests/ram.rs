//! A disk in memory that has bad blocks, fails on request, and can be cut off from its power at
//! every point of what was done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::metadata::Disk;
use crate::units::{SECTOR_SIZE, Sectors, Slot};

const SECTOR: usize = SECTOR_SIZE as usize;
type Image = BTreeMap<u64, [u8; SECTOR]>;

#[derive(Debug, Clone)]
enum Op {
    Write(u64, Vec<u8>),
    Flush,
    FailedFlush,
}

/// Sectors that were never written, or with zeros, are absent.
#[derive(Debug, Clone)]
pub struct RamDisk {
    size: Sectors,
    pub physical: u64,
    image: Image,
    start: Image,
    ops: Vec<Op>,
    pub bad_reads: BTreeSet<u64>,
    pub bad_writes: BTreeSet<u64>,
    /// Whether each of the flushes to come succeeds; those after them do.
    pub flushes: Vec<bool>,
}

/// A sector of a write that is not known to be durable.
#[derive(Clone)]
struct Loose {
    sector: u64,
    bytes: [u8; SECTOR],
    /// Which write it belongs to.
    op: usize,
    /// A flush failed after it: no later one makes it durable.
    doomed: bool,
}

impl RamDisk {
    pub fn new(sectors: u64) -> RamDisk {
        RamDisk {
            size: Sectors(sectors),
            physical: 4096,
            image: Image::new(),
            start: Image::new(),
            ops: Vec::new(),
            bad_reads: BTreeSet::new(),
            bad_writes: BTreeSet::new(),
            flushes: Vec::new(),
        }
    }

    /// Everything so far is durable; what follows is recorded.
    pub fn settle(&mut self) {
        self.ops.clear();
        self.start = self.image.clone();
    }

    pub fn resize(&mut self, sectors: u64) {
        self.size = Sectors(sectors);
    }

    pub fn bytes(&self, at: Slot, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (sector, content) in self.image.range(at.0..at.0 + (len / SECTOR) as u64) {
            let from = (sector - at.0) as usize * SECTOR;
            bytes[from..from + SECTOR].copy_from_slice(content);
        }
        bytes
    }

    pub fn put(&mut self, at: Slot, bytes: &[u8]) {
        for (sector, chunk) in (at.0..).zip(bytes.chunks(SECTOR)) {
            set(&mut self.image, sector, chunk.try_into().unwrap());
        }
    }

    /// A block that can be neither read nor written.
    pub fn break_block(&mut self, at: Slot) {
        self.bad_reads.extend(at.0..at.0 + 8);
        self.bad_writes.extend(at.0..at.0 + 8);
    }

    pub fn flush_count(&self) -> usize {
        self.ops.iter().filter(|op| !matches!(op, Op::Write(..))).count()
    }

    pub fn written(&self) -> usize {
        self.ops.iter().map(|op| if let Op::Write(_, bytes) = op { bytes.len() } else { 0 }).sum()
    }

    /// Hands to `visit` what the disk may hold after a power cut at any point since `settle`: all
    /// subsets of the unflushed sectors up to 2^10; beyond, all subsets of whole writes up to that,
    /// and `samples` random ones; then `samples` where writes that were under way also tore the
    /// physical block around them. Crashes between writes are subsets of those before the next
    /// flush. The flag is set once all of it is done.
    pub fn crashes(&self, seed: u64, samples: u64, mut visit: impl FnMut(RamDisk, bool)) {
        let mut random = Random(seed);
        let mut base = self.start.clone();
        let mut loose: Vec<Loose> = Vec::new();
        for (n, op) in self.ops.iter().chain([&Op::Flush]).enumerate() {
            match op {
                Op::Write(at, bytes) => {
                    for (sector, chunk) in (*at..).zip(bytes.chunks(SECTOR)) {
                        let bytes: [u8; SECTOR] = chunk.try_into().unwrap();
                        let old = base.get(&sector).unwrap_or(&[0; SECTOR]);
                        if *old != bytes || loose.iter().any(|l| l.sector == sector) {
                            loose.push(Loose { sector, bytes, op: n, doomed: false });
                        }
                    }
                }
                Op::FailedFlush => loose.iter_mut().for_each(|l| l.doomed = true),
                Op::Flush => {
                    for fates in fates(&loose, samples, &mut random) {
                        let mut image = base.clone();
                        let found = || loose.iter().zip(&fates);
                        for (l, _) in found().filter(|(_, fate)| **fate == Fate::Kept) {
                            set(&mut image, l.sector, l.bytes);
                        }
                        for (l, _) in found().filter(|(_, fate)| **fate == Fate::Torn) {
                            let first = l.sector - l.sector % (self.physical / SECTOR_SIZE);
                            for sector in first..first + self.physical / SECTOR_SIZE {
                                set(&mut image, sector, [random.next() as u8; SECTOR]);
                            }
                        }
                        let start = image.clone();
                        let state = RamDisk { image, start, ..self.clone_shell() };
                        visit(state, n == self.ops.len());
                    }
                    let mut still: Vec<Loose> = Vec::new();
                    for l in loose.drain(..) {
                        if l.doomed {
                            still.push(l);
                        } else {
                            set(&mut base, l.sector, l.bytes);
                            still.retain(|old| old.sector != l.sector);
                        }
                    }
                    loose = still;
                }
            }
        }
    }

    /// What it holds when the power fails in a write since `settle`, for each: nobody knows what that block holds then,
    /// even if it was to become what it had been.
    pub fn torn(&self) -> Vec<RamDisk> {
        let mut now = RamDisk { image: self.start.clone(), ..self.clone_shell() };
        let mut states = Vec::new();
        for op in &self.ops {
            if let Op::Write(at, bytes) = op {
                let mut torn = now.clone();
                torn.put(Slot(*at), &vec![0xa5; bytes.len()]);
                states.push(torn);
                now.put(Slot(*at), bytes);
            }
        }
        states
    }

    fn clone_shell(&self) -> RamDisk {
        RamDisk {
            physical: self.physical,
            bad_reads: self.bad_reads.clone(),
            bad_writes: self.bad_writes.clone(),
            ..RamDisk::new(self.size.0)
        }
    }
}

fn set(image: &mut Image, sector: u64, bytes: [u8; SECTOR]) {
    if bytes == [0; SECTOR] {
        image.remove(&sector);
    } else {
        image.insert(sector, bytes);
    }
}

/// What became of a sector that was not flushed.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

fn fates(loose: &[Loose], samples: u64, random: &mut Random) -> Vec<Vec<Fate>> {
    let fate = |keep| if keep { Fate::Kept } else { Fate::Lost };
    let mut ops: Vec<usize> = loose.iter().map(|l| l.op).collect();
    ops.dedup();
    let mut all: Vec<Vec<Fate>> = Vec::new();
    if loose.len() <= 10 {
        let bits = |mask: u32| (0..loose.len()).map(move |i| fate(mask >> i & 1 != 0));
        all.extend((0..1 << loose.len()).map(|mask| bits(mask).collect()));
    } else {
        if ops.len() <= 10 {
            for mask in 0..1u32 << ops.len() {
                let kept = |l: &Loose| ops.iter().position(|&op| op == l.op).map(|i| mask >> i & 1);
                all.push(loose.iter().map(|l| fate(kept(l) == Some(1))).collect());
            }
        }
        for _ in 0..samples {
            // Few lost, few kept, or even.
            let bias = [1, 8, 15][random.below(3) as usize];
            all.push(loose.iter().map(|_| fate(random.below(16) < bias)).collect());
        }
    }
    for _ in 0..if loose.is_empty() { 0 } else { samples } {
        let torn = random.below(5);
        let of_op: BTreeMap<usize, Fate> = ops
            .iter()
            .map(|&op| match random.below(4) < torn {
                true => (op, Fate::Torn),
                false => (op, fate(random.below(2) == 0)),
            })
            .collect();
        all.push(loose.iter().map(|l| of_op[&l.op]).collect());
    }
    all
}

impl Disk for RamDisk {
    fn size(&self) -> Sectors {
        self.size
    }

    fn physical_block(&self) -> u64 {
        self.physical
    }

    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        self.admit(at, buf.len(), &self.bad_reads)?;
        buf.copy_from_slice(&self.bytes(at, buf.len()));
        Ok(())
    }

    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        self.admit(at, buf.len(), &self.bad_writes)?;
        self.put(at, buf);
        self.ops.push(Op::Write(at.0, buf.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.flushes.is_empty() || self.flushes.remove(0) {
            self.ops.push(Op::Flush);
            return Ok(());
        }
        self.ops.push(Op::FailedFlush);
        Err(io::Error::other("the flush failed"))
    }
}

impl RamDisk {
    fn admit(&self, at: Slot, len: usize, bad: &BTreeSet<u64>) -> io::Result<()> {
        let sectors = (len / SECTOR) as u64;
        let aligned = at.bytes() % self.physical == 0 && len as u64 % self.physical == 0;
        assert!(aligned, "{len} bytes at sector {at} are not whole physical blocks");
        assert!(at.0 + sectors <= self.size.0, "beyond the end: sector {at}");
        match bad.range(at.0..at.0 + sectors).next() {
            Some(sector) => Err(io::Error::other(format!("sector {sector} is bad"))),
            None => Ok(()),
        }
    }
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
