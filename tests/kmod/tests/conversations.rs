//! The conversations of `tests/conformance` with the module in user space.

use anyhow::Result;
use dmremap_conformance::conversations::about;
use dmremap_kmod_host::Host;

fn hold(subject: &str) -> Result<()> {
    for conversation in about(subject)? {
        let mut host = Host::new(&(conversation.config)())?;
        conversation.compare(&mut host)?;
    }
    Ok(())
}

#[test]
fn about_claims() -> Result<()> {
    hold("claims")
}

#[test]
fn about_tables() -> Result<()> {
    hold("tables")
}

#[test]
fn about_fences() -> Result<()> {
    hold("fences")
}

#[test]
fn about_faults() -> Result<()> {
    hold("faults")
}

#[test]
fn about_holds() -> Result<()> {
    hold("holds")
}

#[test]
fn about_flushes() -> Result<()> {
    hold("flushes")
}
