//! From a seed to a script.

use crate::disk::{BAD_READ, BAD_WRITE, HEALS};
use crate::rng::Rng;
use crate::script::{Config, Op, Part, Script, Step, Which};

/// What else goes wrong, besides bad sectors, crashes and lost bells. One kind a seed, so that most
/// seeds allow no error at all; or two, for what only their meeting breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Plain,
    Daemon,
    Requests,
    SpareSlots,
    /// A mirror, or superblock copies.
    Metadata,
    /// Writes to the spare that fail once.
    Hiccups,
    Flushes,
    DataFlushes,
    Transport,
    Bounds,
    Suspends,
    Foreign,
    Lying,
    /// Metadata writes that go astray, and metadata that cannot be read for a time.
    Misdirected,
    /// So many bad sectors that checkpoints are made, and a crash at some I/O of the daemon's.
    Wear,
}

const FLAVOURS: [Flavour; 21] = [
    Flavour::Plain,
    Flavour::Plain,
    Flavour::Plain,
    Flavour::Daemon,
    Flavour::Daemon,
    Flavour::Requests,
    Flavour::Requests,
    Flavour::SpareSlots,
    Flavour::Metadata,
    Flavour::Hiccups,
    Flavour::Flushes,
    Flavour::DataFlushes,
    Flavour::Transport,
    Flavour::Bounds,
    Flavour::Suspends,
    Flavour::Foreign,
    Flavour::Lying,
    Flavour::Misdirected,
    Flavour::Wear,
    Flavour::Wear,
    Flavour::Wear,
];

pub const STEPS: usize = 220;

struct Maker {
    rng: Rng,
    config: Config,
    flavours: Vec<Flavour>,
    /// Where applications are busy.
    hot: Vec<u64>,
    bad: u64,
    /// By each flavour.
    spoilt: [u64; 2],
    /// Always the same one: two could be all copies of a block.
    part: Part,
}

pub fn script(seed: u64) -> Script {
    let mut rng = Rng::new(seed, 0);
    let flavours = flavours(&mut rng);
    let has = |flavour| flavours.contains(&flavour);
    let wear = has(Flavour::Wear);
    let block = if wear { 1 } else { [1, 1, 8][rng.below(3) as usize] };
    let (bounds, requests) = (has(Flavour::Bounds), has(Flavour::Requests));
    let config = Config {
        sectors: 2048,
        spare: if wear { 12_288 } else { [11_008, 12_288][rng.below(2) as usize] },
        block,
        hold_ms: if bounds { rng.range(5, 3000) } else { 60_000 },
        ready_ms: if bounds { rng.range(5, 3000) } else { 60_000 },
        max_held: if bounds { rng.range(1, 8) } else { 1024 },
        queue_unowned: !bounds || rng.chance(50),
        says_medium: rng.chance(70),
        lying_flush: has(Flavour::Lying),
        emulated_fua: rng.chance(50),
        record: [0, 0, 1, 2][rng.below(4) as usize],
        lost_bells: [0, 10, 50][rng.below(3) as usize],
        no_memory: if requests { 20 } else { 0 },
        lost_answers: if requests { 20 } else { 0 },
        lost_requests: if requests { 20 } else { 0 },
    };
    let hot = (0..6).map(|_| rng.below(config.sectors / 8 - 16) * 8).collect();
    let part = [Part::Mirror(0), Part::Mirror(1), Part::Copies][rng.below(3) as usize];
    let mut maker = Maker { rng, config, flavours, hot, bad: 0, spoilt: [0; 2], part };
    let steps = maker.steps();
    Script { seed, config: maker.config, steps }
}

/// What lies or wears out is alone; and two that damage metadata may be more than is tolerated.
fn flavours(rng: &mut Rng) -> Vec<Flavour> {
    use Flavour::{Hiccups, Lying, Metadata, Misdirected, Wear};
    let mut one = || FLAVOURS[rng.below(FLAVOURS.len() as u64) as usize];
    let both = [one(), one()];
    let has = |flavour| both.contains(&flavour);
    let damage = [Metadata, Misdirected, Hiccups].into_iter().filter(|&flavour| has(flavour));
    let alone = has(Lying) || has(Wear) || damage.count() > 1;
    if alone || both[0] == both[1] || rng.below(3) > 0 { both[..1].to_vec() } else { both.to_vec() }
}

