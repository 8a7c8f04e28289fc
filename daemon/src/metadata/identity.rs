//! Which disk is this? Stable facts about a disk, and the rule by which metadata is accepted only
//! for the disks it was made for (I6). Collecting the facts is done elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::Sectors;

/// The longest value kept, in bytes: a SCSI identifier ends below it.
pub const MAX_VALUE: usize = 252;

/// Facts that survive reboots, moves between slots and kernel versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Fact {
    Wwn = 1,
    Serial = 2,
    NvmeUuid = 3,
    NvmeNguid = 4,
    NvmeEui64 = 5,
    PartitionUuid = 6,
    DmUuid = 7,
}

impl Fact {
    pub const ALL: [Fact; 7] = [
        Fact::Wwn,
        Fact::Serial,
        Fact::NvmeUuid,
        Fact::NvmeNguid,
        Fact::NvmeEui64,
        Fact::PartitionUuid,
        Fact::DmUuid,
    ];

    pub(super) fn from_tag(tag: u8) -> Option<Fact> {
        Fact::ALL.into_iter().find(|&fact| fact as u8 == tag)
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Fact::Wwn => "WWN",
            Fact::Serial => "serial number",
            Fact::NvmeUuid => "NVMe UUID",
            Fact::NvmeNguid => "NVMe NGUID",
            Fact::NvmeEui64 => "NVMe EUI-64",
            Fact::PartitionUuid => "partition UUID",
            Fact::DmUuid => "device-mapper UUID",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub size: Sectors,
    facts: BTreeMap<Fact, String>,
}

impl Identity {
    pub fn new(size: Sectors) -> Identity {
        Identity { size, facts: BTreeMap::new() }
    }

    /// Blanks around a value, which drives pad with, are dropped; an empty or overlong value is no
    /// fact.
    #[must_use]
    pub fn with(mut self, fact: Fact, value: &str) -> Identity {
        let value = value.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if !value.is_empty() && value.len() <= MAX_VALUE {
            self.facts.insert(fact, value.to_owned());
        }
        self
    }

    pub fn facts(&self) -> impl Iterator<Item = (Fact, &str)> {
        self.facts.iter().map(|(&fact, value)| (fact, value.as_str()))
    }

    /// Nothing but its size tells this disk from another.
    pub fn is_weak(&self) -> bool {
        self.facts.is_empty()
    }

    /// Whether it may be the same disk, perhaps with another size: nothing contradicts, and something agrees.
    pub fn may_be(&self, other: &Identity) -> bool {
        let common =
            self.facts.iter().filter_map(|(fact, value)| Some((value, other.facts.get(fact)?)));
        let agree: Vec<bool> = common.map(|(ours, theirs)| ours == theirs).collect();
        !agree.contains(&false) && (self.size == other.size || !agree.is_empty())
    }

    /// Whether `present` is the disk that this identity was stored for: nothing contradicts, and
    /// something beyond the size agrees. What was stored weak, with the operator's consent, goes by
    /// its size.
    pub fn admit(&self, present: &Identity) -> Result<(), Mismatch> {
        if self.size != present.size {
            return Err(Mismatch::Size { stored: self.size, present: present.size });
        }
        let mut agreed = self.is_weak();
        for (&fact, stored) in &self.facts {
            match present.facts.get(&fact) {
                Some(found) if found == stored => agreed = true,
                Some(found) => {
                    let (stored, present) = (stored.clone(), found.clone());
                    return Err(Mismatch::Fact { fact, stored, present });
                }
                None => {}
            }
        }
        if agreed { Ok(()) } else { Err(Mismatch::Nothing) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("its size is {present} sectors, the label says {stored}")]
    Size { stored: Sectors, present: Sectors },
    #[error("its {fact} is \"{present}\", the label says \"{stored}\"")]
    Fact { fact: Fact, stored: String, present: String },
    #[error("none of the facts in the label (WWN, serial number, ...) can be seen on it")]
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Identity {
        Identity::new(Sectors(1000)).with(Fact::Wwn, "naa.5000").with(Fact::Serial, "  S1 ")
    }

    #[test]
    fn one_agreeing_fact_is_enough_and_one_contradiction_too_much() {
        let only_serial = Identity::new(Sectors(1000)).with(Fact::Serial, "S1");
        assert_eq!(disk().admit(&only_serial), Ok(()));
        let other = only_serial.clone().with(Fact::Wwn, "naa.6000");
        assert!(matches!(disk().admit(&other), Err(Mismatch::Fact { fact: Fact::Wwn, .. })));
        let unrelated = Identity::new(Sectors(1000)).with(Fact::DmUuid, "LVM-x");
        assert_eq!(disk().admit(&unrelated), Err(Mismatch::Nothing));
        let grown = Identity { size: Sectors(1001), ..disk() };
        assert!(matches!(disk().admit(&grown), Err(Mismatch::Size { .. })));
    }

    #[test]
    fn a_weak_identity_goes_by_size() {
        let weak = Identity::new(Sectors(1000)).with(Fact::Serial, " ");
        assert!(weak.is_weak());
        assert_eq!(weak.admit(&disk()), Ok(()));
        assert!(weak.admit(&Identity::new(Sectors(8))).is_err());
    }
}
