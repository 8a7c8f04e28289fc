//! The conversations of `tests/conformance` with the module: its transcripts are those of the simulated kernel, which
//! the daemon is tested with.

use anyhow::{Context, Result};
use dmremap_conformance::conversations::about;
use dmremap_conformance::{Outcome, Side, State, Step};

use crate::case::Case;
use crate::guest::Ctx;
use crate::guest::module::{self, Module};

pub const CASES: &[Case] = &[
    Case::new("conformance.claims", 120, |ctx| hold(ctx, "claims")),
    Case::new("conformance.tables", 120, |ctx| hold(ctx, "tables")),
    Case::new("conformance.fences", 120, |ctx| hold(ctx, "fences")),
    Case::new("conformance.faults", 120, |ctx| hold(ctx, "faults")),
    Case::new("conformance.holds", 120, |ctx| hold(ctx, "holds")),
    Case::new("conformance.flushes", 120, |ctx| hold(ctx, "flushes")),
    Case::new("conformance.a-generation-too-many-is-noticed", 60, control)
        .must_fail("the module has"),
];

fn hold(ctx: &mut Ctx, subject: &str) -> Result<()> {
    let conversations = about(subject)?;
    let mut disks = module::disks()?;
    for conversation in conversations {
        let mut module = Module::new(&(conversation.config)(), disks).context(conversation.name)?;
        conversation.compare(&mut module)?;
        disks = module.remove().context(conversation.name)?;
    }
    ctx.note(format!("{} conversations about {subject}", conversations.len()))
}

/// Like the module, but for one number that no expectation is about.
struct Off(Module);

impl Side for Off {
    fn step(&mut self, step: &Step) -> Result<Outcome> {
        self.0.step(step)
    }

    fn state(&mut self) -> Result<State> {
        let mut state = self.0.state()?;
        state.instance.generation += u64::from(state.instance.commit == 7);
        Ok(state)
    }
}

fn control(_: &mut Ctx) -> Result<()> {
    let conversation = about("claims")?.iter().find(|c| c.name.contains("stale"));
    let conversation = conversation.context("none is about what is stale")?;
    conversation.compare(&mut Off(Module::new(&(conversation.config)(), module::disks()?)?))
}
