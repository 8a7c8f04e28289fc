//! The table of the invariants in `tests/README.md` names cases, groups of them, folders and deliberate bugs that exist.

use std::fs;
use std::path::Path;

use dmremap_vm::cases;

/// What a column has in backticks.
fn words(column: &str) -> Vec<&str> {
    column.split('`').skip(1).step_by(2).collect()
}

#[test]
fn what_shows_the_invariants_exists() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(tests.join("README.md")).expect("the manual of the tests");
    let mut invariants = 0;
    for row in text.lines().filter(|line| line.starts_with("| I")) {
        invariants += 1;
        let columns: Vec<&str> = row.split('|').collect();
        let [_, name, shown, bugs, _] = columns[..] else { panic!("an odd row: {row}") };
        assert_eq!(name.trim(), format!("I{invariants}"));
        let (shown, bugs) = (words(shown), words(bugs));
        assert!(!shown.is_empty() && !bugs.is_empty(), "nothing shows {name}");
        let names = |word: &str, case: &str| {
            case.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for &word in &shown {
            let case = cases::all().any(|case| names(word, case.name));
            let folder = word.strip_prefix("tests/").is_some_and(|name| tests.join(name).is_dir());
            assert!(case || folder, "{name}: no case, group or folder {word}");
        }
        for word in bugs {
            let patch = tests.join(format!("mutants/{word}.patch"));
            let patch =
                fs::read_to_string(&patch).unwrap_or_else(|e| panic!("{name}: {word}: {e}"));
            let by = patch.lines().next().and_then(|line| line.strip_prefix("Caught-by: "));
            let told = match by {
                Some(case) => shown.iter().any(|word| names(word, case)),
                None => columns[2].contains("simulation"),
            };
            assert!(told, "{name}: {word} is caught by {}", by.unwrap_or("the simulation"));
        }
    }
    assert_eq!(invariants, 8);
}
