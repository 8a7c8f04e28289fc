//! Compares the crate's numbers and layouts with the C header, by compiling static assertions.
//!
//! What the header lacks or has otherwise fails an assertion that names it; an enumerator that
//! Rust lacks is one that a `switch` over Rust's does not handle; a `#define` or struct that Rust
//! lacks is found by its line.

#[macro_use]
#[path = "src/tables.rs"]
mod tables;
#[path = "src/layout.rs"]
#[allow(dead_code)]
mod layout;
#[path = "src/linux.rs"]
#[allow(dead_code)]
mod linux;
#[path = "src/uapi.rs"]
#[allow(dead_code)]
mod uapi;

use layout::{Counters, Extent, Piece, Wire};
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::path::PathBuf;
use std::process::Command as Process;
use std::{env, error::Error, fs};

const HEADER: &str = "include/uapi/dm_remap.h";

/// The C program, and the names of the header that it compares.
struct Probe {
    source: String,
    names: BTreeSet<String>,
}

impl Probe {
    fn assert(&mut self, what: &str, rust: impl Debug, condition: &str) {
        // A fmt::Write to a String does not fail.
        let rust = format!("{rust:?}").replace('"', "");
        let _ = writeln!(
            self.source,
            "_Static_assert({condition}, \"{what}: the header differs from Rust: {rust}\");"
        );
    }

    fn number(&mut self, name: String, value: u64) {
        self.assert(&name, value, &format!("{name} == {value}ULL"));
        self.names.insert(name);
    }

    fn string(&mut self, name: &str, value: &str) {
        self.assert(name, value, &format!("!__builtin_strcmp({name}, {value:?})"));
        self.names.insert(name.into());
    }

    /// `extra`: enumerators that Rust has no use for.
    fn enumeration(&mut self, tag: &str, prefix: &str, values: &[(String, u64)], extra: &[&str]) {
        let mut cases = String::new();
        for (name, value) in values {
            let name = format!("{prefix}{name}");
            let _ = write!(cases, " case {name}:");
            self.number(name, *value);
        }
        for name in extra {
            let _ = write!(cases, " case {name}:");
        }
        let _ = writeln!(
            self.source,
            "int every_{tag}(enum {tag} e);\nint every_{tag}(enum {tag} e) {{ switch (e) \
             {{{cases} return 1; }} return 0; }}"
        );
        self.names.insert(format!("enum {tag}"));
    }

    fn structure(&mut self, tag: &str, size: usize, fields: &[(&str, usize)], pad: usize) {
        let mut offset = 0;
        for &(field, bytes) in fields.iter().chain((pad > 0).then_some(&("pad", pad))) {
            let what = format!("struct {tag}.{field}");
            let at = format!("__builtin_offsetof(struct {tag}, {field}) == {offset}");
            self.assert(&what, format_args!("offset {offset}"), &at);
            let of = format!("sizeof(((struct {tag} *)0)->{field}) == {bytes}");
            self.assert(&what, format_args!("size {bytes}"), &of);
            offset += bytes;
        }
        let what = format!("struct {tag}");
        let condition = format!("sizeof({what}) == {size}");
        self.assert(&what, format_args!("size {size}"), &condition);
        self.names.insert(what);
    }

    /// The macros, enums and structs of `header` that nothing above compared.
    fn missing(&self, header: &str) -> Vec<String> {
        let defined = header.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            match (words.next()?, words.next()?, words.next()) {
                ("#define", name, Some(_)) => Some(name.to_owned()),
                (tag @ ("enum" | "struct"), name, Some("{")) => Some(format!("{tag} {name}")),
                _ => None,
            }
        });
        defined.filter(|name| !self.names.contains(name)).collect()
    }
}

/// `PoisonData` is the header's `POISON_DATA`.
fn c_name(variant: impl Debug) -> String {
    let mut name = String::new();
    for letter in format!("{variant:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn named<T: Copy + Debug>(all: &[T], value: fn(T) -> u64) -> Vec<(String, u64)> {
    all.iter().map(|&item| (c_name(item), value(item))).collect()
}

fn probe() -> Probe {
    use uapi::*;
    let includes = ["<linux/netlink.h>", "<linux/genetlink.h>", &format!("\"{HEADER}\"")];
    let source = includes.map(|file| format!("#include {file}\n")).concat();
    let mut probe = Probe { source, names: BTreeSet::new() };
    for &(name, value) in linux::NUMBERS {
        probe.number(name.into(), value);
    }
    probe.string("DM_REMAP_GENL_NAME", GENL_NAME);
    probe.string("DM_REMAP_MCGRP_FAULTS", MCGRP_FAULTS);
    for &(name, value) in NUMBERS {
        probe.number(format!("DM_REMAP_{name}"), value);
    }
    let commands = named(Command::ALL, |item| item as u64);
    let unused = ["DM_REMAP_CMD_UNSPEC", "__DM_REMAP_CMD_MAX"];
    probe.enumeration("dm_remap_cmd", "DM_REMAP_CMD_", &commands, &unused);
    let attrs = named(Attr::ALL, |item| item as u64);
    let unused = ["DM_REMAP_A_UNSPEC", "__DM_REMAP_A_MAX"];
    probe.enumeration("dm_remap_attr", "DM_REMAP_A_", &attrs, &unused);
    let kinds = named(Kind::ALL, |item| item as u64);
    probe.enumeration("dm_remap_kind", "DM_REMAP_", &kinds, &[]);
    let states = named(FaultState::ALL, |item| item as u64);
    probe.enumeration("dm_remap_fault_state", "DM_REMAP_FAULT_", &states, &[]);
    let statuses = named(Status::ALL, |item| item as u64);
    probe.enumeration("dm_remap_status", "DM_REMAP_STATUS_", &statuses, &[]);
    let flags: Vec<_> =
        FaultFlags::ALL.iter().map(|(name, flag)| (name.to_string(), flag.0.into())).collect();
    probe.enumeration("dm_remap_fault_flags", "DM_REMAP_FAULT_F_", &flags, &[]);
    let flags: Vec<_> =
        InstanceFlags::ALL.iter().map(|(name, flag)| (name.to_string(), flag.0.into())).collect();
    probe.enumeration("dm_remap_instance_flags", "DM_REMAP_INSTANCE_F_", &flags, &[]);
    probe.structure("dm_remap_extent", Extent::SIZE, Extent::FIELDS, Extent::PAD);
    probe.structure("dm_remap_piece", Piece::SIZE, Piece::FIELDS, Piece::PAD);
    probe.structure("dm_remap_counters", Counters::SIZE, Counters::FIELDS, Counters::PAD);
    probe
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=include");
    let probe = probe();
    let missing = probe.missing(&fs::read_to_string(HEADER)?);
    if !missing.is_empty() {
        return Err(format!("{HEADER} has {missing:?}, which Rust lacks").into());
    }
    let source = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("probe.c");
    fs::write(&source, &probe.source)?;
    let mut compiler: Process = cc::Build::new().cargo_warnings(false).get_compiler().to_command();
    compiler.args(["-std=gnu11", "-fsyntax-only", "-Werror", "-Wall", "-Wswitch-enum", "-I."]);
    let output = compiler.arg(&source).output()?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(format!("the crate's numbers are not those of {HEADER}, see above").into());
    }
    Ok(())
}
