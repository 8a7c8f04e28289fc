//! The wire protocol between `dm_remap_shim` and `dmremap-policyd`, without I/O.
//!
//! `include/uapi/dm_remap.h` is its manual and its only source of numbers; [`uapi`] and [`layout`]
//! mirror it, and the build fails where they differ. A [`Request`] encodes to the payload that
//! [`frame::encode`] puts into a netlink message; [`frame::frames`] takes what a socket received
//! apart, [`frame::Frame::answer`] tells parts of an answer from its end, and [`Message::decode`]
//! reads a part. [`Family`] asks where the family is. Received bytes are untrusted: any decode to
//! a value or an error. What a value means, such as ranges, is for its reader to check.

mod attribute;
mod family;
pub mod frame;
pub mod layout;
pub mod message;
pub mod request;
#[macro_use]
mod tables;
pub mod linux;
pub mod uapi;

pub use attribute::{DecodeError, TooMany};
pub use family::Family;
pub use layout::{Counters, Extent, Piece};
pub use message::{FaultInfo, InstanceInfo, Message};
pub use request::{Request, SlotArea};
