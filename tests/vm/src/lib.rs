//! Test guests: stock kernels under QEMU, and cases that run inside them.
//!
//! - [`case`]: what a case is; [`cases`]: all of them, in one table;
//! - [`guest`]: the side inside the guest: its first process, and the tools that cases are written with;
//! - [`host`]: the side outside: image, QEMU, the judge of what a boot has shown, the report;
//! - [`proto`]: the lines the two sides exchange over a serial port of their own.

pub mod case;
pub mod cases;
pub mod guest;
pub mod host;
pub mod proto;
