//! Judges I1 and I2 from outside: a workload writes sectors that name the write they came from, says what it
//! does as [`history`] lines that are kept where the power cut does not reach, and the [`judge`] decides for
//! every sector read whether it may hold what it holds.
//!
//! What the recorder owes the judge: [`workload`] returns from `emit` before it submits, so a submitted line must
//! be out of the guest by then; `cut` is recorded after the guest is dead and all of its lines are in. That is
//! truthful because no request completes after the cut (see [`crate::volatile::Power`]).

pub mod history;
pub mod judge;
pub mod pattern;
pub mod workload;

pub use history::Event;
pub use judge::{Judge, Verdict};
pub use pattern::Content;
