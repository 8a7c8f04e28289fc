//! Whatever is wrong with a configuration is refused at its line with a remedy, at the start and on reload; the daemon
//! that runs goes on as before.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::case::Case;
use crate::guest::daemon::program;
use crate::guest::devices::Brd;
use crate::guest::dm::Device;
use crate::guest::scsi::ScsiDebug;
use crate::guest::served::{Served, config_path, policyd};
use crate::guest::setup::Disks;
use crate::guest::{Cmd, Ctx};

pub const CASES: &[Case] = &[
    Case::new("config.wrong-texts-are-refused", 180, wrong_texts),
    Case::new("config.wrong-paths-are-refused-on-reload", 90, wrong_paths_on_reload),
    Case::new("config.wrong-paths-keep-one-device-from-service", 180, wrong_paths_at_start),
    Case::new("config.a-right-text-is-not-refused", 90, a_right_text).must_fail("was accepted"),
];

/// What the texts below change. Its lines are counted there.
const GOOD: &str = r#"[daemon]
control_socket = "/run/vm/control.sock"
[policy]
read_retries = 5
[[device]]
name = "d1"
data = "/dev/mapper/bad"
spare = "/dev/ram1"
max_held_kib = 128
[[device]]
name = "d2"
data = "/dev/ram2"
spare = "/dev/ram3"
"#;