impl Maker {
    fn steps(&mut self) -> Vec<Step> {
        let mut steps = vec![Step { after: 200_000, op: self.bad() }];
        let mut crash = Some(self.rng.range(40, 180) as usize);
        while steps.len() < STEPS {
            let after = self.pause();
            let due = crash.take_if(|at| steps.len() >= *at).is_some();
            let op = if due { self.crash() } else { self.any() };
            let astray = self.flavours.contains(&Flavour::Misdirected);
            match (astray, self.rng.below(60)) {
                (true, 0) => self.unknown_commit(&mut steps),
                (true, 1) => {
                    let (back, ms) = (Some(self.rng.below(5) as u32), 300);
                    steps.push(Step { after: 100, op: Op::Mute { mirrors: 3, back, ms } });
                    steps.push(Step { after: 10, op: Op::Kill { back_ms: 1 } });
                }
                _ => {}
            }
            let failing = matches!(op, Op::FailFlush { .. } | Op::Hiccup { .. });
            if matches!(op, Op::FailFlush { disk: Which::Spare, .. }) && self.rng.chance(80) {
                self.under_a_commit(&mut steps, op);
                continue;
            }
            // The mirror is declared dead then.
            if matches!(op, Op::BadMirror { .. }) && self.rng.chance(50) {
                let op = self.gone_at_superblock();
                steps.push(Step { after: 1, op });
            }
            if matches!(op, Op::Gone { disk: Which::Data, .. }) && self.rng.chance(80) {
                self.in_a_search(&mut steps);
                continue;
            }
            if let (Op::Storm { disk, .. }, true) = (&op, self.rng.chance(80)) {
                self.as_a_storm_ends(&mut steps, *disk);
                continue;
            }
            steps.push(Step { after, op });
            // It returns when another has its place, or has had it.
            if let (Op::Stop { ms }, true) = (&steps[steps.len() - 1].op, self.rng.chance(50)) {
                let ms = self.rng.range(1, 2 * ms + 1);
                steps.push(Step { after: 1000, op: Op::Rival { ms } });
            }
            if failing && self.rng.chance(30) {
                steps.push(Step { after: 10, op: self.fuse(12) });
            }
        }
        steps
    }

    /// A flush that fails while the daemon is at work, perhaps an application's.
    fn under_a_commit(&mut self, steps: &mut Vec<Step>, failure: Op) {
        let bad = self.bad();
        let Op::Bad { start, len, .. } = bad else { return };
        steps.push(Step { after: 1, op: bad });
        steps.push(Step { after: 1, op: Op::Write { start, len, fua: false } });
        steps.push(Step { after: self.rng.range(100, 3000), op: failure });
        for _ in 0..8 {
            steps.push(Step { after: self.rng.range(1, 100), op: Op::Flush });
        }
    }

    /// Sectors that go bad, and a range around them.
    fn bad_among_good(&mut self) -> Option<(Op, u64, u64)> {
        let bad = self.bad();
        let Op::Bad { start, .. } = bad else { return None };
        let block = self.config.block;
        Some((bad, start.saturating_sub(4 * block), 8 * block))
    }

    /// The disk is gone for a moment while the daemon looks for bad sectors among good ones.
    fn in_a_search(&mut self, steps: &mut Vec<Step>) {
        let Some((bad, start, len)) = self.bad_among_good() else { return };
        let after = self.rng.range(100, 3000);
        steps.push(Step { after: 1, op: bad });
        steps.push(Step { after: 1, op: Op::Write { start, len, fua: false } });
        steps.push(Step { after, op: Op::Gone { disk: Which::Data, ms: 1 } });
    }

    /// The disk answers again while the daemon looks for what cannot be read.
    fn as_a_storm_ends(&mut self, steps: &mut Vec<Step>, disk: Which) {
        let Some((bad, start, len)) = self.bad_among_good() else { return };
        if disk == Which::Spare {
            return self.on_both_disks(steps, bad, (start, len));
        }
        let ms = self.rng.range(1, 8);
        steps.push(Step { after: 1, op: bad });
        steps.push(Step { after: 1, op: Op::Storm { disk, ms } });
        steps.push(Step { after: 1, op: Op::Read { start, len, ahead: false } });
    }

