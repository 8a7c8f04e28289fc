//! What is explored, and which bug each exploration must find.

use crate::bug::Bug;
use crate::state::{Budget, Scenario};

const NOTHING: Budget = Budget {
    reads: 0,
    flushes: 0,
    data_bad: 0,
    data_weak: 0,
    slot_bad: 0,
    hiccups: 0,
    flush_fails: 0,
    deaths: 0,
    losses: 0,
    checkpoints: 0,
    answers: 0,
    suspends: 0,
    deadlines: 0,
    cuts: 0,
};

const fn scenario(name: &'static str, fua: &'static [bool], left: Budget) -> Scenario {
    Scenario { name, fua, queue: true, served: true, left, bug: None }
}

/// From the first opening on: owners come and go, and lose their claim, while one write is held and another comes.
const OWNERS: Scenario = Scenario {
    served: false,
    ..scenario(
        "owners",
        &[true, true],
        Budget { data_bad: 1, deaths: 1, losses: 1, cuts: 1, ..NOTHING },
    )
};

/// The disk refuses a write and its repetition, and then takes others: what must not be shadowed.
const HICCUPS: Scenario = scenario(
    "hiccups",
    &[true, true],
    Budget { hiccups: 2, deaths: 1, losses: 1, cuts: 1, deadlines: 1, ..NOTHING },
);

/// Answers to verdicts are lost, and the owner is lost again before it is done.
const ANSWERS: Scenario = scenario(
    "answers",
    &[true, true],
    Budget { data_bad: 1, deaths: 1, losses: 1, answers: 2, ..NOTHING },
);

/// Flushes of the application and of the daemon fail, at any moment.
const FLUSHES: Scenario = scenario(
    "flushes",
    &[true, false],
    Budget { data_bad: 1, flushes: 2, flush_fails: 1, cuts: 1, ..NOTHING },
);

/// And while a daemon opens the spare of an instance that is in use.
const OPENING: Scenario = scenario(
    "opening",
    &[true],
    Budget { data_bad: 1, flushes: 1, flush_fails: 1, deaths: 1, cuts: 1, ..NOTHING },
);

/// And under a checkpoint.
const CHECKPOINT: Scenario = scenario(
    "checkpoint",
    &[true],
    Budget { data_bad: 1, flushes: 2, flush_fails: 1, checkpoints: 1, cuts: 1, ..NOTHING },
);

/// Reads of what is bad, and a write that heals it.
const POISON: Scenario = scenario(
    "poison",
    &[true],
    Budget { reads: 2, data_weak: 1, slot_bad: 1, deaths: 1, cuts: 1, ..NOTHING },
);

/// Slots fail too, until there is none.
const SLOTS: Scenario = scenario(
    "slots",
    &[true, false],
    Budget { data_bad: 1, slot_bad: 2, hiccups: 1, cuts: 1, ..NOTHING },
);

/// Bios leave before their faults end: at their deadline, or by a noflush suspend.
const HOLDS: Scenario = scenario(
    "holds",
    &[true, true],
    Budget { data_bad: 1, deadlines: 2, suspends: 1, deaths: 1, ..NOTHING },
);

/// What was placed is void, cannot be placed again, and its bio leaves.
const VOIDED: Scenario = scenario(
    "voided",
    &[true, false],
    Budget { data_bad: 1, slot_bad: 1, flush_fails: 1, deadlines: 1, ..NOTHING },
);

/// A write to a slot is repeated, and an application's flush fails before it is acknowledged.
const REPEATED: Scenario = scenario(
    "repeated",
    &[true, false],
    Budget { data_bad: 1, hiccups: 1, flushes: 2, flush_fails: 1, cuts: 1, ..NOTHING },
);

/// Without `queue_if_no_daemon`.
const UNQUEUED: Scenario = Scenario {
    queue: false,
    ..scenario(
        "unqueued",
        &[true],
        Budget { reads: 1, data_bad: 1, hiccups: 1, deaths: 2, deadlines: 1, ..NOTHING },
    )
};

pub const SCENARIOS: [Scenario; 12] = [
    OWNERS, HICCUPS, ANSWERS, FLUSHES, OPENING, CHECKPOINT, POISON, SLOTS, HOLDS, VOIDED, REPEATED,
    UNQUEUED,
];

/// The smallest exploration that finds it. All bugs are here.
pub const FOUND_BY: [(Bug, Scenario); 22] = [
    (Bug::InstallBeforeCommit, OPENING),
    (Bug::PlaceNotFlushed, FLUSHES),
    (Bug::PlaceNotChecked, FLUSHES),
    (Bug::CommitNotChecked, FLUSHES),
    (Bug::OpenNotChecked, OPENING),
    (Bug::CheckpointNotChecked, CHECKPOINT),
    (Bug::AckAtOwnerDeath, POISON),
    (Bug::PinnedEndsWithOwner, POISON),
    (Bug::PinnedEndsAtDeadline, HICCUPS),
    (Bug::StaleRelease, HICCUPS),
    (Bug::NothingAdopted, POISON),
    (Bug::LockDroppedEarly, OPENING),
    (Bug::PlacedUnwritten, VOIDED),
    (Bug::PlacedThoughFlushFailed, REPEATED),
    (Bug::StaleWriteAcked, POISON),
    (Bug::ServedUnready, OPENING),
    (Bug::RetiredSlotReused, SLOTS),
    (Bug::FlushFailureHidden, FLUSHES),
    (Bug::DoorbellNotRepeated, OPENING),
    (Bug::ClaimNotReleased, OPENING),
    (Bug::UnknownNotRestated, OPENING),
    (Bug::DeadlineLost, OPENING),
];
