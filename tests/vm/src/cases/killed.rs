//! The daemon killed with -9 at every step of a commit and at any moment, and started again: no error reaches a
//! writer, and nothing acknowledged is lost.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::case::Case;
use crate::guest::dm::Device;
use crate::guest::load::{self, Acknowledged, Load, Random, Runs};
use crate::guest::owner::{Fence, Owner};
use crate::guest::served::{NAME, Served, config_path};
use crate::guest::setup::Setup;
use crate::guest::spare;
use crate::guest::tracer::{Point, Tracer};
use crate::guest::{Ctx, Disk, daemon::Daemon, wait_until};

pub const CASES: &[Case] = &[
    Case::new("killed.at-each-point-of-a-commit", 400, at_each_point),
    Case::new("killed.at-random-moments", 400, at_random_moments),
    Case::new("killed.a-pinned-fence-meets-its-new-owner", 200, pinned),
    Case::new("killed.a-lost-write-is-seen", 90, a_lost_write).must_fail("not version"),
];

const PATIENCE: Duration = Duration::from_secs(60);
/// The restarts are well within it.
const DEADLINE: &str = "hold_deadline_ms = 110000";

fn runs() -> Runs {
    load::runs(2000, 1250, 101)
}

fn setup() -> Result<Setup> {
    Setup::new(64, &load::sectors(&runs()), DEADLINE)
}

/// Nothing is lost: not while the instance lives, and not for one that is made anew from the spare.
fn check(setup: Setup, acknowledged: &Acknowledged) -> Result<()> {
    // Dropped in the reverse order.
    let Setup { disks, served } = setup;
    load::verify(&served.disk()?, acknowledged).context("from the instance")?;
    ensure!(Owner::onlooker()?.fences()?.is_empty(), "fences are left: {}", served.status()?);
    let bad = load::sectors(&runs());
    let wanted: Vec<u64> =
        bad.into_iter().filter(|sector| acknowledged.contains_key(sector)).collect();
    let mapped = load::sectors(&served.listed("mapped")?);
    ensure!(mapped == wanted, "mapped: {mapped:?}, and should be {wanted:?}");
    served.down()?;

    spare::is_clean(&disks.spare())?;
    let served = Served::start()?;
    load::verify(&served.disk()?, acknowledged).context("from the spare")?;
    served.down()?;
    disks.remove()
}

/// Three times each.
fn at_each_point(ctx: &mut Ctx) -> Result<()> {
    let mut setup = setup()?;
    let load = Load::start(&setup.served.path(), &runs(), ctx.seed)?;
    for point in [Point::ALL; 3].into_iter().flatten() {
        load.progress(8, PATIENCE)?;
        let (pid, spare) = (setup.served.daemon.pid(), setup.spare());
        let tracer = Tracer::attach(pid, &spare, Some(point))?;
        let seen = tracer.wait(PATIENCE).with_context(|| format!("{point:?}"))?.kill()?;
        ensure!(seen.contains(&point), "killed elsewhere than at {point:?}: {seen:?}");
        setup.served.kill()?;
        let fences = Owner::onlooker()?.fences()?;
        let pinned = fences.iter().filter(|fence| fence.pinned && fence.placed).count();
        ensure!(
            pinned > 0 || point == Point::Installed,
            "no fence is pinned at {point:?}: {fences:?}"
        );
        setup.served.again()?;
    }
    let acknowledged = load.stop()?;
    ctx.note(format!("{} sectors acknowledged", acknowledged.len()))?;
    check(setup, &acknowledged)
}

