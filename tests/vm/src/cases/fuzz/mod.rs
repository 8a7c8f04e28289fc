//! Random and mutated messages: the kernel accepts exactly what an independent model of the protocol accepts, and its
//! table is that model's. Without CAP_SYS_ADMIN nothing is answered at all.

mod model;
mod wire;

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use nix::libc::EPERM;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::os::fd::AsRawFd;

use crate::case::Case;
use crate::guest::Ctx;
use crate::guest::devices::Brd;
use crate::guest::dm::Device;
use crate::guest::owner::Owner;
use model::{Model, SECTORS, SLOT_SECTORS, SLOT_START, UNIT};
use wire::{attr, command, kind};

pub const CASES: &[Case] = &[
    Case::new("fuzz.a-hundred-thousand-messages", 300, messages),
    Case::new("fuzz.a-wrong-model-is-noticed", 60, wrong_model).must_fail("the kernel says"),
    Case::new("fuzz.nothing-without-cap-sys-admin", 30, no_capability),
];

const MESSAGES: u32 = 100_000;
/// Where ranges lie mostly, so that they meet.
const BUSY: u64 = 2048;

/// A device on two RAM disks; taken down in this order.
struct Setup {
    owner: Owner,
    _device: Device,
    _brd: Brd,
}

fn setup() -> Result<Setup> {
    let brd = Brd::load(2, (SECTORS / 2048) as u32)?;
    let device = Device::remap("d", &brd.path(0), &brd.path(1), "")?;
    let mut owner = Owner::new()?;
    owner.start(SLOT_START, SLOT_SECTORS)?;
    Ok(Setup { owner, _device: device, _brd: brd })
}

fn messages(ctx: &mut Ctx) -> Result<()> {
    let accepted = run(&mut setup()?.owner, ctx.seed, MESSAGES, |model| model)?;
    ctx.note(format!("{accepted} of {MESSAGES} messages were right, by both accounts"))?;
    // Otherwise only refusals were compared.
    ensure!(accepted > MESSAGES / 20, "only {accepted} messages were right");
    Ok(())
}

/// The control: a model that forgets the last commit cannot follow.
fn wrong_model(ctx: &mut Ctx) -> Result<()> {
    run(&mut setup()?.owner, ctx.seed, 20_000, |mut model| {
        model.commit = 0;
        model
    })
    .map(drop)
}

fn run(owner: &mut Owner, seed: u64, count: u32, disturb: impl Fn(Model) -> Model) -> Result<u32> {
    let mut rng = Rng::with_seed(seed);
    let mut model = Model::new(owner.instance());
    let mut accepted = 0;
    for n in 0..count {
        let (cmd, mut bytes) = message(&mut rng, &model);
        if rng.bool() {
            mutate(&mut rng, &mut bytes);
        }
        model = disturb(model);
        let expected = wire::decode(&bytes).is_some_and(|attrs| model.command(cmd, &attrs));
        let answer = owner.ask(cmd, false, &bytes);
        accepted += u32::from(expected);
        ensure!(
            answer.is_ok() == expected,
            "message {n} of seed {seed}, command {cmd}, {bytes:02x?}: the kernel says {answer:?}, the model {expected}"
        );
        if n % 2000 == 0 || n + 1 == count {
            compare(owner, &model).with_context(|| format!("after message {n} of seed {seed}"))?;
        }
    }
    Ok(accepted)
}

fn compare(owner: &mut Owner, model: &Model) -> Result<()> {
    let mut expected = model.extents();
    expected.extend(model.retired().into_iter().map(|(slot, len)| (0, slot, len, 4)));
    let entries = owner.entries()?;
    let differs = entries.iter().zip(&expected).find(|(found, expected)| found != expected);
    ensure!(differs.is_none() && entries.len() == expected.len(), "the table differs: {differs:?}");
    let fences: Vec<_> = model.fences().collect();
    ensure!(owner.faults()? == fences, "the fences differ");
    Ok(())
}

