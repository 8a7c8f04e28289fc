//! The proof that a commit is durable.

use serde::Serialize;

/// Only the step that learns that a commit is durable makes one, and a message that installs a
/// mapping cannot be built without one: I1 rests on this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Durable {
    sequence: u64,
}

impl Durable {
    #[cfg(test)]
    pub fn after(sequence: u64) -> Durable {
        Durable { sequence }
    }

    pub fn sequence(self) -> u64 {
        self.sequence
    }
}

impl From<crate::metadata::Durable> for Durable {
    fn from(proof: crate::metadata::Durable) -> Durable {
        Durable { sequence: proof.sequence() }
    }
}
