//! `make install` puts each thing where what uses it looks for it, and leaves an operator's configuration alone.

use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn install(built: &Path, dest: &Path) {
    let done = Command::new("make")
        .args(["-s", "-C", ROOT, "install", "KREL=9.9", "PREFIX=/opt/x"])
        .arg(format!("KBUILD_DIR={}", built.display()))
        .arg(format!("DAEMON={}", built.join("daemon").display()))
        .arg(format!("DESTDIR={}", dest.display()))
        .output()
        .unwrap_or_else(|error| panic!("make: {error}"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn everything_is_where_it_is_looked_for_and_an_edited_configuration_stays() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("install");
    let (built, dest) = (dir.join("built"), dir.join("dest"));
    drop(fs::remove_dir_all(&dir));
    fs::create_dir_all(built.join("kmod")).expect("a directory");
    fs::write(built.join("kmod/dm_remap_shim.ko"), "module").expect("written");
    fs::write(built.join("daemon"), "daemon").expect("written");

    install(&built, &dest);
    let text = |path: &str| {
        let path = dest.join(path.trim_start_matches('/'));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    assert_eq!(text("lib/modules/9.9/updates/dm_remap_shim.ko"), "module");
    let unit = text("opt/x/lib/systemd/system/dmremap-policyd.service");
    let programs: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("ExecStart=").or(line.strip_prefix("ExecReload=")))
        .filter_map(|command| command.split(' ').next())
        .collect();
    assert_eq!(programs.len(), 2, "{unit}");
    programs.iter().for_each(|program| assert_eq!(text(program), "daemon"));
    let asserted = unit.lines().find_map(|line| line.strip_prefix("AssertPathExists="));
    let config = asserted.expect("the unit asks for its configuration");
    assert!(text(config).contains("[policy]"));

    fs::write(dest.join("etc/dmremap.toml"), "mine").expect("written");
    install(&built, &dest);
    assert_eq!(text(config), "mine");
}