/// A part of the good text, what it becomes, and what is said: line and column, reason, remedy.
type Wrong = (&'static str, &'static str, &'static str, &'static str, &'static str);

const BOUNDS: &str = "choose a number within the bounds, or leave the key out for its default";
const KEYS: &str =
    "remove the key or correct it; keys belong under [daemon], [policy] or [[device]]";
const TYPES: &str =
    "texts and paths stand in quotes, numbers without; devices begin with [[device]]";
const NAMES: &str = "use 1 to 127 letters, digits or any of # + - . : = @ _";
const NEEDS: &str = "a [[device]] needs name, data and spare";
const TOML: &str = "write it as TOML: key = value, texts in quotes";
const ONE: &str = "keep one of them";
const OWN: &str = "give each device a data and a spare of its own; a partition will do for a spare";
const SOCKET: &str = "give an absolute path of at most 107 bytes, as /run/dmremap/control.sock";
const STABLE: &str = "give a stable path, as /dev/disk/by-id/...";

const KEYS_AND_TYPES: &[Wrong] = &[
    ("control_socket", "control_sock", "2:1", "unknown field `control_sock`", KEYS),
    ("read_retries", "read_retires", "4:1", "unknown field `read_retires`", KEYS),
    ("max_held_kib", "max_held_kb", "9:1", "unknown field `max_held_kb`", KEYS),
    ("name = \"d1\"", "nam = \"d1\"", "6:1", "unknown field `nam`", KEYS),
    ("[daemon]", "[deamon]", "1:2", "unknown field `deamon`", KEYS),
    ("[[device]]", "[[devices]]", "5:3", "unknown field `devices`", KEYS),
    ("[daemon]", "read_retries = 1\n[daemon]", "1:1", "unknown field `read_retries`", KEYS),
    ("\"/run/vm/control.sock\"", "1", "2:18", "invalid type: integer `1`", TYPES),
    ("= 5", "= \"5\"", "4:16", "invalid type: string \"5\"", TYPES),
    ("= 5", "= 5.0", "4:16", "invalid type: floating point `5.0`", TYPES),
    ("= 5", "= true", "4:16", "invalid type: boolean `true`", TYPES),
    ("= \"d1\"", "= 1", "6:8", "invalid type: integer `1`", TYPES),
    ("\"/dev/mapper/bad\"", "[\"/dev/ram0\"]", "7:8", "invalid type: sequence", TYPES),
    ("\"/dev/ram1\"", "1", "8:9", "invalid type: integer `1`", TYPES),
    ("= 128", "= \"128\"", "9:16", "invalid type: string \"128\"", TYPES),
    ("[policy]", "[[policy]]", "3:1", "invalid type: sequence", TYPES),
    ("name = \"d1\"\n", "", "5:1", "missing field `name`", NEEDS),
    ("data = \"/dev/mapper/bad\"\n", "", "5:1", "missing field `data`", NEEDS),
    ("spare = \"/dev/ram1\"\n", "", "5:1", "missing field `spare`", NEEDS),
    ("[daemon]", "[daemon", "1:8", "unclosed table", TOML),
    ("= 5", "=", "4:15", "", TOML),
    ("= \"d1\"", "= d1", "6:8", "", TOML),
    ("= \"d1\"", "= \"d1", "6:11", "", TOML),
];

const VALUES: &[Wrong] = &[
    ("= 5", "= 101", "4:1", "read_retries is 101: want 0 to 100", BOUNDS),
    ("= 5", "= -1", "4:16", "invalid value: integer `-1`", BOUNDS),
    ("= 5", "= 5000000000", "4:16", "invalid value: integer `5000000000`", BOUNDS),
    ("= 5", "= 5\nplace_attempts = 0", "5:1", "place_attempts is 0: want 1 to 100", BOUNDS),
    ("= 5", "= 5\nbreaker_pause = 9", "5:1", "breaker_pause is 9: want 10 to 3600000", BOUNDS),
    ("= 5", "= 5\nspare_low_percent = 101", "5:1", "spare_low_percent is 101: want 0", BOUNDS),
    ("= 5", "= 5\nbreaker_faults = 0", "5:1", "breaker_faults is 0: want 1 to 1000000", BOUNDS),
    ("= 5", "= 5\nbreaker_window = 0", "5:1", "breaker_window is 0: want 1 to 86400", BOUNDS),
    ("= 128", "= 1\nready_deadline_ms = 0", "10:21", "0 is not a number from 1 to 119000", BOUNDS),
    ("= 128", "= 1\nmax_held_bios = 65537", "10:17", "65537 is not a number from 1", BOUNDS),
    ("= 128", "= 0", "9:16", "0 is not a number from 1 to 4194304", BOUNDS),
    ("= 128", "= 1\nhold_deadline_ms = 119001", "10:20", "119001 is not a number from", BOUNDS),
    ("\"d1\"", "\"\"", "6:8", "\"\" cannot name a device: it is empty", NAMES),
    ("\"d1\"", "\"control\"", "6:8", "\"control\" cannot name a device: it is reserved", NAMES),
    ("\"d1\"", "\"d/1\"", "6:8", "it holds a character that is not allowed", NAMES),
    ("\"/run/vm/control.sock\"", "\"c.sock\"", "2:1", "c.sock is no place for a socket", SOCKET),
    ("\"/dev/mapper/bad\"", "\"ram0\"", "7:8", "data is not an absolute path", STABLE),
    ("\"/dev/ram1\"", "\"\"", "8:9", "spare is not an absolute path", STABLE),
    ("= 5", "= 5\nread_retries = 6", "5:1", "duplicate key", ONE),
    ("\"d1\"", "\"d1\"\nname = \"d3\"", "7:1", "duplicate key", ONE),
    ("[policy]", "[daemon]", "3:2", "duplicate key", ONE),
    ("d2", "d1", "11:8", "name \"d1\" is already on line 6", "give each device a name of its own"),
    ("ram2", "mapper/bad", "12:8", "/dev/mapper/bad is already the data of \"d1\"", OWN),
    ("ram3", "ram1", "13:9", "/dev/ram1 is already the spare of \"d1\"", OWN),
    ("ram2", "ram1", "12:8", "/dev/ram1 is already the spare of \"d1\"", OWN),
    ("ram3", "mapper/bad", "13:9", "/dev/mapper/bad is already the data of \"d1\"", OWN),
    ("ram1", "mapper/bad", "8:9", "/dev/mapper/bad is already the data of \"d1\"", OWN),
];

const SOUND: &[Wrong] = &[("= 5", "= 6", "4:1", "", "")];

fn changed(from: &str, to: &str) -> Result<String> {
    ensure!(GOOD.contains(from), "{from} is not in the good text");
    Ok(GOOD.replacen(from, to, 1))
}

/// For both devices.
fn disks() -> Result<Disks> {
    Disks::two_formatted(4, &[100, 200])
}

/// Both devices of the good text.
fn serve() -> Result<Served> {
    fs::write(config_path(), GOOD)?;
    Served::start()
}

/// What may not change by a reload that is refused: the devices, their tables, and the policy in force.
fn in_force() -> Result<(Vec<Value>, String)> {
    let text = policyd(&["status", "--json"])?.end()?.stdout;
    let devices = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).context("a line of `status`")?;
        Ok(serde_json::json!({
            "name": value["name"], "phase": value["phase"], "policy": value["policy"],
            "kernel": value["kernel"]["instance"], "commit": value["commit"],
        }))
    });
    let tables = Cmd::new("dmsetup").arg("table").env("DM_DISABLE_UDEV", "1").run()?;
    Ok((devices.collect::<Result<_>>()?, tables))
}

