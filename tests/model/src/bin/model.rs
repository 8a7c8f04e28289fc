//! `model [SCENARIO [BUG]]`: explores all, or one; with a bug, prints the shortest way to what it breaks.

use std::process::ExitCode;

use dmremap_model::{FOUND_BY, SCENARIOS, Scenario, explore, rank};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (name, bug) = (words.next(), words.next());
    let scenarios = SCENARIOS.iter().filter(|s| name.as_ref().is_none_or(|name| s.name == name));
    let mut good = true;
    for scenario in scenarios {
        let bug =
            bug.as_ref().and_then(|bug| FOUND_BY.iter().find(|(b, _)| format!("{b:?}") == *bug));
        good &= show(&Scenario { bug: bug.map(|&(bug, _)| bug), ..*scenario });
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(scenario: &Scenario) -> bool {
    let found = explore(scenario, true);
    println!("{}: {} states, depth {}", scenario.name, found.states, found.depth);
    found.seen.iter().for_each(|seen| println!("    seen: {seen}"));
    for (property, way) in &found.broken {
        println!("    broken: {property}");
        way.iter().for_each(|action| println!("        {action:?}"));
    }
    if !found.broken.is_empty() {
        return false;
    }
    match rank(scenario) {
        Ok(rank) => println!("    from each state all ends within {} owed steps", rank.longest),
        Err(stuck) => {
            println!("    broken: I3: {}", stuck.why);
            stuck.way.iter().for_each(|action| println!("        {action:?}"));
            println!("      and round: {:?}", stuck.circle);
            return false;
        }
    }
    true
}
