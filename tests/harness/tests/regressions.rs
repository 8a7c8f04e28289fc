//! Every script that once failed, played again. Each is named after what it found; its story is in
//! `regressions/README.md`.

use std::path::Path;

use dmremap_harness::script::Script;
use dmremap_harness::sim;

#[test]
fn what_once_failed_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let story = std::fs::read_to_string(folder.join("README.md")).expect("the stories");
    let mut played = 0;
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(story.contains(&format!("`{name}`")), "{name} has no story");
        let text = std::fs::read_to_string(&path).expect("readable");
        let script: Script = serde_json::from_str(&text).expect("a script");
        let outcome = sim::run(&script, false);
        assert_eq!(outcome.violation, None, "{name}");
        played += 1;
    }
    assert_ne!(played, 0);
}
