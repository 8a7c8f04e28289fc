//! `vm KERNEL_RELEASE INITRAMFS LOG_DIR CASE...`: boots the kernel, runs the cases, judges them.

use std::fs::{self, File};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dmremap_vm::judge::judge;

const LIMIT: Duration = Duration::from_secs(300);

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [release, initramfs, logs, cases @ ..] = args.as_slice() else {
        bail!("usage: vm KERNEL_RELEASE INITRAMFS LOG_DIR CASE...");
    };
    fs::create_dir_all(logs)?;
    let console = format!("{logs}/{release}-console.log");
    let report = format!("{logs}/{release}-report.log");
    File::create(&report)?;
    let begun = Instant::now();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768"])
        .args(["-display", "none", "-no-reboot", "-nodefaults"])
        .args(["-kernel", &format!("/boot/vmlinuz-{release}"), "-initrd", initramfs])
        .args(["-append", &format!("console=ttyS0 panic=-1 cases={}", cases.join(","))])
        .args(["-serial", &format!("file:{console}"), "-serial", &format!("file:{report}")])
        .stdin(Stdio::null())
        .spawn()
        .context("qemu-system-x86_64; `make deps` installs it")?;
    let mut late = false;
    while qemu.try_wait()?.is_none() {
        if begun.elapsed() > LIMIT {
            late = true;
            qemu.kill()?;
            qemu.wait()?;
            break;
        }
        sleep(Duration::from_millis(100));
    }
    let read = |path: &str| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
    let mut verdict = judge(cases, &read(&report)?, &read(&console)?);
    if late {
        verdict.failed.push(("boot".to_owned(), format!("not done after {LIMIT:?}")));
    }
    for name in &verdict.passed {
        println!("{release} {name} PASS");
    }
    for (name, reason) in &verdict.failed {
        println!("{release} {name} {reason} (see {console})");
    }
    println!("{release}: {} s", begun.elapsed().as_secs());
    println!("{} passed, {} failed", verdict.passed.len(), verdict.failed.len());
    Ok(ExitCode::from(u8::from(!verdict.failed.is_empty())))
}
