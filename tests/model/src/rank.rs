//! Liveness: if nothing more goes wrong, everything ends, and well.
//!
//! stateright's `eventually` is unsound where paths join or turn in a circle, so the claim is made as one about a
//! finite graph: of all reachable states, and those steps that some actor owes ([`Action::is_owed`]). If that
//! graph has no cycle, then the length of the longest way on from a state is a rank that every owed step lowers; so
//! whatever the order, owed steps come to an end. If where they end nothing is under way, then from any state, after
//! any trouble, every I/O ends, and no deadline is needed for it (deadlines are not owed).

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};

use stateright::Model;

use crate::{Action, Scenario, State};

#[derive(Debug)]
pub struct Rank {
    pub states: usize,
    /// The longest way of owed steps.
    pub longest: u32,
}

/// Owed steps lead nowhere.
#[derive(Debug)]
pub struct Stuck {
    pub why: &'static str,
    /// To the last state.
    pub way: Vec<Action>,
    /// And from there to itself.
    pub circle: Vec<Action>,
}

/// Every reachable state, in breadth, with a step to it.
struct Reached {
    states: Vec<State>,
    by: Vec<Option<(u32, Action)>>,
    index: HashMap<u64, u32>,
}

fn fingerprint(state: &State) -> u64 {
    // Not `RandomState`: the same each time.
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

impl Reached {
    fn from(scenario: &Scenario) -> Reached {
        let mut reached = Reached { states: Vec::new(), by: Vec::new(), index: HashMap::new() };
        reached.add(scenario.begin(), None);
        let mut at = 0;
        while let Some(state) = reached.states.get(at).cloned() {
            for (action, next) in scenario.next_steps(&state) {
                reached.add(next, Some((at as u32, action)));
            }
            at += 1;
        }
        reached
    }

    fn add(&mut self, state: State, by: Option<(u32, Action)>) {
        if let Entry::Vacant(entry) = self.index.entry(fingerprint(&state)) {
            entry.insert(self.states.len() as u32);
            self.states.push(state);
            self.by.push(by);
        }
    }

    fn owed(&self, scenario: &Scenario, at: u32) -> Vec<(u32, Action)> {
        let steps = scenario.next_steps(&self.states[at as usize]);
        let owed = steps.into_iter().filter(|(action, _)| action.is_owed());
        owed.map(|(action, next)| (self.index[&fingerprint(&next)], action)).collect()
    }

    fn stuck(&self, why: &'static str, mut at: u32, circle: Vec<Action>) -> Stuck {
        let mut way = Vec::new();
        while let Some((before, action)) = self.by[at as usize] {
            way.push(action);
            at = before;
        }
        way.reverse();
        Stuck { why, way, circle }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    /// On the way that is being followed.
    Open,
    Done(u32),
}

pub fn rank(scenario: &Scenario) -> Result<Rank, Stuck> {
    let reached = Reached::from(scenario);
    let mut marks = vec![Mark::New; reached.states.len()];
    let mut longest = 0;
    for start in 0..reached.states.len() as u32 {
        // Each with its owed steps that are still to be followed, and its rank so far.
        let mut way = Vec::new();
        let mut next = (marks[start as usize] == Mark::New).then_some((start, None));
        loop {
            if let Some((at, taken)) = next.take() {
                let owed = reached.owed(scenario, at);
                if owed.is_empty() && !reached.states[at as usize].is_settled() {
                    return Err(reached.stuck(
                        "nothing is owed, and something is under way",
                        at,
                        Vec::new(),
                    ));
                }
                marks[at as usize] = Mark::Open;
                way.push((at, owed, 0, taken));
            }
            let Some((at, owed, rank, _)) = way.last_mut() else { break };
            match owed.pop() {
                None => {
                    let (at, rank) = (*at, *rank);
                    marks[at as usize] = Mark::Done(rank);
                    longest = longest.max(rank);
                    way.pop();
                    way.iter_mut()
                        .next_back()
                        .into_iter()
                        .for_each(|(_, _, r, _)| *r = (rank + 1).max(*r));
                }
                Some((after, action)) => match marks[after as usize] {
                    Mark::New => next = Some((after, Some(action))),
                    Mark::Open => {
                        let circle = way.iter().skip_while(|(at, ..)| *at != after).skip(1);
                        let circle = circle.filter_map(|&(_, _, _, taken)| taken).chain([action]);
                        return Err(reached.stuck(
                            "owed steps turn in a circle",
                            after,
                            circle.collect(),
                        ));
                    }
                    Mark::Done(below) => *rank = (below + 1).max(*rank),
                },
            }
        }
    }
    Ok(Rank { states: reached.states.len(), longest })
}
