//! One conversation with two kernels' sides: the simulated one of `tests/harness`, and another, which is the shipped
//! module in a guest or in user space. What one does and the other does not is a failure.

pub mod conversations;
pub mod side;
pub mod simulated;
pub mod talk;

pub use side::{Access, Config, Disk, Ended, Io, Look, Outcome, Side, State, Status, Step, What};
pub use simulated::Simulated;
pub use talk::{Entry, Talk};
