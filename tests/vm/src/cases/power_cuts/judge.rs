//! The host's verdict on the journal: [`iocheck`](dmremap_disks::iocheck) says which content a sector may have. Here
//! is what it cannot know: which sectors are bad, and so which errors are right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use anyhow::{Error, Result, bail, ensure};
use dmremap_disks::iocheck::{Content, Event, Judge};

use super::{CUTS, bad_sectors, goes_bad, load, look};
use crate::case::Left;
use crate::guest::journal;

/// So many of the twenty cuts must come while a write meets a new bad sector.
const WITH_FAULTS: u64 = 7;
/// And so many must lose something of the spare's.
const OF_THE_SPARE: usize = 4;
const SPARE: &str = "disk1";

/// Judges the journal of so many boots. All but the last ended with a cut; what comes after the last is nothing.
pub fn judge(left: &Left) -> Result<String> {
    let (image, boots) = (&left.images[2], left.boots as u64);
    let mut content = Judge::default();
    let mut errors = Errors::default();
    for boot in 0..boots {
        errors.bad = bad_sectors(boot);
        take(image, look(boot), &mut content, &mut errors)?;
        errors.lost.extend(goes_bad(boot).iter().filter(|at| !errors.bad.contains_key(at)));
        errors.bad = bad_sectors(boot + 1);
        take(image, load(boot), &mut content, &mut errors)?;
        content.event(Event::Cut).map_err(Error::msg)?;
        errors.cut();
    }
    let verdict = content.verdict();
    if let Some(wrong) = verdict.wrong.first() {
        bail!("{wrong}, and {} more", verdict.wrong.len() - 1);
    }
    ensure!(
        boots <= CUTS || errors.cuts_with_faults >= WITH_FAULTS,
        "only {} of {CUTS} cuts came while a write met a new bad sector",
        errors.cuts_with_faults
    );
    let of_the_spare = left.cuts.iter().filter(|cut| cut.disks[SPARE].lost > 0).count();
    ensure!(
        boots <= CUTS || of_the_spare >= OF_THE_SPARE,
        "only {of_the_spare} of {CUTS} cuts lost something of the spare's"
    );
    let lost: Vec<usize> = left.cuts.iter().map(|cut| cut.total().lost).collect();
    Ok(format!(
        "{} cuts, {} of them while a write met a new bad sector, lost {lost:?} sectors, {of_the_spare} times some of \
         the spare's; {} acknowledged writes, {} sectors judged, {} reads of lost sectors failed",
        boots - 1,
        errors.cuts_with_faults,
        errors.written,
        verdict.judged,
        verdict.read_errors.len()
    ))
}

fn take(image: &Path, region: u64, content: &mut Judge, errors: &mut Errors) -> Result<()> {
    for line in journal::lines(image, region)? {
        let event: Event = line.parse().map_err(Error::msg)?;
        errors.take(&event).map_err(|why| why.context(format!("{line:?}")))?;
        content.event(event).map_err(Error::msg)?;
    }
    Ok(())
}

/// Judges which requests may fail: reads that touch a bad sector whose content is lost, and no others.
#[derive(Default)]
struct Errors {
    /// Bad sectors, with the first id that was used after each went bad.
    bad: BTreeMap<u64, u64>,
    /// Those of them that no acknowledged write, and no read since, has shown to be mapped.
    lost: BTreeSet<u64>,
    open: HashMap<u64, Open>,
    cuts_with_faults: u64,
    written: u64,
}

struct Open {
    sectors: Range<u64>,
    write: bool,
    /// Whether it touches a sector that was lost when it was sent.
    lost: bool,
}

impl Errors {
    fn take(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Write { id, sectors, .. } => self.send(*id, sectors, true),
            Event::Read { id, sectors } => self.send(*id, sectors, false),
            Event::Flush { .. } => {}
            Event::Ok { id, contents } => {
                let Some(Open { sectors, write, .. }) = self.open.remove(id) else { return Ok(()) };
                self.written += u64::from(write);
                self.lost.retain(|sector| !sectors.contains(sector));
                for (sector, found) in sectors.zip(contents) {
                    let Some(&since) = self.bad.get(&sector) else { continue };
                    let written = matches!(found, Content::Write(id) if *id >= since);
                    ensure!(
                        written,
                        "sector {sector} is bad, and {found} was not written since it is"
                    );
                }
            }
            Event::Error { id, errno } => match self.open.remove(id) {
                Some(Open { write: false, lost: true, .. }) => {}
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
        self.open.insert(id, Open { sectors: sectors.clone(), write, lost });
    }

    /// Nobody learns how what is open ends; it may be there all the same, so what it covers stays lost.
    fn cut(&mut self) {
        let faults = self.open.drain().any(|(_, open)| open.write && open.lost);
        self.cuts_with_faults += u64::from(faults);
    }
}
