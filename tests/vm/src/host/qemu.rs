//! QEMU's command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::Image;
use super::kernel::Kernel;
use crate::proto::{EXTRA, SHELL};

/// What differs between boots.
pub struct Machine<'a> {
    pub kernel: &'a Kernel,
    pub image: &'a Image,
    /// Raw files, or `nbd:unix:SOCKET[:exportname=NAME]`.
    pub drives: &'a [String],
    /// Added to the kernel's command line.
    pub append: &'a str,
}

/// Warnings are left to the judge; an oops or a panic ends the guest at once, so that nobody waits for it.
/// Console level 6 shows warnings and notices. Mitigations only cost time here. The path is the first process's.
const KERNEL: &str = "console=ttyS0,115200 loglevel=6 printk.devkmsg=on panic=-1 oops=panic mitigations=off \
    tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

impl Machine<'_> {
    /// With the console on standard output and the guest's port on a socket.
    #[must_use]
    pub fn for_cases(&self, port: &Path) -> Command {
        let mut command = self.common(self.append);
        command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        command.args(["-chardev", &format!("socket,id=port,path={}", port.display())]);
        command.args(["-serial", "chardev:port"]);
        command
    }

    /// With the terminal as the guest's console; Ctrl-A X ends it.
    #[must_use]
    pub fn for_a_person(&self) -> Command {
        let mut command = self.common(&format!("{} {SHELL}", self.append));
        command.args(["-serial", "mon:stdio", "-serial", "null"]);
        command
    }

    fn common(&self, append: &str) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"])
            .args(["-machine", self.kernel.machine()])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-device", "virtio-rng-pci", "-monitor", "none"])
            .arg("-kernel")
            .arg(&self.image.kernel)
            .arg("-initrd")
            .arg(&self.image.initramfs)
            .arg("-append")
            .arg(format!("{KERNEL} {} {append}", self.kernel.words()));
        for (index, drive) in self.drives.iter().enumerate() {
            add_disk(&mut command, drive, &format!("disk{index}"), "cache=writeback");
        }
        // Last, so that it takes no name from the disks of a case.
        if let Some(extra) = &self.image.extra {
            add_disk(&mut command, &extra.display().to_string(), EXTRA, "readonly=on");
        }
        command
    }
}

/// Requests stay what the guest has sent: of merged ones all fail with the one that touches a bad sector.
fn add_disk(command: &mut Command, drive: &str, serial: &str, how: &str) {
    command.args([
        "-drive",
        &format!("file={drive},format=raw,if=none,id={serial},{how}"),
        "-device",
        &format!("virtio-blk-pci,drive={serial},serial={serial},request-merging=off"),
    ]);
}

/// The directory for the sockets of this run: their paths must be short.
#[must_use]
pub fn sockets() -> PathBuf {
    std::env::temp_dir().join(format!("dmremap-vm-{}", std::process::id()))
}

/// The part of it for the guests of one kernel, of which one runs at a time.
pub fn socket_dir(kernel: &Kernel) -> std::io::Result<PathBuf> {
    let dir = sockets().join(&kernel.release);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
