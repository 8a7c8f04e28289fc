use std::ops::Range;

/// Sector ranges that fail. Writing a bad sector does not make it good: only [`BadSectors::clear`] does.
#[derive(Debug, Default, Clone)]
pub struct BadSectors(Vec<Range<u64>>);

impl BadSectors {
    /// Adds the sectors of `range`.
    pub fn add(&mut self, range: Range<u64>) {
        self.0.push(range);
    }

    /// Makes the sectors of `range` good again.
    pub fn clear(&mut self, range: &Range<u64>) {
        let left = |bad: &Range<u64>| bad.start..bad.end.min(range.start);
        let right = |bad: &Range<u64>| bad.start.max(range.end)..bad.end;
        self.0 = (self.0.iter())
            .flat_map(|bad| [left(bad), right(bad)])
            .filter(|piece| !piece.is_empty())
            .collect();
    }

    /// The first bad sector of `range`.
    pub fn first_in(&self, range: &Range<u64>) -> Option<u64> {
        (self.0.iter())
            .filter(|bad| bad.start < range.end && range.start < bad.end)
            .map(|bad| bad.start.max(range.start))
            .min()
    }
}

/// How a disk misbehaves; all of it can be changed while the disk is in use.
#[derive(Debug, Default, Clone)]
pub struct Faults {
    /// Reads that touch these fail.
    pub bad_reads: BadSectors,
    /// Writes that touch these fail; what lies before the first bad sector is written, as on a real disk.
    pub bad_writes: BadSectors,
    /// Flush and FUA are acknowledged and ignored.
    pub lying_flush: bool,
    /// So many flushes fail, FUA writes included, before they work again.
    pub failing_flushes: u32,
    /// What a failed flush was to make durable is lost. Otherwise it stays volatile, and can still be flushed.
    pub losing_flush: bool,
}
