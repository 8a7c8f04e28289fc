//! Test disks.