    /// The spare is away while the daemon looks for what cannot be read, a part of which was mapped while that was read.
    fn on_both_disks(&mut self, steps: &mut Vec<Step>, bad: Op, (start, len): (u64, u64)) {
        let (block, disk) = (self.config.block, Which::Spare);
        let (after, ms) = (self.rng.range(1000, 16_000), self.rng.range(4, 12));
        let mut step = |after, op| steps.push(Step { after, op });
        step(1, Op::Bad { start, len: block, flags: BAD_WRITE });
        step(1, bad);
        step(1, Op::Write { start, len: block, fua: false });
        step(100, Op::Read { start, len, ahead: false });
        step(after, Op::Storm { disk, ms });
    }

    /// A commit that is cut off, so that one mirror has it perhaps, and that mirror cannot be read when the
    /// daemon starts, but can the next time. What it says then must be void.
    fn unknown_commit(&mut self, steps: &mut Vec<Step>) {
        let Op::Bad { start, len, .. } = self.bad() else { return };
        let flags = BAD_WRITE;
        let mirrors = if self.part == Part::Mirror(1) { 2 } else { 1 };
        let (off_ms, ios) = (1, self.rng.range(1, 8));
        let mut step = |after, op| steps.push(Step { after, op });
        step(1000, Op::Write { start, len, fua: true });
        step(20_000, Op::Bad { start, len, flags });
        step(10, Op::CutAfter { ios, off_ms });
        step(10, Op::Write { start, len, fua: false });
        step(10_000, Op::Mute { mirrors, back: None, ms: 400 });
        step(200_000, Op::Read { start, len, ahead: false });
        step(400_000, Op::Kill { back_ms: 1 });
        step(100_000, Op::Read { start, len, ahead: false });
    }

    /// More, and control reads may find no sound place: an error storm.
    fn most_bad(&self) -> u64 {
        if self.config.block == 1 { 45 } else { 80 }
    }

    fn pause(&mut self) -> u64 {
        match self.rng.below(40) {
            0 => self.rng.range(100_000, 2_000_000),
            1..4 => self.rng.range(3_000, 50_000),
            _ => self.rng.range(5, 1200),
        }
    }

    fn range(&mut self) -> (u64, u64) {
        let block = self.config.block;
        let hot = self.hot[self.rng.below(self.hot.len() as u64) as usize];
        let len = match self.rng.below(8) {
            0 => self.rng.range(9, 40),
            1..3 => 8,
            _ => self.rng.range(1, 9),
        };
        let start = (hot + self.rng.below(48)) / block * block;
        let len = len.next_multiple_of(block);
        (start.min(self.config.sectors - len), len)
    }

    fn bad(&mut self) -> Op {
        let block = self.config.block;
        let (start, _) = self.range();
        let len = (1 + self.rng.below(3)) * block;
        self.bad += len;
        let flags = [BAD_WRITE | BAD_READ, BAD_WRITE, BAD_READ | HEALS, BAD_READ];
        let flags = flags[self.rng.below(8).min(3) as usize % 4];
        let flags = if self.rng.chance(50) { BAD_WRITE | BAD_READ } else { flags };
        Op::Bad { start, len: len.min(self.config.sectors - start), flags }
    }

    fn back(&mut self) -> u64 {
        match self.rng.below(6) {
            0 => self.rng.range(500, 5000),
            _ => self.rng.range(1, 200),
        }
    }

    fn crash(&mut self) -> Op {
        let ms = self.back();
        match self.rng.below(8) {
            0..2 => Op::Kill { back_ms: ms },
            2..4 => self.fuse(30),
            4 => Op::Restart { back_ms: ms },
            _ => Op::PowerCut { off_ms: ms },
        }
    }

    /// A crash at one of the next I/Os of the daemon.
    fn fuse(&mut self, most: u64) -> Op {
        let (ios, ms) = (self.rng.range(1, most), self.back());
        match self.rng.chance(50) {
            true => Op::KillAfter { ios, back_ms: ms },
            false => Op::CutAfter { ios, off_ms: ms },
        }
    }

    fn wear(&mut self) -> Op {
        match self.rng.below(100) {
            0..25 if self.bad < self.most_bad() => self.bad(),
            25 => self.fuse(80),
            26 => Op::Restart { back_ms: 1 },
            27..75 => {
                let (start, len) = self.range();
                Op::Write { start, len, fua: false }
            }
            _ => {
                let (start, len) = self.range();
                Op::Read { start, len, ahead: false }
            }
        }
    }

