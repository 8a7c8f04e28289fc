//! Where crashes hit, and what else went wrong: of what never happened nothing is known.

use std::collections::BTreeMap;

/// What the daemon is at when it waits for the spare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    Open,
    Commit,
    Restate,
    Checkpoint,
    Flush,
    Close,
    Other,
}

/// A part of the spare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Region {
    Label,
    Log(u8),
    Checkpoint(u8),
    Slots,
}

/// So many seeds come to each trouble, and so many to a crash at each point.
const MANY: u64 = 10_000;
const MORE: u64 = 100_000;
const TROUBLES: [&str; 31] = [
    "Bad",
    "BadCopies",
    "BadMirror",
    "BadSlots",
    "CutAfter",
    "Enobufs",
    "FailFlush",
    "Gone",
    "GoneAtSuperblock",
    "Hiccup",
    "Kill",
    "KillAfter",
    "LoseClaim",
    "Misdirect",
    "Mute",
    "PowerCut",
    "Remade",
    "Restart",
    "Rival",
    "RolledBack",
    "Slow",
    "Stop",
    "Storm",
    "Suspend",
    "Swapped",
    "answer lost",
    "doorbell lost",
    "gone in a superblock",
    "module anew",
    "no memory",
    "write astray",
];

#[derive(Debug, Default, Clone)]
pub struct Cover {
    points: BTreeMap<String, u64>,
}

impl Cover {
    fn hit(&mut self, point: String) {
        *self.points.entry(point).or_default() += 1;
    }

    /// `region` is of a write; none means a flush.
    pub fn disk(&mut self, task: Task, region: Option<Region>, power: bool) {
        let what = region.map_or("flush".to_owned(), |region| format!("{region:?}"));
        self.hit(format!("{} {task:?} {what}", cause(power)));
    }

    /// A fault was at this step.
    pub fn step(&mut self, step: &str, power: bool) {
        self.hit(format!("{} fault {step}", cause(power)));
    }

    /// Something else has gone wrong.
    pub fn trouble(&mut self, what: &str) {
        self.hit(format!("trouble {what}"));
    }

    pub fn add(&mut self, other: &Cover) {
        for (point, hits) in &other.points {
            *self.points.entry(point.clone()).or_default() += hits;
        }
    }

    pub fn points(&self) -> impl Iterator<Item = (&str, u64)> {
        self.points.iter().map(|(point, &hits)| (point.as_str(), hits))
    }

    /// What so many seeds should have hit.
    pub fn missing(&self, seeds: u64) -> Vec<String> {
        let mut wanted = Vec::new();
        if seeds >= MANY {
            wanted.extend(TROUBLES.map(|what| format!("trouble {what}")));
        }
        if seeds >= MORE {
            wanted.extend(crash_points());
        }
        wanted.retain(|point| !self.points.contains_key(point));
        wanted
    }
}

/// Checking and Ending last no longer than a turn of the daemon.
fn crash_points() -> Vec<String> {
    let mut points = Vec::new();
    for cause in ["kill", "cut"] {
        for what in [
            "Open Label",
            "Open Checkpoint(0)",
            "Open Checkpoint(1)",
            "Open flush",
            "Commit Log(0)",
            "Commit Log(1)",
            "Commit flush",
            "Checkpoint Checkpoint(0)",
            "Checkpoint Checkpoint(1)",
            "Checkpoint Label",
            "Checkpoint flush",
            "Restate Log(0)",
            "Restate Log(1)",
            "Restate flush",
            "Flush flush",
            "Close Label",
            "Close flush",
        ] {
            points.push(format!("{cause} {what}"));
        }
        for step in [
            "New",
            "Searching",
            "Controlling",
            "ControllingSpare",
            "Placing",
            "Placed",
            "Flushing",
            "Ready",
            "Committing",
            "Durable",
        ] {
            points.push(format!("{cause} fault {step}"));
        }
    }
    points
}

fn cause(power: bool) -> &'static str {
    if power { "cut" } else { "kill" }
}
