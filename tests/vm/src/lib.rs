//! Guests that run the module in real kernels: `vm` boots them on the host, `guest` is their
//! process 1 and runs the cases.

pub mod judge;

/// Begins every line that a guest reports on its second serial port.
pub const PREFIX: &str = "CASE ";
