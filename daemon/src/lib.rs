//! The policy daemon of dm-remap.
