//! Macros that define numbers of a C header together with tables of them by name, for build.rs to
//! compare with it.

/// Constants, and a table of them by name.
macro_rules! constants {
    ($table:ident { $($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)* }) => {
        $($(#[$doc])* pub const $name: $type = $value;)*
        /// Every number above, by its name.
        pub const $table: &[(&str, u64)] = &[$((stringify!($name), $value)),*];
    };
}

/// A C enum whose values are exclusive.
macro_rules! enumeration {
    ($(#[$doc:meta])* $name:ident: $repr:ty { $($variant:ident $(= $value:literal)?),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name { $($variant $(= $value)?),* }

        impl $name {
            /// Every value, in the header's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value that `raw` stands for, if this version knows it.
            pub fn from_wire(raw: $repr) -> Option<Self> {
                Self::ALL.iter().copied().find(|&value| value as $repr == raw)
            }
        }
    };
}

/// A C enum of bits. Bits that this version does not know are kept.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $($flag:ident = $value:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub u32);

        #[allow(missing_docs)]
        impl $name {
            $(pub const $flag: Self = Self($value);)*
            /// Every flag, by its name.
            pub const ALL: &'static [(&'static str, Self)] = &[$((stringify!($flag), Self::$flag)),*];

            /// Whether every bit of `other` is set.
            pub fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }
    };
}
