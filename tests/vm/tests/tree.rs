//! What the tree promises about itself: a small module, short files, and a reading order of files that exist.

use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const MODULE_LINES: usize = 2500;
const FILE_LINES: usize = 500;
/// Written by programs.
const GENERATED: &[&str] = &["Cargo.lock", "tests/fuzz/libfuzzer/Cargo.lock"];

/// The files of the repository that are text, with their lines.
fn files() -> Vec<(String, usize)> {
    let listed = Command::new("git")
        .args(["-C", ROOT, "ls-files"])
        .output()
        .unwrap_or_else(|error| panic!("git: {error}"));
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8_lossy(&listed.stdout);
    let lines = |name: &str| {
        let text = fs::read_to_string(Path::new(ROOT).join(name)).ok()?;
        Some((name.to_owned(), text.lines().count()))
    };
    names.lines().filter_map(lines).collect()
}

#[test]
fn the_module_is_small_and_no_file_is_long() {
    let files = files();
    let module: usize = files.iter().filter(|(f, _)| f.starts_with("kmod/")).map(|f| f.1).sum();
    assert!((1..MODULE_LINES).contains(&module), "kmod has {module} lines");
    let long = |(file, lines): &&(String, usize)| {
        *lines > FILE_LINES && !GENERATED.contains(&file.as_str())
    };
    assert_eq!(files.iter().filter(long).collect::<Vec<_>>(), Vec::<&(String, usize)>::new());
}

#[test]
fn the_reading_order_names_files_that_exist() {
    let text = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("the README");
    let order = text.split("## Reading order").nth(1).expect("a reading order");
    let files = files();
    let mut found = 0;
    for word in order.split('`').skip(1).step_by(2) {
        let source = [".c", ".h", ".rs", ".md"].iter().any(|end| word.ends_with(end));
        if source && !word.contains(' ') {
            let end = format!("/{word}");
            let exists = files.iter().any(|(file, _)| file == word || file.ends_with(&end));
            assert!(exists, "{word} is not there");
            found += 1;
        }
    }
    assert!(found >= 20, "{found} files");
}
