//! A checker that finds nothing proves something only if it finds what is there: each bug, put into the protocol by
//! hand, is found, and the way to it is printed.

use dmremap_model::{Bug, FOUND_BY, explore, rank};

/// The property that each bug breaks first.
fn breaks(bug: Bug) -> &'static str {
    match bug {
        Bug::OpenNotChecked | Bug::CheckpointNotChecked => "I5: the spare is not refused",
        Bug::DeadlineLost => "I3: a hold ends by its deadline, whatever the daemon does",
        Bug::DoorbellNotRepeated
        | Bug::ClaimNotReleased
        | Bug::UnknownNotRestated
        | Bug::RetiredSlotReused => "nothing is owed, and something is under way",
        Bug::InstallBeforeCommit
        | Bug::PlaceNotFlushed
        | Bug::PlaceNotChecked
        | Bug::CommitNotChecked
        | Bug::AckAtOwnerDeath
        | Bug::PinnedEndsWithOwner
        | Bug::PinnedEndsAtDeadline
        | Bug::StaleRelease
        | Bug::NothingAdopted
        | Bug::LockDroppedEarly
        | Bug::PlacedUnwritten
        | Bug::PlacedThoughFlushFailed
        | Bug::StaleWriteAcked
        | Bug::ServedUnready
        | Bug::FlushFailureHidden => {
            "I1, I5: what is found is what was acknowledged, or sent since"
        }
    }
}

#[test]
fn each_bug_is_found() {
    for (bug, scenario) in FOUND_BY {
        let scenario = scenario.with(bug);
        let found = explore(&scenario, true);
        let (broken, way) = match found.broken.first() {
            Some((broken, way)) => (*broken, way.clone()),
            None => {
                let stuck = rank(&scenario).expect_err("it is found");
                (stuck.why, stuck.way)
            }
        };
        println!("{bug:?}, in {} states of {}: {broken}", found.states, scenario.name);
        way.iter().for_each(|action| println!("    {action:?}"));
        assert_eq!(broken, breaks(bug), "{bug:?}");
    }
}

#[test]
fn each_bug_is_tried_once() {
    let mut bugs: Vec<String> = FOUND_BY.iter().map(|(bug, _)| format!("{bug:?}")).collect();
    bugs.sort_unstable();
    bugs.dedup();
    assert_eq!(bugs.len(), FOUND_BY.len());
}
