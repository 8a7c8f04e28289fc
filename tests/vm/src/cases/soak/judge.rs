//! The host's verdict on the journal. [`iocheck`](dmremap_disks::iocheck) says which content a sector may have; here is
//! which requests may fail, and what was done in all.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use dmremap_disks::iocheck::{Event, Judge};

use super::flat::{self, Sample};
use super::region;
use crate::guest::journal;

/// A line of the journal that is none of iocheck's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Sectors of the data disk are about to go bad, and then they are; whether they cannot be read either.
    Bad {
        sectors: Range<u64>,
        reads: bool,
    },
    BadNow,
    /// Something else was done, in one word.
    Did(&'static str),
    Sample(Sample),
}

/// What is done, as the journal and the table name it.
pub const KILL: &str = "kill";
pub const STOP: &str = "stop";
pub const RELOAD: &str = "reload";
pub const SUSPEND: &str = "suspend";
pub const TABLE: &str = "table";
pub const SLOTS: &str = "slots";
const WORDS: &[&str] = &[KILL, STOP, RELOAD, SUSPEND, TABLE, SLOTS];

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Line::Bad { sectors, reads } => {
                write!(f, "bad {} {} {reads}", sectors.start, sectors.end)
            }
            Line::BadNow => f.write_str("bad-now"),
            Line::Did(word) => write!(f, "did {word}"),
            Line::Sample(sample) => write!(f, "sample {sample}"),
        }
    }
}

impl Line {
    /// `None` for one of iocheck's.
    fn parse(text: &str) -> Result<Option<Line>> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        Ok(Some(match verb {
            "bad" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let [start, end, reads] = words[..] else { bail!("an odd line: {text}") };
                Line::Bad { sectors: start.parse()?..end.parse()?, reads: reads.parse()? }
            }
            "bad-now" => Line::BadNow,
            "did" => {
                let word = WORDS.iter().find(|word| **word == rest);
                Line::Did(word.with_context(|| format!("nobody does {rest:?}"))?)
            }
            "sample" => Line::Sample(rest.parse()?),
            _ => return Ok(None),
        }))
    }
}

/// Judges the journal of so many boots, all of which but a last one ended with a cut.
pub fn judge(image: &Path, boots: u64) -> Result<String> {
    let mut soak = Soak::default();
    for boot in 0..boots {
        let from = soak.samples.len();
        for line in journal::lines_in(image, region(boot))? {
            soak.line(&line).map_err(|why| why.context(format!("boot {boot}, {line:?}")))?;
        }
        flat::judge(&soak.samples[from..]).with_context(|| format!("boot {boot}"))?;
        // After the last one nothing comes, and so it does not matter.
        soak.cut()?;
        if let Some(wrong) = soak.content.verdict().wrong.first() {
            bail!("boot {boot}: {wrong}, and {} more", soak.content.verdict().wrong.len() - 1);
        }
    }
    flat::judge(&soak.samples).context("all boots together")?;
    Ok(soak.table())
}

#[derive(Default)]
struct Soak {
    content: Judge,
    samples: Vec<Sample>,
    did: HashMap<&'static str, u64>,
    /// Sectors that cannot be read, and that nothing sent since has shown to be mapped; each with the line from which on
    /// that is so, if it has come.
    lost: BTreeMap<u64, Option<u64>>,
    lines: u64,
    open: HashMap<u64, Open>,
    places: u64,
    requests: u64,
    cuts: u64,
}

struct Open {
    sectors: Range<u64>,
    write: bool,
    sent: u64,
    /// Whether it touched a lost sector at any time.
    lost: bool,
}

impl Soak {
    fn line(&mut self, text: &str) -> Result<()> {
        self.lines += 1;
        match Line::parse(text)? {
            Some(Line::BadNow) => self.bad_now(),
            Some(Line::Bad { sectors, reads }) => {
                self.places += 1;
                if reads {
                    self.lost.extend(sectors.clone().map(|sector| (sector, None)));
                    let meets = |open: &&mut Open| {
                        open.sectors.start < sectors.end && sectors.start < open.sectors.end
                    };
                    self.open.values_mut().filter(meets).for_each(|open| open.lost = true);
                }
            }
            Some(Line::Did(word)) => *self.did.entry(word).or_default() += 1,
            Some(Line::Sample(sample)) => self.samples.push(sample),
            None => {
                let event: Event = text.parse().map_err(Error::msg)?;
                self.errors(&event)?;
                self.content.event(event).map_err(Error::msg)?;
            }
        }
        Ok(())
    }

