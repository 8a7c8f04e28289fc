//! Every crash of every operation, every crash of the recovery from it, and a bad block at the same
//! time: what is found is exactly the table before or exactly the table after, and after it once the
//! operation has returned.
//!
//! `visited.txt` has what is visited. All of it is enumerated or comes from fixed seeds: less than
//! that is coverage lost, and a change of what is written shows there too.

mod again;
mod cuts;
mod faults;
mod image;
mod operations;
mod recorder;
mod visit;

use operations::Operation;
use visit::Row;

const VISITED: &str = include_str!("visited.txt");

fn explore(operation: &Operation) {
    let mut row = Row::default();
    let left = visit::first(operation, &mut row);
    again::second(operation, &left, &mut row);
    again::killed(operation, &mut row);
    faults::faults(operation, &left, &mut row);
    let Row { states, images, found, apart, cut, killed, faults, faulty } = row;
    let counts = [&[states, images][..], &found, &[apart], &cut, &killed, &[faults], &faulty];
    let mut line = format!("{:30}", operation.name);
    counts.concat().iter().for_each(|n| line += &format!("{n:>8}"));
    assert!(VISITED.lines().any(|known| known == line), "visited.txt has not\n{line}");
}

macro_rules! operations {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            explore(&operations::$name());
        })*
    };
}

operations! {
    format_fresh format_over restore_anew
    a_commit group_commit restated_after_a_flush restated_after_a_write heal retire
    checkpoint checkpoint_and_a_commit checkpoint_loses_a_mirror checkpoint_flushes_fail
    owed_checkpoint owed_death_of_a_mirror
    mirror_0_dead mirror_1_dead repair_of_copies repair_of_a_dead_mirror
    open take_over close
}