/// A message that is right more often than not.
fn message(rng: &mut Rng, model: &Model) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    wire::put(&mut out, attr::INSTANCE, &model.instance.to_ne_bytes());
    let number = |out: &mut Vec<u8>, name, value: u64| wire::put(out, name, &value.to_ne_bytes());
    let fences: Vec<_> = model.fences().collect();
    let (placed, open): (Vec<_>, Vec<_>) = fences.iter().partition(|fence| fence.3);
    let any = |rng: &mut Rng, from: &[&(u64, u64, u64, bool)]| match from.len() {
        0 => (rng.u64(0..9), 0, 8, false),
        n => *from[rng.usize(..n)],
    };
    let cmd = match rng.u8(..100) {
        0..20 => {
            number(&mut out, attr::START, rng.u64(..BUSY));
            number(&mut out, attr::LEN, rng.u64(1..32));
            command::FENCE
        }
        20..55 => {
            let fence = any(rng, &open);
            number(&mut out, attr::FAULT_ID, fence.0);
            let pieces = pieces(rng, model, fence.1, fence.2);
            wire::put(&mut out, attr::PIECES, &pieces);
            command::PLACE
        }
        55..75 => {
            let ids = (0..rng.usize(1..4)).flat_map(|_| any(rng, &placed).0.to_ne_bytes());
            let ids: Vec<u8> = ids.collect();
            let commit = model.commit + rng.u64(..3);
            number(&mut out, attr::COMMIT, commit.saturating_sub(u64::from(rng.u8(..9) == 0)));
            wire::put(&mut out, attr::FAULT_IDS, &ids);
            command::INSTALL
        }
        75..88 => {
            let from: Vec<_> = fences.iter().collect();
            number(&mut out, attr::FAULT_ID, any(rng, &from).0);
            if rng.u8(..8) == 0 { command::FAIL } else { command::RELEASE }
        }
        88..92 => {
            number(&mut out, attr::SLOT_START, SLOT_START);
            number(&mut out, attr::SLOT_SECTORS, SLOT_SECTORS);
            wire::put(&mut out, attr::SLOT_UNIT, &(UNIT as u32).to_ne_bytes());
            number(&mut out, attr::COMMIT, model.commit);
            command::CLAIM
        }
        92..94 => {
            wire::put(&mut out, attr::EXTENTS, &[0; 24]);
            command::LOAD
        }
        94..96 => command::READY,
        96..98 => command::FLUSH_FAILED,
        98 => command::TRY,
        _ => rng.u8(..),
    };
    (cmd, out)
}

fn pieces(rng: &mut Rng, model: &Model, start: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    for _ in 0..rng.u8(..4) {
        let offset = at + rng.u64(..4);
        let part = rng.u64(1..10).min(len.saturating_sub(offset).max(1));
        let (kind, slot, part) = match (rng.u8(..10), model.extent_at(start + offset)) {
            (0..=2, Some((slot, whole, kind::MAPPED))) => (kind::POISON_SLOT, slot, whole),
            (0 | 1, _) => (kind::POISON_DATA, 0, part),
            (2 | 3, _) => (kind::DIRECT, 0, part),
            (4, _) => (rng.u8(..6), rng.u64(..1 << 20), part),
            _ => (kind::MAPPED, SLOT_START + rng.u64(..SLOT_SECTORS / UNIT) * UNIT, part),
        };
        wire::put_piece(&mut out, offset as u32, part as u32, kind, slot);
        at = offset + part;
    }
    out
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.u8(1..3) {
        let at = rng.usize(..bytes.len().max(1));
        match rng.u8(..6) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_within(at..),
            2 => bytes.extend((0..rng.u8(1..12)).map(|_| rng.u8(..)).collect::<Vec<_>>()),
            3 => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
            _ if bytes.is_empty() => {}
            4 => bytes[at] ^= 1 << rng.u8(..8),
            _ => bytes[at] = rng.u8(..),
        }
    }
}

fn no_capability(_: &mut Ctx) -> Result<()> {
    let mut setup = setup()?;
    let (instance, group) = (setup.owner.instance(), setup.owner.group()?);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| refused_everything(instance, group));
        thread.join().unwrap_or_else(|_| bail!("the thread panicked"))
    })?;
    compare(&mut setup.owner, &Model::new(instance))
}

/// Runs on a thread of its own, which gives the capability up; all others stay.
fn refused_everything(instance: u32, group: u32) -> Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_ADMIN);
    sets.permitted.remove(CapabilitySet::SYS_ADMIN);
    set_capabilities(None, sets)?;
    let mut stranger = Owner::new()?;
    let mut bytes = Vec::new();
    wire::put(&mut bytes, attr::INSTANCE, &instance.to_ne_bytes());
    for cmd in [2, 3, 4, 7, 8, 9, 10, 11, 12, 14] {
        expect_eperm(&mut stranger, cmd, false, &bytes)?;
    }
    for (dump, bytes) in [(1, &[][..]), (5, &bytes), (6, &bytes)] {
        expect_eperm(&mut stranger, dump, true, bytes)?;
    }
    ensure!((1..=32).contains(&group), "group {group} is beyond a bind's mask");
    let protocol = SockProtocol::NetlinkGeneric;
    let listener = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let joined = bind(listener.as_raw_fd(), &NetlinkAddr::new(0, 1 << (group - 1)));
    ensure!(joined == Err(nix::errno::Errno::EPERM), "joining the group: {joined:?}");
    Ok(())
}

fn expect_eperm(owner: &mut Owner, cmd: u8, dump: bool, bytes: &[u8]) -> Result<()> {
    let answer = owner.ask(cmd, dump, bytes);
    let error = answer.err().and_then(|error| error.downcast::<std::io::Error>().ok());
    let errno = error.and_then(|error| error.raw_os_error());
    ensure!(errno == Some(EPERM), "command {cmd}: {errno:?} and not EPERM");
    Ok(())
}