/// Every other time the daemon is killed while it starts, takes over what the last one left, or has hardly begun; every
/// fourth time as soon as a fault is open.
fn at_random_moments(ctx: &mut Ctx) -> Result<()> {
    let mut setup = setup()?;
    let mut random = Random::new(ctx.seed);
    let load = Load::start(&setup.served.path(), &runs(), ctx.seed)?;
    let mut in_the_middle = 0;
    for round in 0..20 {
        let early = round % 2 == 1;
        if early {
            setup.served.daemon = Daemon::start(config_path())?;
        } else {
            setup.served.again()?;
            load.progress(8, PATIENCE)?;
        }
        thread::sleep(Duration::from_micros(random.below(if early { 1_000_000 } else { 200_000 })));
        let mut open = Owner::onlooker()?.fences()?;
        if round % 4 == 0 {
            wait_until("a fault", PATIENCE, || {
                open = Owner::onlooker()?.fences()?;
                Ok(!open.is_empty())
            })?;
        }
        setup.served.kill()?;
        // Its own, and not met since by a daemon that is there no more.
        let left = Owner::onlooker()?.fences()?;
        let survives = |fence: &Fence| left.iter().any(|other| other.start == fence.start);
        in_the_middle += usize::from(!early && open.iter().any(survives));
    }
    setup.served.again()?;
    load.progress(8, PATIENCE)?;
    let acknowledged = load.stop()?;
    ctx.note(format!(
        "{} sectors acknowledged; {in_the_middle} of 10 kills of a daemon at work fell on an open fault",
        acknowledged.len()
    ))?;
    ensure!(in_the_middle >= 3, "only {in_the_middle} of 10 kills fell on an open fault");
    check(setup, &acknowledged)
}

/// A single write, held while its daemon dies. What no commit names is released and then served like any other; what may
/// be durable is installed.
fn pinned(ctx: &mut Ctx) -> Result<()> {
    let mut setup = setup()?;
    let disk = setup.served.disk()?;
    let mut acknowledged = Acknowledged::new();
    let starts: Vec<u64> = runs().into_iter().map(|(start, _)| start).collect();
    for (point, start) in Point::ALL.into_iter().zip(starts) {
        let before = Owner::onlooker()?.counters()?;
        one_write(&mut setup, &disk, start, point).with_context(|| format!("{point:?}"))?;
        acknowledged.insert(start, 1);
        let after = Owner::onlooker()?.counters()?;
        let news = [
            after.faults - before.faults,
            after.releases - before.releases,
            after.installs - before.installs,
        ];
        let released = point < Point::HalfSubmitted;
        let wanted = if released { [2, 1, 1] } else { [1, 0, 1] };
        ensure!(
            news == wanted,
            "{point:?}: {news:?} faults, releases, installs, and not {wanted:?}"
        );
        ctx.note(format!(
            "killed at {point:?}: {}",
            if released { "released" } else { "installed" }
        ))?;
    }
    drop(disk);
    check(setup, &acknowledged)
}

fn one_write(setup: &mut Setup, disk: &Disk, sector: u64, point: Point) -> Result<()> {
    let (pid, spare) = (setup.served.daemon.pid(), setup.spare());
    let tracer = Tracer::attach(pid, &spare, Some(point))?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| disk.fill(sector, 1, 1));
        let tracer = tracer.wait(PATIENCE)?;
        let pinned = Fence { start: sector, len: 1, placed: true, held: true, pinned: true };
        let wanted = if point == Point::Installed { vec![] } else { vec![pinned] };
        // The thread that answers `status` is the one that sends INSTALL.
        if point < Point::Committed {
            let step = if point < Point::HalfSubmitted { "flushing" } else { "committing" };
            let line = format!(": 1 sectors at {sector}: {step}, pinned");
            let status = setup.served.status()?;
            ensure!(status.contains(&line), "no {line:?} in {status}");
        }
        let seen = tracer.kill()?;
        let steps: Vec<Point> = Point::ALL.into_iter().take_while(|step| *step <= point).collect();
        ensure!(seen == steps, "its steps: {seen:?}");
        setup.served.kill()?;
        let fences = Owner::onlooker()?.fences()?;
        ensure!(fences == wanted, "without a daemon: {fences:?}");
        let status = Device::shared(NAME).remap_status()?;
        let held = wanted.len() as u64;
        ensure!(
            status.words.starts_with("ready no-owner ")
                && [status.faults, status.held, status.held_sectors] == [held; 3],
            "{status:?}"
        );
        setup.served.again()?;
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    disk.verify(sector, 1, 1)
}

/// One slot of one mapping is overwritten behind the daemon's back.
fn a_lost_write(ctx: &mut Ctx) -> Result<()> {
    let setup = setup()?;
    let load = Load::start(&setup.served.path(), &runs(), ctx.seed)?;
    load.progress(50, PATIENCE)?;
    let acknowledged = load.stop()?;
    let slot = setup.served.slot_of(|_| true)?;
    Disk::open(setup.spare())?.fill(slot, 1, 0)?;
    check(setup, &acknowledged)
}
