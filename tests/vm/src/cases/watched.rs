//! What can be seen of the daemon from outside: by a service manager, an operator, and the kernel.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::daemon::Daemon;
use crate::guest::dm::Device;
use crate::guest::kernel::{scaled, slowness};
use crate::guest::manager::{self, Manager, now};
use crate::guest::served::{self, NAME, config_path, policyd};
use crate::guest::setup::{Disks, Setup};
use crate::guest::tracer::{Point, Tracer};
use crate::guest::{Ctx, modprobe, wait_until};

pub const CASES: &[Case] = &[
    Case::new("daemon.tells-its-service-manager", 120, tells_its_service_manager),
    Case::new("daemon.status-and-list-tell-all", 120, status_and_list),
];

const PATIENCE: Duration = Duration::from_secs(60);

fn tells_its_service_manager(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new(16, &[100])?;
    served::format(disks.bad.path(), &disks.spare())?;
    served::configure(disks.bad.path(), &disks.spare(), "")?;
    modprobe("dm-mod", &[])?;
    let manager = Manager::new()?;
    let env = [("NOTIFY_SOCKET", manager::SOCKET), ("WATCHDOG_USEC", "100000")];
    let mut daemon = Daemon::start_in_env(config_path(), &env)?;
    let said = manager.news()?;
    ensure!(said == "READY=1", "{said:?} first");
    // Who is ordered after it may use the device at once, unless starts take longer than the daemon waits for disks.
    let device = Device::existing(NAME);
    if slowness() > 1 {
        wait_until("the start", PATIENCE, || {
            Ok(device.remap_status().is_ok_and(|status| status.words.starts_with("ready owned ")))
        })?;
    }
    let status = device.remap_status()?;
    ensure!(status.words.starts_with("ready owned "), "{status:?}");

    // It wants to hear something twice in 100 ms; without a watchdog it would in 5 s.
    let (begun, mut alive) = (Instant::now(), 0);
    while begun.elapsed() < scaled(Duration::from_secs(2)) {
        let said = manager.next()?;
        ensure!(said == "WATCHDOG=1", "{said:?} unasked");
        alive += 1;
    }
    ensure!(alive > 4, "alive {alive} times in 2 s");

    let begun = now()?;
    policyd(&["reload"])?.run()?;
    manager.hears_a_reload(begun)?;
    // Refused by the daemon, not by the command.
    let begun = now()?;
    served::configure(&disks.brd.path(1), disks.bad.path(), "")?;
    ensure!(!policyd(&["reload"])?.end()?.status.success(), "a served device changed its disks");
    manager.hears_a_reload(begun)?;
    daemon.stop(PATIENCE)?;
    let said = manager.news()?;
    ensure!(said == "STOPPING=1", "{said:?} at the end");
    device.remove()?;
    disks.remove()
}

const TRACING: &str = "/sys/kernel/tracing";

/// The module's tracepoints are on while this lives.
struct States;

impl States {
    fn watch() -> Result<Self> {
        fs::write(format!("{TRACING}/trace"), "")?;
        fs::write(format!("{TRACING}/tracing_on"), "1")?;
        fs::write(format!("{TRACING}/events/dm_remap/enable"), "1").context("the tracepoints")?;
        Ok(Self)
    }

    /// What the faults of these sectors have come to, in order.
    fn of(&self, sectors: &str) -> Result<Vec<String>> {
        let text = fs::read_to_string(format!("{TRACING}/trace"))?;
        let words = format!(" sectors {sectors} ");
        let lines = text.lines().filter(|line| line.contains("dm_remap_fault: "));
        Ok(lines.filter_map(|line| Some(line.split_once(&words)?.1.to_owned())).collect())
    }
}

impl Drop for States {
    fn drop(&mut self) {
        // They only cost time when they stay on.
        let _ = fs::write(format!("{TRACING}/events/dm_remap/enable"), "0");
    }
}

/// One mapping, one poisoned sector, and a write that is held while its slot is being flushed.
fn status_and_list(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new(16, &[100, 200, 300], "")?;
    let disk = setup.served.disk()?;
    disk.fill(100, 1, 1)?;
    ensure!(disk.read(200, 1).is_err(), "bytes that nobody wrote");
    let states = States::watch()?;
    let tracer = Tracer::attach(setup.served.daemon.pid(), &setup.spare(), Some(Point::Placed))?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| disk.fill(300, 1, 1));
        let tracer = tracer.wait(PATIENCE)?;
        let told = told(&setup);
        tracer.go_on()?;
        told?;
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    let states = states.of("300+1")?;
    let wanted = ["open", "busy", "tried", "busy", "placed", "installed"];
    ensure!(states == wanted, "states of the fault: {states:?}");
    drop(disk);
    setup.down()
}