/// Says how a text was refused. The command reads the file before the daemon does; the daemon itself is asked too.
fn reload_is_refused(text: &str) -> Result<[String; 2]> {
    fs::write(config_path(), text)?;
    let asked = policyd(&["reload"])?.end()?;
    ensure!(asked.status.code() == Some(1), "reload: {}: the text was accepted", asked.status);
    Ok([asked.stderr, daemon_refuses()?])
}

/// What the daemon itself says to what is in the file now.
pub(super) fn daemon_refuses() -> Result<String> {
    let mut socket = UnixStream::connect("/run/vm/control.sock").context("the daemon's socket")?;
    socket.write_all(b"{\"request\":\"reload\"}\n")?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    let answer: Value = serde_json::from_str(&line)?;
    let said =
        answer["error"].as_str().with_context(|| format!("{line}: the text was accepted"))?;
    Ok(said.to_owned())
}

fn expect_words(said: &str, place: &str, reason: &str, remedy: &str) -> Result<()> {
    let place = format!("{}:{place}: ", config_path().display());
    ensure!(
        said.contains(&place) && said.contains(reason) && said.contains(&format!("= {remedy}")),
        "should say {place}{reason}, and {remedy}: {said}"
    );
    Ok(())
}

fn refused_at_start_and_on_reload(wrong: &[Wrong]) -> Result<()> {
    let disks = disks()?;
    let served = serve()?;
    served.disk()?.fill(100, 1, 1)?;
    let before = in_force()?;
    for &(from, to, place, reason, remedy) in wrong {
        let state = || format!("{from:?} as {to:?}");
        let text = changed(from, to)?;
        for said in reload_is_refused(&text).with_context(state)? {
            ensure!(said.contains("nothing was changed: "), "{}: {said}", state());
            expect_words(&said, place, reason, remedy).with_context(state)?;
        }
        let program = program()?.display().to_string();
        let config = config_path().display().to_string();
        let started = Cmd::new(&program).args(["--config", &config]).end()?;
        ensure!(started.status.code() == Some(1), "{}: {}", state(), started.status);
        expect_words(&started.stderr, place, reason, remedy).with_context(state)?;
    }
    // `status` looks in the file for the daemon's socket.
    fs::write(config_path(), GOOD)?;
    ensure!(in_force()? == before, "{:?}, and was {before:?}", in_force()?);
    served.disk()?.verify(100, 1, 1)?;
    served.disk()?.fill(200, 1, 2)?;
    served.down()?;
    disks.remove()
}

fn wrong_texts(_: &mut Ctx) -> Result<()> {
    refused_at_start_and_on_reload(&[KEYS_AND_TYPES, VALUES].concat())
}

fn a_right_text(_: &mut Ctx) -> Result<()> {
    refused_at_start_and_on_reload(SOUND)
}

const THERE: &str = "attach the disk or correct the path; `lsblk` lists what is there";
const LIES: &str =
    "give each device a data and a spare of its own; `lsblk` shows what lies on what";

