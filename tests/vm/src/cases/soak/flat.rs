//! Whether what is in use stays what it was, however long it goes on.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

/// What is in use while nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Of the daemon.
    pub rss_kib: u64,
    pub descriptors: u64,
    /// What the module counts: instances, faults, held bios.
    pub live: [u64; 3],
    /// All that the kernel has allocated for itself and cannot take back at will.
    pub slab_kib: u64,
    /// In the table, which is for nobody to keep small.
    pub extents: u64,
}

/// Nothing but the device itself.
const LIVE: [u64; 3] = [1, 0, 0];
/// What a quantity may grow by from the first quarter to the last.
const RSS: Bound = Bound { percent: 5, more: 512, per_extent: 256 };
const SLAB: Bound = Bound { percent: 3, more: 1024, per_extent: 128 };
const DESCRIPTORS: Bound = Bound { percent: 0, more: 0, per_extent: 0 };
/// With fewer, quarters say nothing.
const LEAST: usize = 8;

struct Bound {
    percent: u64,
    more: u64,
    /// Bytes.
    per_extent: u64,
}

/// Means of the first quarter and of the last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Quarters {
    pub first: u64,
    pub last: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [instances, faults, bios] = self.live;
        write!(
            f,
            "{} {} {instances} {faults} {bios} {} {}",
            self.rss_kib, self.descriptors, self.slab_kib, self.extents
        )
    }
}

impl FromStr for Sample {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [rss_kib, descriptors, instances, faults, bios, slab_kib, extents] = numbers[..] else {
            anyhow::bail!("a sample of {} numbers", numbers.len());
        };
        Ok(Self { rss_kib, descriptors, live: [instances, faults, bios], slab_kib, extents })
    }
}

fn quarters(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> Quarters {
    let quarter = samples.len().div_ceil(4).max(1);
    let mean = |part: &[Sample]| part.iter().map(&of).sum::<u64>() / part.len().max(1) as u64;
    let (first, last) =
        (samples.get(..quarter), samples.get(samples.len().saturating_sub(quarter)..));
    Quarters { first: mean(first.unwrap_or_default()), last: mean(last.unwrap_or_default()) }
}

fn bounded(
    what: &str,
    samples: &[Sample],
    of: impl Fn(&[Sample]) -> Quarters,
    bound: &Bound,
) -> Result<()> {
    let (Quarters { first, last }, table) = (of(samples), extents(samples));
    let table = table.last.saturating_sub(table.first) * bound.per_extent / 1024;
    let most = first + first * bound.percent / 100 + bound.more + table;
    ensure!(last <= most, "{what} grew from {first} to {last}, and may be {most} at most");
    Ok(())
}

pub fn rss(samples: &[Sample]) -> Quarters {
    quarters(samples, |sample| sample.rss_kib)
}

pub fn slab(samples: &[Sample]) -> Quarters {
    quarters(samples, |sample| sample.slab_kib)
}

pub fn extents(samples: &[Sample]) -> Quarters {
    quarters(samples, |sample| sample.extents)
}

fn descriptors(samples: &[Sample]) -> Quarters {
    quarters(samples, |sample| sample.descriptors)
}

/// Judges samples in their order.
pub fn judge(samples: &[Sample]) -> Result<()> {
    for (number, sample) in samples.iter().enumerate() {
        ensure!(
            sample.live == LIVE,
            "sample {number}: {:?} instances, faults and bios live, and should be {LIVE:?}",
            sample.live
        );
    }
    if samples.len() < LEAST {
        return Ok(());
    }
    bounded("the daemon's memory in KiB", samples, rss, &RSS)?;
    bounded("the kernel's memory in KiB", samples, slab, &SLAB)?;
    bounded("the daemon's descriptors", samples, descriptors, &DESCRIPTORS).context("at rest")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Sample =
        Sample { rss_kib: 9000, descriptors: 20, live: LIVE, slab_kib: 40_000, extents: 100 };

    /// A minute, with a sample each two seconds, in which something grows.
    fn growing(grow: impl Fn(&mut Sample, u64)) -> String {
        let sample = |n| {
            let mut sample = Sample { rss_kib: GOOD.rss_kib + n % 3 * 50, ..GOOD };
            grow(&mut sample, n);
            sample
        };
        let samples: Vec<Sample> = (0..30).map(sample).collect();
        judge(&samples).err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn what_goes_up_and_down_is_flat() {
        assert_eq!(growing(|_, _| ()), "");
        assert_eq!(growing(|sample, n| sample.slab_kib += n * 7 % 5 * 200), "");
    }

    #[test]
    fn one_object_that_is_left_is_seen() {
        let live =
            |index: usize| growing(move |sample, n| sample.live[index] += u64::from(n == 29));
        assert!(live(0).starts_with("sample 29: [2, 0, 0] instances"), "{}", live(0));
        assert!(live(1).starts_with("sample 29: [1, 1, 0]"), "{}", live(1));
        assert!(live(2).starts_with("sample 29: [1, 0, 1]"), "{}", live(2));
    }

    #[test]
    fn a_leak_is_seen() {
        let text = growing(|sample, n| sample.rss_kib += n * 60);
        assert!(text.starts_with("the daemon's memory in KiB grew from"), "{text}");
        let text = growing(|sample, n| sample.slab_kib += n * 128);
        assert!(text.starts_with("the kernel's memory in KiB grew from"), "{text}");
        let text = growing(|sample, n| sample.descriptors += n / 15);
        assert!(text.contains("the daemon's descriptors grew from 20 to 21"), "{text}");
    }

    #[test]
    fn a_table_may_grow() {
        let text = |extents: u64| {
            growing(move |sample, n| {
                sample.slab_kib += n * 128;
                sample.extents += n * extents;
            })
        };
        assert_eq!(text(1024), "");
        assert!(text(16).starts_with("the kernel's memory in KiB grew from"), "{}", text(16));
    }

    #[test]
    fn a_sample_is_read_as_it_was_written() -> Result<()> {
        assert_eq!(GOOD.to_string().parse::<Sample>()?, GOOD);
        assert!("1 2 3".parse::<Sample>().is_err());
        Ok(())
    }
}