    fn any(&mut self) -> Op {
        if self.flavours.contains(&Flavour::Wear) {
            return self.wear();
        }
        match self.rng.below(200) {
            0..10 if self.bad < self.most_bad() => self.bad(),
            10..14 => self.crash(),
            14..16 => Op::Enobufs,
            16..28 => self.flavoured(),
            28..40 => Op::Flush,
            40..100 => {
                let (start, len) = self.range();
                Op::Read { start, len, ahead: self.rng.below(20) == 0 }
            }
            _ => {
                let (start, len) = self.range();
                Op::Write { start, len, fua: self.rng.below(6) == 0 }
            }
        }
    }

    fn flavoured(&mut self) -> Op {
        let ms = self.back();
        let one = self.rng.chance(50);
        let disk = if one { Which::Data } else { Which::Spare };
        let which = self.rng.below(self.flavours.len() as u64) as usize;
        self.spoilt[which] += 1;
        let spoilt = self.spoilt[which];
        match self.flavours[which] {
            Flavour::Daemon => match self.rng.below(6) {
                0 => Op::Stop { ms },
                1 => Op::LoseClaim,
                2 | 3 => Op::Rival { ms },
                4 => Op::Slow { disk, ms: ms.min(1000) },
                _ => self.crash(),
            },
            Flavour::SpareSlots if spoilt < 8 => {
                let flags = [BAD_WRITE, BAD_WRITE | BAD_READ][self.rng.below(2) as usize];
                Op::BadSlots { unit: self.rng.below(24), units: 1, flags }
            }
            Flavour::Metadata if spoilt < 2 => self.damage(),
            Flavour::Misdirected => {
                Op::Misdirect { part: self.part, skip: self.rng.below(12) as u32 }
            }
            Flavour::Hiccups if spoilt < 6 => Op::Hiccup { disk: Which::Spare, writes: 1 },
            Flavour::Flushes | Flavour::DataFlushes if spoilt < 6 => {
                let data = self.flavours[which] == Flavour::DataFlushes;
                let disk = if data { Which::Data } else { Which::Spare };
                Op::FailFlush { disk, flushes: 1, drops: one }
            }
            Flavour::Transport if spoilt < 4 && self.rng.chance(50) => {
                // It tears what is being written, four superblocks perhaps, and damage may take the fifth.
                let damage = self.flavours.contains(&Flavour::Metadata);
                let disk = if damage { Which::Data } else { disk };
                Op::Storm { disk, ms: ms.min(500) }
            }
            Flavour::Transport if spoilt < 4 && !one && self.rng.chance(30) => {
                self.gone_at_superblock()
            }
            Flavour::Transport if spoilt < 4 => Op::Gone { disk, ms: ms.min(2000) },
            Flavour::Transport => Op::Hiccup { disk: Which::Data, writes: 1 },
            Flavour::Suspends | Flavour::Bounds if self.rng.chance(40) => {
                Op::Remade { ms, anew: ms % 2 == 0 }
            }
            Flavour::Suspends => {
                let noflush = self.rng.chance(50);
                Op::Suspend { noflush, ms: self.rng.below(200), hold_ms: 60_000 }
            }
            Flavour::Foreign if spoilt < 6 => match self.rng.below(3) {
                0 => Op::Swapped { disk, back_ms: ms },
                _ => Op::RolledBack { back_ms: ms },
            },
            _ => Op::Rest { ms: 0 },
        }
    }

    fn gone_at_superblock(&mut self) -> Op {
        Op::GoneAtSuperblock { copies: self.rng.below(5) as u32, ms: self.rng.range(1, 2000) }
    }

    /// One mirror, or three superblock copies: the last one left may tear when it is written.
    fn damage(&mut self) -> Op {
        let flags = [BAD_WRITE, BAD_WRITE | BAD_READ][self.rng.below(2) as usize];
        match self.rng.below(2) {
            0 => Op::BadCopies { copies: [28, 7, 21, 1][self.rng.below(4) as usize], flags },
            _ => {
                let (mirror, block) = (self.rng.below(2), self.rng.below(36));
                Op::BadMirror { mirror, block, blocks: self.rng.range(1, 40), flags }
            }
        }
    }
}
