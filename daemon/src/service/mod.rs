//! The daemon as a process of its machine: what it must be before it may serve faults, what it says
//! and to whom.

mod adopt;
pub mod client;
pub mod control;
pub mod device;
pub mod log;
pub mod notify;
pub mod process;
pub mod realtime;
mod reload;
mod report;
mod spares;
mod start;
pub mod supervisor;
