//! The wire protocol between `dm_remap_shim` and `dmremap-policyd`.
