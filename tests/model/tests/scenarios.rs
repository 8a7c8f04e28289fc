//! Every scenario is explored to its end, and nothing is broken. The counts are exact: a change of the model shows.

use std::collections::BTreeSet;

use dmremap_model::{SCENARIOS, explore, rank};

/// Scenario, unique states, depth, and the rank of its worst state.
const EXPLORED: [(&str, usize, usize, u32); 12] = [
    ("owners", 90_328, 47, 44),
    ("hiccups", 358_897, 45, 40),
    ("answers", 67_582, 48, 44),
    ("flushes", 88_727, 47, 33),
    ("opening", 12_126, 41, 36),
    ("checkpoint", 24_378, 41, 29),
    ("poison", 96_887, 68, 55),
    ("slots", 85_240, 72, 54),
    ("holds", 56_586, 49, 40),
    ("voided", 22_668, 62, 44),
    ("repeated", 608_682, 59, 46),
    ("unqueued", 197_409, 81, 59),
];

/// Nothing is proved of what is never reached.
const SEEN: [&str; 17] = [
    "a claim is lost under a commit",
    "a commit is unknown",
    "a dead daemon's write is under way",
    "a deadline is missed",
    "a foreign flush fails under a commit",
    "a pinned fence outlives its bio",
    "a place is void",
    "a placed fence without an owner",
    "fenced, another waits",
    "healing",
    "mapped",
    "mapped to another slot",
    "poisoned",
    "poisoned at its slot",
    "pushed back by a suspend",
    "the spare is full",
    "what the log holds is adopted",
];

#[test]
fn nothing_is_broken_and_everything_ends() {
    let mut seen = BTreeSet::new();
    for (scenario, (name, states, depth, longest)) in SCENARIOS.iter().zip(EXPLORED) {
        let found = explore(scenario, false);
        println!("{}: {} states, depth {}", scenario.name, found.states, found.depth);
        assert_eq!(found.broken, [], "{name}");
        let rank = rank(scenario).expect(name);
        println!("    from each state all ends within {} owed steps", rank.longest);
        assert_eq!((scenario.name, found.states, found.depth), (name, states, depth));
        assert_eq!((rank.states, rank.longest), (states, longest), "{name}");
        seen.extend(found.seen);
    }
    assert_eq!(SCENARIOS.len(), EXPLORED.len());
    assert_eq!(seen, SEEN.into());
}