    /// Reads that touch a lost sector may fail, and nothing else.
    fn errors(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Write { id, sectors, .. } => self.send(*id, sectors, true),
            Event::Read { id, sectors } => self.send(*id, sectors, false),
            Event::Flush { .. } => {}
            Event::Ok { id, .. } => {
                self.requests += 1;
                if let Some(Open { sectors, sent, .. }) = self.open.remove(id) {
                    self.lost.retain(|sector, since| {
                        !sectors.contains(sector) || since.is_none_or(|since| sent < since)
                    });
                }
            }
            Event::Error { id, errno } => match self.open.remove(id) {
                Some(Open { write: false, lost: true, .. }) => self.requests += 1,
                Some(Open { sectors, write, .. }) => {
                    let verb = if write { "write" } else { "read" };
                    bail!("a {verb} of {sectors:?} failed with errno {errno}, and must not");
                }
                None => bail!("a flush failed with errno {errno}"),
            },
            Event::Reset | Event::Cut => bail!("nobody says this in a guest"),
        }
        Ok(())
    }

    fn send(&mut self, id: u64, sectors: &Range<u64>, write: bool) {
        let lost = self.lost.range(sectors.clone()).next().is_some();
        self.open.insert(id, Open { sectors: sectors.clone(), write, sent: self.lines, lost });
    }

    fn bad_now(&mut self) {
        let now = self.lines;
        self.lost.values_mut().for_each(|since| *since = since.or(Some(now)));
    }

    /// Nobody learns how what is open ends.
    fn cut(&mut self) -> Result<()> {
        self.cuts += 1;
        self.open.clear();
        self.bad_now();
        self.content.event(Event::Cut).map_err(Error::msg)
    }

    fn table(&self) -> String {
        let did = |word| self.did.get(word).copied().unwrap_or(0);
        let verdict = self.content.verdict();
        let [rss, slab, extents] =
            [flat::rss, flat::slab, flat::extents].map(|of| of(&self.samples));
        let live = |sample: Option<&Sample>| sample.map(|sample| sample.live).unwrap_or_default();
        let live = (live(self.samples.first()), live(self.samples.last()));
        let quarters = |quarters: flat::Quarters| format!("{} / {}", quarters.first, quarters.last);
        let rows = [
            ("requests answered", self.requests.to_string()),
            ("places gone bad: data", self.places.to_string()),
            ("places gone bad: slots", did(SLOTS).to_string()),
            ("reads of lost sectors failed", verdict.read_errors.len().to_string()),
            ("daemon killed", did(KILL).to_string()),
            ("daemon stopped and continued", did(STOP).to_string()),
            ("configuration reloaded", did(RELOAD).to_string()),
            ("suspended and resumed", did(SUSPEND).to_string()),
            ("table reloaded", did(TABLE).to_string()),
            ("power cuts", (self.cuts - 1).to_string()),
            ("bytes checked", (verdict.judged * 512).to_string()),
            ("samples at rest", self.samples.len().to_string()),
            ("daemon's RSS, KiB, first / last quarter", quarters(rss)),
            ("kernel's slab, KiB, first / last quarter", quarters(slab)),
            ("extents, first / last quarter", quarters(extents)),
            ("live instances, faults, bios, first / last", format!("{:?} / {:?}", live.0, live.1)),
        ];
        let rows: Vec<String> =
            rows.iter().map(|(what, value)| format!("{what:<44}{value}")).collect();
        format!("the soak:\n    {}", rows.join("\n    "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soak(text: &str) -> Result<Soak> {
        let mut soak = Soak::default();
        text.lines().try_for_each(|line| soak.line(line)).map(|()| soak)
    }

    #[test]
    fn only_reads_of_lost_sectors_may_fail() {
        let fails = |text: &str| soak(text).err().map(|error| error.to_string());
        assert_eq!(fails("bad 7 8 true\nread 1 0 10\nerror 1 5"), None);
        // It was under way when the sector went bad.
        assert_eq!(fails("read 1 0 10\nbad 7 8 true\nerror 1 5"), None);
        assert!(fails("bad 7 8 false\nread 1 0 10\nerror 1 5").unwrap().contains("must not"));
        assert!(fails("bad 7 8 true\nread 1 0 7\nerror 1 5").unwrap().contains("must not"));
        assert!(fails("bad 7 8 true\nwrite 1 7 1\nerror 1 5").unwrap().contains("a write"));
        assert!(fails("flush 1\nerror 1 5").unwrap().contains("a flush"));
        let healed = "bad 7 8 true\nbad-now\nwrite 1 7 1\nok 1\nread 2 7 1\nerror 2 5";
        assert!(fails(healed).unwrap().contains("a read of 7..8 failed"));
        // It may have gone to the disk while that was good.
        let early = "bad 7 8 true\nread 1 7 1\nok 1 0\nbad-now\nread 2 7 1\nerror 2 5";
        assert_eq!(fails(early), None);
    }

    #[test]
    fn lines_are_read_as_they_were_written() -> Result<()> {
        let sample =
            Sample { rss_kib: 1, descriptors: 2, live: [3, 4, 5], slab_kib: 6, extents: 7 };
        for line in [
            Line::Bad { sectors: 3..5, reads: true },
            Line::BadNow,
            Line::Did(KILL),
            Line::Sample(sample),
        ] {
            assert_eq!(Line::parse(&line.to_string())?, Some(line));
        }
        assert_eq!(Line::parse("write 1 2 3")?, None);
        assert!(Line::parse("did nothing").is_err());
        Ok(())
    }
}