fn told(setup: &Setup) -> Result<()> {
    let status: Value = serde_json::from_str(&policyd(&["status", "--json"])?.run()?)?;
    let listed = policyd(&["list", NAME, "--json"])?.run()?;
    let listed: Vec<Value> = listed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let [mapped, poisoned] = &listed[..] else { bail!("not two extents: {listed:?}") };
    let slot = &mapped["kind"]["mapped"];
    ensure!(
        slot.is_u64() && *mapped == json!({ "start": 100, "len": 1, "kind": { "mapped": slot } })
    );
    ensure!(*poisoned == json!({ "start": 200, "len": 1, "kind": "poison-data" }), "{poisoned}");
    let list = policyd(&["list", NAME])?.run()?;
    let words: Vec<&str> = list.split_whitespace().collect();
    let slot = slot.to_string();
    ensure!(words == ["100", "1", "mapped", &slot, "200", "1", "poison-data", "-"], "{list}");

    // What differs from one run to the next.
    let (kernel, total) = (&status["kernel"], &status["spare"]["total"]);
    let deadline = &status["faults"][0]["deadline"];
    ensure!(deadline["secs"].as_u64().is_some_and(|secs| secs >= 60), "deadline: {deadline}");
    let at = |note: usize| &status["notes"][note]["at"];
    ensure!(at(2)["secs"].is_u64() && at(2)["nanos"].is_u64(), "{}", status["notes"]);
    ensure!([&kernel["owner"], &kernel["generation"], total].iter().all(|n| n.as_u64() > Some(0)));
    let notes = [
        json!({ "claimed": { "commit": 0 } }),
        json!({ "committed": mapped }),
        json!({ "committed": poisoned }),
    ];
    let flags = ["ready", "queue-if-no-daemon"];
    let wanted = json!({
        "name": NAME, "phase": "serving", "commit": 2, "commit_unknown": false,
        "breaker_open": false, "extents": 2, "mapped": 1, "poisoned": 1,
        "spare": { "used": 16, "total": total }, "alarms": {},
        "faults": [{
            "id": 3, "start": 300, "len": 1, "step": "flushing", "deadline": deadline,
            "flags": { "write": true, "held": true, "pinned": true, "fence": false, "heal": false },
        }],
        "counters": {
            "faults": 3, "mapped": 1, "poisoned": 1, "released": 0, "failed": 0, "commits": 2,
            "commits_unknown": 0, "slots_retired": 0, "places_voided": 0,
        },
        "policy": {
            "read_retries": 3, "place_attempts": 4, "breaker_faults": 64, "breaker_window": 60,
            "breaker_pause": 1000, "spare_low_percent": 10,
        },
        "notes": [
            { "at": at(0), "what": notes[0] },
            { "at": at(1), "what": notes[1] },
            { "at": at(2), "what": notes[2] },
        ],
        "kernel": {
            "instance": kernel["instance"], "owner": kernel["owner"], "sectors": 16 * 2048, "block": 1,
            "flags": flags, "generation": kernel["generation"], "commit": 2,
            "counters": {
                "faults": 3, "installs": 2, "releases": 0, "fails": 0, "expired": 0, "refused": 0,
                "unowned": 0, "passed": 0, "redone": 0, "poison-reads": 1, "held-bios": 1,
                "held-sectors": 1, "open-faults": 1, "extents": 2, "data-flush-fails": 0,
                "spare-flush-fails": 0, "spare-flush-errors": 0,
            },
        },
    });
    ensure!(status == wanted, "{status}\nand should be\n{wanted}");

    let secs = |note: usize| &at(note)["secs"];
    let wanted = format!(
        "{NAME}: serving\n  2 extents: 1 sectors mapped, 1 poisoned; spare 16 of {total} sectors used; \
         commit 2\n  1 bios held; 3 faults, 0 expired, 0 passed up, 0 refused\n  kernel: {}\n  fence 3: \
         1 sectors at 300: flushing, pinned\n  {} s: {}\n  {} s: {}\n  {} s: {}\n",
        flags.join(", "),
        secs(0),
        notes[0],
        secs(1),
        notes[1],
        secs(2),
        notes[2],
    );
    let text = setup.served.status()?;
    ensure!(text == wanted, "{text}\nand should be\n{wanted}");
    Ok(())
}
