//! What happens in a simulation, in words that can be stored, shortened and told again.

use serde::{Deserialize, Serialize};

/// What does not change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Of the mapped device.
    pub sectors: u64,
    pub spare: u64,
    /// Logical block, in sectors.
    pub block: u64,
    pub hold_ms: u64,
    pub ready_ms: u64,
    pub max_held: u64,
    pub queue_unowned: bool,
    /// Bad sectors say that the medium is bad.
    pub says_medium: bool,
    pub lying_flush: bool,
    /// The disks have no FUA themselves: the block layer would flush them behind such a write.
    #[serde(default)]
    pub emulated_fua: bool,
    /// Changes in a record of the log, at most; as many as fit if 0.
    #[serde(default)]
    pub record: u64,
    /// Of 100 doorbells, so many are lost.
    pub lost_bells: u64,
    /// Of 100 requests, so many find no memory.
    pub no_memory: u64,
    /// Of 1000 requests, so many answers are lost.
    pub lost_answers: u64,
    /// And so many are lost themselves.
    #[serde(default)]
    pub lost_requests: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    Data,
    Spare,
}

/// What may be lost at once without losing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Mirror(u8),
    /// All superblock copies but the first.
    Copies,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    Write {
        start: u64,
        len: u64,
        fua: bool,
    },
    Read {
        start: u64,
        len: u64,
        ahead: bool,
    },
    Flush,
    /// Sectors of the data disk go bad.
    Bad {
        start: u64,
        len: u64,
        flags: u8,
    },
    /// The next writes of a disk fail although it is sound.
    Hiccup {
        disk: Which,
        writes: u32,
    },
    /// Units of the slot area refuse writes, or reads too.
    BadSlots {
        unit: u64,
        units: u64,
        flags: u8,
    },
    /// Blocks of a mirror refuse.
    BadMirror {
        mirror: u64,
        block: u64,
        blocks: u64,
        flags: u8,
    },
    /// Mirrors, a bit each, cannot be read for a time: all of them, or the block of the record that is so far
    /// back in the log.
    Mute {
        mirrors: u8,
        back: Option<u32>,
        ms: u64,
    },
    /// Superblock copies refuse: a bit each.
    BadCopies {
        copies: u8,
        flags: u8,
    },
    FailFlush {
        disk: Which,
        flushes: u32,
        drops: bool,
    },
    /// The next I/O of the disk takes this long.
    Slow {
        disk: Which,
        ms: u64,
    },
    /// The disk does not answer for a time.
    Gone {
        disk: Which,
        ms: u64,
    },
    /// The spare goes away for a time when that many copies of a superblock, which is not an opening's, were written.
    GoneAtSuperblock {
        copies: u32,
        ms: u64,
    },
    /// The disk fails everything for a time and does not say why.
    Storm {
        disk: Which,
        ms: u64,
    },
    /// The daemon dies, and is back after a time.
    Kill {
        back_ms: u64,
    },
    /// It dies after so many more I/Os of its own.
    KillAfter {
        ios: u64,
        back_ms: u64,
    },
    /// It ends in good order.
    Restart {
        back_ms: u64,
    },
    /// It is stopped for a time.
    Stop {
        ms: u64,
    },
    PowerCut {
        off_ms: u64,
    },
    CutAfter {
        ios: u64,
        off_ms: u64,
    },
    LoseClaim,
    /// The claim goes to another socket, for a time.
    Rival {
        ms: u64,
    },
    /// Of the metadata writes to this part of the spare, the one after so many is put elsewhere in it.
    Misdirect {
        part: Part,
        skip: u32,
    },
    Enobufs,
    Suspend {
        noflush: bool,
        ms: u64,
        hold_ms: u64,
    },
    /// The mapped device is removed once it is idle, and made again after a time; the daemon lives on.
    Remade {
        ms: u64,
        /// So is the module, and numbers its instances from 1.
        anew: bool,
    },
    /// The daemon starts with an earlier copy of the spare, then with the right one.
    RolledBack {
        back_ms: u64,
    },
    /// The same with another spare, or another data disk.
    Swapped {
        disk: Which,
        back_ms: u64,
    },
    /// Time passes.
    Rest {
        ms: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Microseconds after the step before it.
    pub after: u64,
    pub op: Op,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Of all that the steps leave to chance.
    pub seed: u64,
    pub config: Config,
    pub steps: Vec<Step>,
}

impl Script {
    /// As JSON, a step a line.
    pub fn text(&self) -> serde_json::Result<String> {
        let steps: Vec<String> =
            self.steps.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        Ok(format!(
            "{{\"seed\":{},\"config\":{},\"steps\":[\n{}\n]}}\n",
            self.seed,
            serde_json::to_string(&self.config)?,
            steps.join(",\n")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_its_own_text() -> serde_json::Result<()> {
        let script = crate::generate::script(7);
        assert_eq!(serde_json::from_str::<Script>(&script.text()?)?, script);
        Ok(())
    }
}
