//! The guest's first process, and each case's process.

use anyhow::{Result, bail};
use dmremap_vm::{cases, guest::init};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        _ if std::process::id() == 1 => init::main(),
        ["case", name] => init::case_process(name, 0, 1),
        ["case", name, phase, seed] => init::case_process(name, phase.parse()?, seed.parse()?),
        ["list"] => {
            cases::all().for_each(|case| println!("{}", case.name));
            Ok(())
        }
        _ => bail!("guest list | guest case NAME [PHASE SEED]"),
    }
}
