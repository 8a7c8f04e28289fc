//! What disks were sent and when it was done, from the block layer's tracepoints.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::stat::{major, minor};

const TRACING: &str = "/sys/kernel/tracing";
/// Requests to disks, and the bios of whoever sent them.
const EVENTS: [&str; 3] = ["block_rq_issue", "block_rq_complete", "block_bio_complete"];

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Issued,
    Done,
    /// A bio of a device that takes no requests, such as a mapped one.
    BioDone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub what: What,
    /// `major,minor`.
    pub device: String,
    pub sectors: Range<u64>,
    pub write: bool,
    pub fua: bool,
    /// An empty flush.
    pub flush: bool,
}

/// Records from its making to its end.
pub struct Trace(());

impl Trace {
    pub fn start() -> Result<Self> {
        set("tracing_on", "0")?;
        set("trace", "")?;
        let trace = Self(());
        for event in EVENTS {
            set(&format!("events/block/{event}/enable"), "1")?;
        }
        set("tracing_on", "1")?;
        Ok(trace)
    }

    /// What was recorded, in order.
    pub fn end(self) -> Result<Vec<Event>> {
        set("tracing_on", "0")?;
        let text = fs::read_to_string(format!("{TRACING}/trace")).context("the trace")?;
        ensure!(!text.contains("LOST"), "the trace has holes");
        Ok(text.lines().filter_map(parse).collect())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        for event in EVENTS {
            // It only costs time when it stays on.
            let _ = set(&format!("events/block/{event}/enable"), "0");
        }
    }
}

fn set(file: &str, value: &str) -> Result<()> {
    fs::write(format!("{TRACING}/{file}"), value).with_context(|| format!("tracing: {file}"))
}

/// The number of a disk as events name it.
pub fn number(disk: &Path) -> Result<String> {
    let number = fs::metadata(disk).with_context(|| disk.display().to_string())?.rdev();
    Ok(format!("{},{}", major(number), minor(number)))
}

fn parse(line: &str) -> Option<Event> {
    let (rest, what) = [What::Issued, What::Done, What::BioDone]
        .into_iter()
        .zip(EVENTS)
        .find_map(|(what, event)| Some((line.split_once(&format!("{event}: "))?.1, what)))?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (device, kind) = (words.first()?, words.get(1)?);
    let plus = words.iter().position(|word| *word == "+")?;
    let start: u64 = words.get(plus - 1)?.parse().ok()?;
    let count: u64 = words.get(plus + 1)?.parse().ok()?;
    let write = kind.contains('W');
    Some(Event {
        what,
        device: (*device).into(),
        sectors: start..start.saturating_add(count),
        write: write && count > 0,
        fua: kind.contains("WF"),
        flush: count == 0 && kind.starts_with('F'),
    })
}

/// Whether all of `sectors` of the disk are durable by what was done in `events`: written last with FUA, or flushed
/// since.
pub fn expect_durable(events: &[Event], disk: &Path, sectors: Range<u64>) -> Result<()> {
    let device = number(disk)?;
    let of = |event: &Event, what| event.device == device && event.what == what;
    for sector in sectors {
        let written = events.iter().rposition(|event| {
            of(event, What::Done) && event.write && event.sectors.contains(&sector)
        });
        let place = || format!("sector {sector} of {}", disk.display());
        let written = written.with_context(|| format!("{} was not written", place()))?;
        let after = &events[written..];
        let sent = after.iter().position(|event| of(event, What::Issued) && event.flush);
        let flushed = sent.is_some_and(|sent| {
            after[sent..].iter().any(|event| of(event, What::Done) && event.flush)
        });
        ensure!(
            events[written].fua || flushed,
            "{} was neither written with FUA nor flushed",
            place()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_both_kernels_are_understood() {
        let old = "  dd-1 [000] .....  1.5: block_rq_issue: 252,16 WFS 4096 () 100 + 8 [dd]";
        let new =
            "  dd-1 [000] .....  1.5: block_rq_issue: 252,16 WFS 4096 () 100 + 8 none,0,0 [dd]";
        let wanted = Event {
            what: What::Issued,
            device: "252,16".into(),
            sectors: 100..108,
            write: true,
            fua: true,
            flush: false,
        };
        assert_eq!(parse(old), Some(wanted.clone()));
        assert_eq!(parse(new), Some(wanted.clone()));
        let flush = parse("x block_rq_complete: 252,16 FF () 0 + 0 [0]").unwrap();
        assert!(flush.flush && !flush.write && flush.what == What::Done);
        let plain = parse("x block_bio_complete: 254,0 WS 100 + 8 [0]").unwrap();
        assert_eq!(
            plain,
            Event { what: What::BioDone, device: "254,0".into(), fua: false, ..wanted }
        );
    }
}
