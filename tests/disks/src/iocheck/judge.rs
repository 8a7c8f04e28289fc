//! Which content a sector may have, and who has another.
//!
//! A write is *settled* once it is acknowledged, and *durable* once it is acknowledged with FUA, or a flush
//! submitted after its acknowledgement is. What ended before a settled write was submitted is overwritten;
//! at a cut, settled writes that are not durable stop counting as such. All other versions are admissible:
//! so writes in flight together may end in either order, and a failed write may or may not be there.
//! A read after a cut that finds a version from before it makes that one the only one left from before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use super::{Content, Event};

/// A sector that holds what it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The line of the history that showed it; 0 if it was shown to [`Judge::look`].
    pub line: usize,
    pub sector: u64,
    pub found: Content,
    /// Whether write `found` was ever sent to this sector.
    pub known: bool,
    /// The writes that may be there.
    pub admissible: BTreeSet<u64>,
}

/// A read that failed: no wrong content, but the caller may have expected none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    pub line: usize,
    pub sectors: Range<u64>,
    pub errno: i32,
}

/// What became of a history.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub wrong: Vec<Wrong>,
    pub read_errors: Vec<ReadError>,
    /// How many sectors were judged, each as often as it was read.
    pub judged: u64,
}

/// Follows a history, line by line.
#[derive(Default)]
pub struct Judge {
    line: usize,
    cuts: usize,
    sectors: BTreeMap<u64, Vec<Version>>,
    open: HashMap<u64, Open>,
    ids: HashSet<u64>,
    sent: HashSet<(u64, u64)>,
    verdict: Verdict,
}

struct Version {
    id: u64,
    submitted: usize,
    ended: Option<usize>,
    settled: bool,
    durable: bool,
    /// How many cuts came before it was submitted.
    epoch: usize,
}

const NEVER_WRITTEN: Version =
    Version { id: 0, submitted: 0, ended: Some(0), settled: true, durable: true, epoch: 0 };

enum Open {
    Write {
        sectors: Range<u64>,
        fua: bool,
    },
    Flush {
        submitted: usize,
    },
    /// With what each sector could hold at any time since the read was submitted.
    Read {
        sectors: Range<u64>,
        admissible: Vec<BTreeSet<u64>>,
    },
}

