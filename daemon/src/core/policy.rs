//! The numbers that an operator may change, with their defaults and limits.

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How often an unreadable block is read again before it is called unreadable.
    pub read_retries: u32,
    /// How often a fault is placed in all: without the slots that failed, or again if a flush did.
    pub place_attempts: u32,
    /// The most faults in a row whose near surroundings do not answer either.
    pub breaker_faults: u32,
    /// Such a row is forgotten after this long without another one, in seconds.
    pub breaker_window: u64,
    /// After a storm the next fault is a trial, this much later, in milliseconds.
    pub breaker_pause: u64,
    /// An alarm is raised when less of the spare than this is free.
    pub spare_low_percent: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            read_retries: 3,
            place_attempts: 4,
            breaker_faults: 64,
            breaker_window: 60,
            breaker_pause: 1000,
            spare_low_percent: 10,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} is {value}: want {min} to {max}")]
pub struct PolicyError {
    pub field: &'static str,
    pub value: u64,
    pub min: u64,
    pub max: u64,
}

impl Policy {
    pub fn validate(&self) -> Result<(), PolicyError> {
        let limits = [
            ("read_retries", u64::from(self.read_retries), 0, 100),
            ("place_attempts", u64::from(self.place_attempts), 1, 100),
            ("breaker_faults", u64::from(self.breaker_faults), 1, 1_000_000),
            ("breaker_window", self.breaker_window, 1, 86_400),
            ("breaker_pause", self.breaker_pause, 10, 3_600_000),
            ("spare_low_percent", u64::from(self.spare_low_percent), 0, 100),
        ];
        match limits.into_iter().find(|&(_, value, min, max)| !(min..=max).contains(&value)) {
            Some((field, value, min, max)) => Err(PolicyError { field, value, min, max }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_its_limits_is_named() {
        assert_eq!(Policy::default().validate(), Ok(()));
        let error = Policy { breaker_faults: 0, ..Policy::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "breaker_faults is 0: want 1 to 1000000");
    }

    #[test]
    fn an_unknown_key_is_refused_and_a_missing_one_has_its_default() {
        assert!(serde_json::from_str::<Policy>(r#"{"read_retry": 1}"#).is_err());
        let policy: Policy = serde_json::from_str(r#"{"read_retries": 1}"#).unwrap();
        assert_eq!(policy, Policy { read_retries: 1, ..Policy::default() });
    }
}
