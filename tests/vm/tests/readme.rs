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
        for word in shown {
            let group = format!("{word}.");
            let case = cases::all().any(|case| case.name == word || case.name.starts_with(&group));
            let folder = word.strip_prefix("tests/").is_some_and(|name| tests.join(name).is_dir());
            assert!(case || folder, "{name}: no case, group or folder {word}");
        }
        for word in bugs {
            let patch = tests.join(format!("mutants/{word}.patch"));
            assert!(patch.exists(), "{name}: no {}", patch.display());
        }
    }
    assert_eq!(invariants, 8);
}
