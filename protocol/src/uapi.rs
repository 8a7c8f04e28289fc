//! The names and numbers of `include/uapi/dm_remap.h`, which says what they mean.
//!
//! build.rs compiles this file too, and refuses the build where the two differ. Names are the
//! header's without their prefix, enumerators in camel case.

/// The family's name.
pub const GENL_NAME: &str = "dm_remap";
/// The multicast group of the doorbell.
pub const MCGRP_FAULTS: &str = "faults";

constants! { NUMBERS {
    /// The version in every message.
    GENL_VERSION: u8 = 1;
    /// The longest range of one bio's fault, in sectors.
    MAX_FAULT_SECTORS: u64 = 2048;
    /// The most pieces of one TRY or PLACE.
    MAX_PIECES: usize = 1024;
    /// The most extents of one LOAD.
    MAX_LOAD: usize = 2048;
    /// The most faults of one INSTALL.
    MAX_INSTALL: usize = 1024;
    /// The largest slot area, in sectors.
    MAX_SLOT_SECTORS: u64 = 1 << 27;
    /// The most extents of one instance.
    MAX_EXTENTS: usize = 1_048_576;
} }

enumeration! {
    /// What a message asks for or tells.
    Command: u8 {
        InstanceGet = 1, Claim, Load, Ready, FaultGet, ExtentGet, Try, Place, Install, Release,
        Fail, Fence, Doorbell, FlushFailed,
    }
}

enumeration! {
    /// The attributes of messages.
    Attr: u16 {
        Instance = 1, DmDev, DataDev, SpareDev, Sectors, Block, InstanceFlags, Generation, Commit,
        Counters, SlotStart, SlotSectors, SlotUnit, Owner, Extents, FaultId, FaultIds, Start, Len,
        FaultState, FaultFlags, Status, DeadlineMs, Pieces, Pad,
    }
}

enumeration! {
    /// What a range of the mapped device is.
    Kind: u8 { Direct, Mapped, PoisonData, PoisonSlot, Retired }
}

enumeration! {
    /// Where a fault stands.
    FaultState: u8 { Open, Busy, Placed }
}

enumeration! {
    /// How an I/O ended.
    Status: u8 { Ok, Medium, Ioerr, Other, NotDone }
}

flags! {
    /// What a fault is.
    FaultFlags {
        WRITE = 1 << 0, HELD = 1 << 1, PINNED = 1 << 2, FENCE = 1 << 3, HEAL = 1 << 4,
    }
}

flags! {
    /// What state an instance is in.
    InstanceFlags {
        READY = 1 << 0, QUEUE = 1 << 1, DATA_FLUSH_BAD = 1 << 2,
        SPARE_FLUSH_BAD = 1 << 3,
    }
}
