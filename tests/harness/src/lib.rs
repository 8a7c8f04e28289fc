//! Deterministic simulation: the daemon's own core, driver and metadata, over a kernel, disks, a clock
//! and owners that are simulated, and an oracle that knows only what applications were told.
//!
//! A seed makes a [`script`] (`generate`), which `sim` plays: `sys` holds time, chance, [`disk`]s and
//! the kernel's side ([`kernel`], after `kmod/`), `step` does what the script says, `daemon` takes the
//! daemon's turns. [`oracle`] and `checks` judge; `cover` counts where crashes hit; `shrink` makes a
//! failing script short.

pub mod checks;
pub mod cover;
pub mod daemon;
pub mod disk;
pub mod generate;
pub mod kernel;
mod made;
pub mod oracle;
pub mod rng;
pub mod script;
pub mod shrink;
pub mod sim;
mod step;
pub mod sys;
