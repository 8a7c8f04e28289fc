//! Addresses and lengths that carry their units, so that a slot on the spare cannot be taken for
//! a sector of the mapped device. A sector is 512 bytes everywhere.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

pub const SECTOR_SIZE: u64 = 512;

/// A sector of the mapped device, and so of the data device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sector(pub u64);

/// A sector of the spare device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u64);

/// A number of sectors.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sectors(pub u64);

impl Sectors {
    pub fn bytes(self) -> u64 {
        self.0 * SECTOR_SIZE
    }

    /// Rounded up to a multiple of `unit`.
    pub fn round_up(self, unit: Sectors) -> Sectors {
        Sectors(self.0.div_ceil(unit.0) * unit.0)
    }
}

impl Sector {
    pub fn bytes(self) -> u64 {
        self.0 * SECTOR_SIZE
    }
}

impl Slot {
    pub fn bytes(self) -> u64 {
        self.0 * SECTOR_SIZE
    }
}

impl Add<Sectors> for Sector {
    type Output = Sector;
    fn add(self, n: Sectors) -> Sector {
        Sector(self.0 + n.0)
    }
}

impl Add<Sectors> for Slot {
    type Output = Slot;
    fn add(self, n: Sectors) -> Slot {
        Slot(self.0 + n.0)
    }
}

impl Add for Sectors {
    type Output = Sectors;
    fn add(self, n: Sectors) -> Sectors {
        Sectors(self.0 + n.0)
    }
}

impl Sub for Sector {
    type Output = Sectors;
    fn sub(self, earlier: Sector) -> Sectors {
        Sectors(self.0 - earlier.0)
    }
}

impl Sub for Slot {
    type Output = Sectors;
    fn sub(self, earlier: Slot) -> Sectors {
        Sectors(self.0 - earlier.0)
    }
}

impl Sub for Sectors {
    type Output = Sectors;
    fn sub(self, n: Sectors) -> Sectors {
        Sectors(self.0 - n.0)
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Sectors {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}
