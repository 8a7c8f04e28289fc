//! Named conversations. Each expects once, for all sides, what the protocol's manual says; and what all sides answer
//! must be the same to the last number.

mod claims;
mod faults;
mod fences;
mod flushes;
mod holds;
mod tables;

use anyhow::{Context, Result, bail};

use crate::side::differences;
use crate::{Config, Entry, Side, Simulated, Talk};

pub struct Conversation {
    pub name: &'static str,
    pub config: fn() -> Config,
    talk: fn(&mut Talk) -> Result<()>,
}

impl Conversation {
    const fn new(name: &'static str, talk: fn(&mut Talk) -> Result<()>) -> Conversation {
        Conversation { name, config: Config::default, talk }
    }

    const fn with(mut self, config: fn() -> Config) -> Conversation {
        self.config = config;
        self
    }

    fn hold(&self, side: &mut dyn Side) -> Result<Vec<Entry>> {
        let mut talk = Talk::new(side);
        (self.talk)(&mut talk).with_context(|| self.name)?;
        Ok(talk.transcript())
    }

    /// With the simulated kernel and with another side.
    pub fn compare(&self, other: &mut dyn Side) -> Result<()> {
        let mut simulated = Simulated::new(&(self.config)());
        let expected = self.hold(&mut simulated).context("the simulated kernel")?;
        let found = self.hold(other).context("the module")?;
        for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
            if found != expected {
                let how = differences(found, expected);
                bail!("{}: step {n}: {}: the module has{how}", self.name, found.said());
            }
        }
        match found.len() == expected.len() {
            true => Ok(()),
            false => bail!("{}: {} steps and {}", self.name, found.len(), expected.len()),
        }
    }
}

/// By subject.
pub const ALL: &[(&str, &[Conversation])] = &[
    ("claims", claims::ALL),
    ("tables", tables::ALL),
    ("fences", fences::ALL),
    ("faults", faults::ALL),
    ("holds", holds::ALL),
    ("flushes", flushes::ALL),
];

/// Those of a subject.
pub fn about(subject: &str) -> Result<&'static [Conversation]> {
    let found = ALL.iter().find(|(name, _)| *name == subject);
    found.map(|(_, all)| *all).with_context(|| format!("no conversations about {subject}"))
}
