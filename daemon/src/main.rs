//! The policy daemon of dm-remap.

fn main() {}