/// Only the machine knows what is wrong with these.
const PATHS: &[Wrong] = &[
    ("/dev/ram2", "/dev/nowhere", "12:8", "data /dev/nowhere: No such file or directory", THERE),
    ("/dev/ram3", "/dev/null", "13:9", "spare /dev/null: it is not a block device", THERE),
    ("/dev/ram3", "/etc", "13:9", "spare /etc: it is not a block device", THERE),
    ("/dev/ram3", "/run/vm/alias", "13:9", "/run/vm/alias is already the spare of \"d1\"", OWN),
    (
        "/dev/ram2",
        "/dev/mapper/over",
        "12:8",
        "/dev/mapper/over and the spare of \"d1\" overlap: the one lies on the other",
        LIES,
    ),
    (
        "/dev/ram2",
        "/dev/ram0",
        "12:8",
        "/dev/ram0 and the data of \"d1\" overlap: the one lies on the other",
        LIES,
    ),
    (
        "data = \"/dev/ram2\"\nspare = \"/dev/ram3\"",
        "data = \"/dev/sda\"\nspare = \"/dev/sda1\"",
        "13:9",
        "/dev/sda1 and the data of \"d2\" overlap: the one lies on the other",
        LIES,
    ),
];

const ALIAS: &str = "/run/vm/alias";

/// An alias of a spare, a mapped device over it, and a disk with a partition.
struct Odd {
    _over: Device,
    _scsi: ScsiDebug,
}

impl Odd {
    fn new(brd: &Brd) -> Result<Self> {
        let spare = brd.path(1).display().to_string();
        symlink(&spare, ALIAS)?;
        let over = Device::create("over", &format!("0 2048 linear {spare} 1024\n"))?;
        let scsi = ScsiDebug::load(16, &["num_parts=1"])?;
        ensure!(scsi.disk(0)? == Path::new("/dev/sda"), "{}", scsi.disk(0)?.display());
        Ok(Self { _over: over, _scsi: scsi })
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        // It lies in memory, and the next case would say so.
        let _ = fs::remove_file(ALIAS);
    }
}

fn wrong_paths_on_reload(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let odd = Odd::new(&disks.brd)?;
    fs::write(config_path(), GOOD.split_inclusive("= 128\n").next().unwrap_or(GOOD))?;
    let served = Served::start()?;
    let before = in_force()?;
    for &(from, to, place, reason, remedy) in PATHS {
        let state = || format!("{from:?} as {to:?}");
        // A policy that would be applied, were it not for the path.
        let text = changed(from, to)?.replacen("= 5", "= 6", 1);
        for said in reload_is_refused(&text).with_context(state)? {
            ensure!(said.contains("nothing was changed: "), "{}: {said}", state());
            expect_words(&said, place, reason, remedy).with_context(state)?;
        }
        ensure!(in_force()? == before, "{}: {:?}, and was {before:?}", state(), in_force()?);
    }
    served.down()?;
    drop(odd);
    disks.remove()
}

/// The device whose path is wrong is not served, and the other one is.
fn wrong_paths_at_start(_: &mut Ctx) -> Result<()> {
    let disks = disks()?;
    let odd = Odd::new(&disks.brd)?;
    for &(from, to, place, reason, remedy) in PATHS {
        let state = || format!("{from:?} as {to:?}");
        fs::write(config_path(), changed(from, to)?)?;
        let served = Served::start_first(1).with_context(state)?;
        let said = policyd(&["status"])?.end()?;
        ensure!(said.status.code() == Some(1), "{}: status: {}", state(), said.status);
        ensure!(said.stdout.contains("d2: not served: "), "{}: {}", state(), said.stdout);
        expect_words(&said.stdout, place, reason, remedy).with_context(state)?;
        served.disk()?.fill(100, 1, 1)?;
        served.disk()?.verify(100, 1, 1)?;
        served.down()?;
    }
    drop(odd);
    disks.remove()
}
