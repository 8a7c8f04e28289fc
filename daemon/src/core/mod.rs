//! The policy core: one [`Device`] a remapped device, which takes (now, event) and returns
//! actions. It does no I/O, and knows no clock, randomness or hash order, so the same events give
//! the same actions in the daemon, a simulator and a replay.
//!
//! A write fault is searched (TRY), controlled, placed, flushed, checked, committed and installed;
//! a read fault is searched by reads, controlled, and poisoned the same way; [`Step`] names where
//! a fault stands. Files in the order of that path: `event` (the words), `device` (state, listing),
//! `session` (claim, load, adopt), `fault` (its steps), `triage` (search and control), `search`, `control`, `breaker`,
//! `place`, `spare`, `commit`, `durable`; `policy` and `snapshot` are what an operator sets and sees.

mod breaker;
mod commit;
mod control;
mod device;
mod durable;
mod event;
mod fault;
mod place;
mod policy;
mod search;
mod session;
mod snapshot;
mod spare;
mod triage;

#[cfg(test)]
mod tests;

pub use device::Device;
pub use durable::Durable;
pub use event::{
    Action, Alarm, Area, At, CommitFailure, Event, FaultId, Flags, Instance, Listed, Load, Piece,
    ReadId, Refusal, Span, State, Status,
};
pub use fault::Step;
pub use policy::{Policy, PolicyError};
pub use snapshot::{Counters, FaultView, Happening, Note, Snapshot};
pub use spare::Usage;
