//! Reading a spare and saying what is wrong with it. Writes nothing.

use serde::Serialize;

use super::device::Disk;
use super::error::Error;
use super::recover::{self, Finding, Findings, Recovered, Severity};
use super::superblock::Superblock;

#[derive(Debug, Serialize)]
pub struct Report {
    /// In the order of discovery; the fatal one, if any, is last.
    pub findings: Vec<Finding>,
    /// Extents and last commit, where the spare can be served.
    pub extents: Option<usize>,
    pub sequence: Option<u64>,
}

impl Report {
    /// Nothing to repair.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }

    /// It can be opened.
    pub fn is_usable(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Fatal)
    }
}

pub fn check<D: Disk>(disk: &mut D) -> Report {
    let mut findings = Findings::new();
    let read = read(disk, &mut findings);
    let (mut extents, mut sequence) = (None, None);
    match read {
        Ok((superblock, recovered)) => {
            for mirror in (0..2).filter(|&m| !superblock.live[m]) {
                let what = "was declared dead: a write to it failed".to_owned();
                let start = superblock.geometry.mirrors[mirror];
                findings.push(Finding::problem(format!("mirror {mirror}"), Some(start), what));
            }
            if !superblock.clean {
                let what = "is in use, or was not closed".to_owned();
                findings.push(Finding::note("label".to_owned(), None, what));
            }
            extents = Some(recovered.table.len());
            sequence = Some(recovered.sequence);
        }
        Err(error) => findings.push(Finding {
            severity: Severity::Fatal,
            place: "spare".to_owned(),
            sector: None,
            what: error.to_string(),
            remedy: "as the sentence says",
        }),
    }
    Report { findings, extents, sequence }
}

/// The label in force, without judging the rest: to find a device's spare, and two of one label.
pub fn identify<D: Disk>(disk: &mut D) -> Result<Superblock, Error> {
    recover::superblock(disk, &mut Findings::new()).map(|(superblock, _)| superblock)
}

pub(super) fn read<D: Disk>(
    disk: &mut D,
    findings: &mut Findings,
) -> Result<(Superblock, Recovered), Error> {
    let (superblock, _) = recover::superblock(disk, findings)?;
    let recovered = recover::contents(disk, &superblock, false, findings)?;
    Ok((superblock, recovered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_clean_a_problem_is_usable_and_a_fatal_one_is_neither() {
        let note = Severity::Note;
        for (severities, clean, usable) in [
            (&[][..], true, true),
            (&[note], true, true),
            (&[Severity::Problem], false, true),
            (&[note, Severity::Problem], false, true),
            (&[Severity::Fatal], false, false),
            (&[note, Severity::Problem, Severity::Fatal], false, false),
        ] {
            let finding = |&severity: &Severity| {
                let note = Finding::note("label".to_owned(), None, "is in use".to_owned());
                Finding { severity, ..note }
            };
            let findings = severities.iter().map(finding).collect();
            let report = Report { findings, extents: None, sequence: None };
            assert_eq!((report.is_clean(), report.is_usable()), (clean, usable), "{severities:?}");
        }
    }
}
