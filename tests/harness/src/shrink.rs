//! A failing script, made short: steps are left out, in runs of halving length, as long as it fails.

use crate::script::Script;
use crate::sim;

/// Violations are the same when their first words are.
fn kind(violation: &str) -> String {
    violation.chars().take_while(|c| !c.is_ascii_digit()).take(24).collect()
}

pub fn shrink(script: &Script, violation: &str, mut tries: u32) -> Script {
    let wanted = kind(violation);
    let mut best = script.clone();
    let mut run = best.steps.len() / 2;
    while run > 0 && tries > 0 {
        let mut at = 0;
        while at < best.steps.len() && tries > 0 {
            tries -= 1;
            let mut shorter = best.clone();
            let to = (at + run).min(shorter.steps.len());
            shorter.steps.drain(at..to);
            let fails = sim::run(&shorter, false).violation.is_some_and(|v| kind(&v) == wanted);
            if fails {
                best = shorter;
            } else {
                at += run;
            }
        }
        run /= 2;
    }
    best
}
