//! How values lie in memory on the wire: host byte order, the header's structs without gaps.
//!
//! build.rs compares each struct's size and fields with the header.

use crate::uapi::{FaultFlags, FaultState, InstanceFlags, Kind, Status};

/// A value of a fixed size on the wire.
pub trait Wire: Sized {
    /// Bytes it takes.
    const SIZE: usize;
    /// Appends its `SIZE` bytes.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it from exactly `SIZE` bytes; none if they stand for no value.
    fn get(bytes: &[u8]) -> Option<Self>;
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            const SIZE: usize = size_of::<$type>();
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_ne_bytes());
            }
            fn get(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_ne_bytes(bytes.try_into().ok()?))
            }
        }
    )*};
}

/// A value that stands on the wire as the integer `$raw`.
macro_rules! encoded {
    ($($type:ty: $raw:ty, $to:expr, $from:expr;)*) => {$(
        impl Wire for $type {
            const SIZE: usize = <$raw>::SIZE;
            fn put(&self, out: &mut Vec<u8>) {
                let to: fn($type) -> $raw = $to;
                to(*self).put(out);
            }
            fn get(bytes: &[u8]) -> Option<Self> {
                <$raw>::get(bytes).and_then($from)
            }
        }
    )*};
}

/// A struct of the header, and its padding at the end.
macro_rules! structure {
    ($(#[$doc:meta])* $name:ident, pad $pad:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $name {
            /// Its fields in order, each with its size in bytes.
            pub const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), <$type>::SIZE)),*];
            /// Bytes of zero behind the last field.
            pub const PAD: usize = $pad;
        }

        impl Wire for $name {
            const SIZE: usize = $(<$type>::SIZE +)* $pad;
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
                out.extend_from_slice(&[0; $pad]);
            }
            fn get(mut bytes: &[u8]) -> Option<Self> {
                Some(Self { $($field: take(&mut bytes)?,)* })
            }
        }
    };
}

integer!(u8, u16, u32, u64, i32);
encoded! {
    Kind: u8, |kind| kind as u8, Kind::from_wire;
    Status: u8, |status| status as u8, Status::from_wire;
    FaultState: u8, |state| state as u8, FaultState::from_wire;
    FaultFlags: u32, |flags| flags.0, |raw| Some(FaultFlags(raw));
    InstanceFlags: u32, |flags| flags.0, |raw| Some(InstanceFlags(raw));
}

/// Reads a value off the front of `bytes`; none if they are too few or stand for no value.
pub fn take<T: Wire>(bytes: &mut &[u8]) -> Option<T> {
    let (head, tail) = bytes.split_at_checked(T::SIZE)?;
    *bytes = tail;
    T::get(head)
}

structure! {
    /// An extent of the table, or a retired range of the spare. All in sectors.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    Extent, pad 3 {
        /// First sector of the mapped device.
        start: u64,
        /// First sector of the spare.
        slot: u64,
        len: u32,
        kind: Kind,
    }
}

structure! {
    /// A piece of a fault. All in sectors.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    Piece, pad 6 {
        /// From the fault's start.
        offset: u32,
        len: u32,
        /// First sector of the spare, or 0.
        slot: u64,
        /// `Direct` in TRY.
        kind: Kind,
        /// How its I/O ended; `Ok` in requests.
        result: Status,
    }
}

structure! {
    /// Counts since the instance began; the header says of what.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    Counters, pad 0 {
        faults: u64,
        installs: u64,
        releases: u64,
        fails: u64,
        expired: u64,
        refused: u64,
        unowned: u64,
        passed: u64,
        poison_reads: u64,
        redone: u64,
        spare_flush_errors: u64,
        data_flush_fails: u64,
        spare_flush_fails: u64,
        /// Gauge.
        held_bios: u64,
        /// Gauge.
        held_sectors: u64,
        /// Gauge.
        extents: u64,
        /// Gauge, fences included.
        open_faults: u64,
    }
}