impl Judge {
    /// Judges a whole history. An error is a line that makes no sense, with its number.
    pub fn history(text: &str) -> Result<Verdict, String> {
        let mut judge = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let event = line.parse().and_then(|event| judge.event(event));
            event.map_err(|error| format!("line {number}, {line:?}: {error}"))?;
        }
        Ok(judge.verdict)
    }

    /// Takes the next line.
    pub fn event(&mut self, event: Event) -> Result<(), String> {
        self.line += 1;
        match event {
            Event::Write { id, sectors, fua } => {
                self.send(id, &sectors);
                self.submit(id, Open::Write { sectors, fua })
            }
            Event::Flush { id } => self.submit(id, Open::Flush { submitted: self.line }),
            Event::Read { id, sectors } => {
                let admissible = sectors.clone().map(|sector| self.admissible(sector)).collect();
                self.submit(id, Open::Read { sectors, admissible })
            }
            Event::Ok { id, contents } => self.succeeded(id, &contents),
            Event::Error { id, errno } => self.failed(id, errno),
            Event::Reset => {
                self.abandon();
                Ok(())
            }
            Event::Cut => {
                self.abandon();
                self.cuts += 1;
                for version in self.sectors.values_mut().flatten() {
                    version.settled = version.durable;
                }
                Ok(())
            }
        }
    }

    /// Judges what was found at a sector after the last line, by whatever means.
    pub fn look(&mut self, sector: u64, found: Content) {
        let admissible = self.admissible(sector);
        self.compare(0, sector, found, admissible);
    }

    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    fn submit(&mut self, id: u64, request: Open) -> Result<(), String> {
        if !self.ids.insert(id) {
            return Err(format!("id {id} was used before"));
        }
        self.open.insert(id, request);
        Ok(())
    }

    fn send(&mut self, id: u64, range: &Range<u64>) {
        for sector in range.clone() {
            self.sent.insert((sector, id));
            let (submitted, epoch) = (self.line, self.cuts);
            let version =
                Version { id, submitted, ended: None, settled: false, durable: false, epoch };
            self.sectors.entry(sector).or_insert_with(|| vec![NEVER_WRITTEN]).push(version);
        }
        for request in self.open.values_mut() {
            if let Open::Read { sectors, admissible } = request {
                for (_, set) in
                    sectors.clone().zip(admissible).filter(|(sector, _)| range.contains(sector))
                {
                    set.insert(id);
                }
            }
        }
    }

    fn succeeded(&mut self, id: u64, contents: &[Content]) -> Result<(), String> {
        let Some(request) = self.answered(id)? else { return Ok(()) };
        let expected =
            if let Open::Read { admissible, .. } = &request { admissible.len() } else { 0 };
        if contents.len() != expected {
            return Err(format!("{} sectors are given for {expected}", contents.len()));
        }
        match request {
            Open::Write { sectors, fua } => self.end(id, sectors, true, fua),
            Open::Flush { submitted } => {
                for versions in self.sectors.values_mut() {
                    for version in versions.iter_mut() {
                        version.durable |=
                            version.settled && version.ended.is_some_and(|end| end < submitted);
                    }
                    forget_overwritten(versions);
                }
            }
            Open::Read { sectors, admissible } => {
                for ((sector, &found), admissible) in sectors.zip(contents).zip(admissible) {
                    self.compare(self.line, sector, found, admissible);
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, id: u64, errno: i32) -> Result<(), String> {
        match self.answered(id)? {
            Some(Open::Write { sectors, .. }) => self.end(id, sectors, false, false),
            Some(Open::Read { sectors, .. }) => {
                self.verdict.read_errors.push(ReadError { line: self.line, sectors, errno });
            }
            Some(Open::Flush { .. }) | None => {}
        }
        Ok(())
    }

    /// The request this answers; none if the guest died before, whose late lines say nothing certain.
    fn answered(&mut self, id: u64) -> Result<Option<Open>, String> {
        match self.open.remove(&id) {
            None if !self.ids.contains(&id) => Err(format!("id {id} was never submitted")),
            request => Ok(request),
        }
    }

    fn end(&mut self, id: u64, range: Range<u64>, settled: bool, durable: bool) {
        for (_, versions) in self.sectors.range_mut(range) {
            for version in versions.iter_mut().filter(|version| version.id == id) {
                *version = Version { ended: Some(self.line), settled, durable, ..*version };
            }
            forget_overwritten(versions);
        }
    }

    /// The guest died: nobody learns how its requests ended.
    fn abandon(&mut self) {
        self.open.clear();
        for version in self.sectors.values_mut().flatten() {
            version.ended.get_or_insert(self.line);
        }
    }

    fn admissible(&self, sector: u64) -> BTreeSet<u64> {
        let Some(versions) = self.sectors.get(&sector) else { return BTreeSet::from([0]) };
        let overwritten =
            |old: &Version| versions.iter().any(|new| new.settled && new.follows(old));
        versions.iter().filter(|version| !overwritten(version)).map(|version| version.id).collect()
    }

    fn compare(&mut self, line: usize, sector: u64, found: Content, admissible: BTreeSet<u64>) {
        self.verdict.judged += 1;
        let id = match found {
            Content::Write(id) | Content::Misplaced { id, .. } => id,
            Content::Foreign(_) => 0,
        };
        if found == Content::Write(id) && admissible.contains(&id) {
            return self.remember(sector, id);
        }
        let known = found == Content::Write(id) && (id == 0 || self.sent.contains(&(sector, id)));
        self.verdict.wrong.push(Wrong { line, sector, found, known, admissible });
    }

    /// `id` was read: if it is older than the last cut, it is what the cut left.
    fn remember(&mut self, sector: u64, id: u64) {
        let Some(versions) = self.sectors.get_mut(&sector) else { return };
        let cuts = self.cuts;
        let Some(left) =
            versions.iter_mut().find(|version| version.id == id && version.epoch < cuts)
        else {
            return;
        };
        (left.settled, left.durable) = (true, true);
        versions.retain(|version| version.epoch == cuts || version.id == id);
    }
}

impl Version {
    /// Whether this was submitted only after `older` had ended.
    fn follows(&self, older: &Version) -> bool {
        older.ended.is_some_and(|end| end < self.submitted)
    }
}

fn forget_overwritten(versions: &mut Vec<Version>) {
    let durable: Vec<usize> = versions.iter().filter(|v| v.durable).map(|v| v.submitted).collect();
    versions.retain(|old| !durable.iter().any(|new| old.ended.is_some_and(|end| end < *new)));
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.line {
            0 => write!(f, "sector {} at the end: ", self.sector)?,
            line => write!(f, "sector {} read in line {line}: ", self.sector)?,
        }
        match self.found {
            Content::Write(0) => write!(f, "a write was lost: it is as never written")?,
            Content::Write(id) if self.known => {
                write!(f, "a write was lost: it holds the older write {id}")?
            }
            Content::Write(id) => write!(f, "it holds write {id}, which was not sent there")?,
            Content::Misplaced { sector, id } => {
                write!(f, "it holds the data of another sector: write {id} of sector {sector}")?;
            }
            Content::Foreign(start) => write!(f, "it holds bytes nobody wrote: {start:02x?}...")?,
        }
        write!(f, "; admissible: {:?}", self.admissible)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for wrong in &self.wrong {
            writeln!(f, "{wrong}")?;
        }
        for ReadError { line, sectors, errno } in &self.read_errors {
            writeln!(
                f,
                "sectors {}..{}: the read of line {line} failed with errno {errno}",
                sectors.start, sectors.end
            )?;
        }
        let (wrong, errors) = (self.wrong.len(), self.read_errors.len());
        write!(f, "{} sectors judged, {wrong} wrong, {errors} reads failed", self.judged)
    }
}
