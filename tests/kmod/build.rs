//! Builds the program in `host/`: the module's own sources, unchanged, with headers and a kernel of ours, under the
//! address and undefined-behaviour sanitizers.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const INCLUDES: [&str; 4] = ["host/include", "host", "../../kmod", "../../protocol/include"];

fn sources(dir: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // The build of the module leaves one behind.
        let built = path.to_string_lossy().ends_with(".mod.c");
        if path.extension().is_some_and(|end| end == "c") && !built {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn main() -> Result<(), Box<dyn Error>> {
    for dir in ["host", "../../kmod", "../../protocol/include"] {
        println!("cargo:rerun-if-changed={dir}");
    }
    let mut build = cc::Build::new();
    build.includes(INCLUDES).define("_GNU_SOURCE", None).opt_level(1).debug(true).warnings(false);
    for flag in [
        "-std=gnu11",
        "-Wall",
        "-fsanitize=address,undefined",
        // Netlink aligns to 4 bytes; where the kernel runs on processors that care not, it does not either.
        "-fno-sanitize=alignment",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
    ] {
        build.flag(flag);
    }
    let program = Path::new(&env::var("OUT_DIR")?).join("kmod-host");
    let mut compile = build.get_compiler().to_command();
    compile.args(sources("../../kmod")?).args(sources("host")?).arg("-o").arg(&program);
    let ended = compile.output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if !ended.status.success() {
        return Err(format!("{compile:?}: {said}").into());
    }
    println!("cargo:rustc-env=KMOD_HOST={}", program.display());
    Ok(())
}
