//! What a boot has shown, and whether that is good. No I/O, so that it can be tested with canned transcripts.

use std::collections::BTreeMap;

use crate::proto::{Said, closing, opening};

/// What no kernel log may hold, whoever wrote it.
const FAULTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "kernel BUG",
    "BUG kmalloc",
    "Oops",
    "general protection fault",
    "Kernel panic",
    "Call Trace:",
    "cut here",
    "blocked for more than",
    "hung task",
    "rcu: INFO:",
    "detected stalls",
    "self-detected stall",
    "lockup",
    "possible recursive locking",
    "possible circular locking",
    "possible irq lock inversion",
    "inconsistent lock state",
    "suspicious RCU usage",
    "trying to register non-static key",
    "turning off the locking correctness validator",
    "Disabling lock debugging",
    "ODEBUG:",
    "suspected memory leaks",
    "Kernel memory leak detector disabled",
    "bad unlock balance",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "scheduling while atomic",
    "sleeping function called from invalid context",
    "Objects remaining in",
    "kmem_cache_destroy",
    "KASAN:",
    "UBSAN:",
    "Out of memory:",
    "segfault at",
];

/// The emulator's own fault: with two processors it may run a breakpoint that the kernel has already patched away
/// again, and the kernel's core then oopses on it. Nothing was learnt about what the guest ran.
const EMULATOR: &str = "Oops: int3:";

/// The highest value that a processor's flags can have. A trap with more is the emulator's other fault: it put
/// something else in their place, such as a debug trap that nobody asked for.
const MAX_FLAGS: u32 = 0x003f_ffff;

/// Its third: while the kernel's code is changed under two processors, one stands still, and the other waits for it.
const POKE: &str = "text_poke_bp_batch";
/// In every line of a trace that is the module's.
const OURS: &str = "[dm_remap_shim]";

/// The guest's clock will run up to ten times too fast: the emulator was starved while the kernel measured it.
const WRONG_CLOCK: &str = "PIT calibration deviates from HPET";

/// Lines of one kernel report that are kept as reasons; the log has all of them.
const REASONS: usize = 3;

#[derive(Debug, Default)]
struct Seen {
    started: bool,
    result: Option<Result<(), String>>,
    closed: bool,
    console: Vec<String>,
}

/// Everything one boot has shown so far.
#[derive(Debug, Default)]
pub struct Transcript {
    /// The guest's kernel, once it is up.
    pub release: Option<String>,
    pub acks: Vec<String>,
    pub cut_requested: bool,
    /// Why no other case may run in this boot.
    pub dirty: Option<String>,
    /// How the boot ended, if not as it should.
    pub broken: Option<String>,
    /// Whether the guest's clock is wrong, and with it every time limit.
    pub wrong_clock: bool,
    /// Whether QEMU ended before the guest's first word.
    pub stillborn: bool,
    /// The emulator and not the guest failed.
    impossible: bool,
    /// So it is with these two, unless the module is in one of the traces.
    breakpoint: bool,
    stuck: bool,
    ours: bool,
    /// Whether the kernel has come to the end of a report of a fault.
    reported: bool,
    cases: BTreeMap<String, Seen>,
    /// The case whose section of the console is open.
    open: Option<String>,
    stray: Vec<String>,
}

impl Transcript {
    /// Takes a line of the console.
    pub fn console(&mut self, line: &str) {
        self.wrong_clock |= line.contains(WRONG_CLOCK);
        if let Some(name) = between(line, &opening(""), " begins") {
            self.cases.entry(name.clone()).or_default();
            self.open = Some(name);
        } else if let Some(name) = between(line, &closing(""), " ends") {
            self.cases.entry(name).or_default().closed = true;
            self.open = None;
        } else if FAULTS.iter().any(|fault| line.contains(fault)) {
            let place = match &self.open {
                Some(name) => &mut self.cases.entry(name.clone()).or_default().console,
                None => &mut self.stray,
            };
            self.breakpoint |= place.is_empty() && line.contains(EMULATOR);
            if place.len() < REASONS {
                place.push(line.trim().into());
            }
        } else if line.contains("---[ end trace") {
            self.reported = true;
        } else if !self.reported {
            self.impossible |= flags(line).is_some_and(|flags| flags > MAX_FLAGS);
            let stalled = self.first_reason().is_some_and(|why| why.contains("stall"));
            self.stuck |= stalled && line.contains(POKE);
            self.ours |= line.contains(OURS);
        }
    }

    /// Of the case whose section is open, or of none.
    fn first_reason(&self) -> Option<&String> {
        match &self.open {
            Some(name) => self.cases.get(name)?.console.first(),
            None => self.stray.first(),
        }
    }

    /// Whether nothing was learnt about the guest.
    #[must_use]
    pub fn emulator_failed(&self) -> bool {
        let never_ran = self.stillborn && self.stray.is_empty();
        self.impossible || never_ran || (self.breakpoint || self.stuck) && !self.ours
    }

    /// Takes a line of the guest's port.
    pub fn port(&mut self, line: &str) {
        match Said::parse(line) {
            Some(Said::Ready { release }) => self.release = Some(release),
            Some(Said::Start { case }) => self.cases.entry(case).or_default().started = true,
            Some(Said::Done { case, error, .. }) => {
                self.cases.entry(case).or_default().result = Some(error.map_or(Ok(()), Err));
            }
            Some(Said::Ack(text)) => self.acks.push(text),
            Some(Said::Note(_)) => {}
            Some(Said::Cut) => self.cut_requested = true,
            Some(Said::Dirty(why)) => self.dirty = Some(why),
            Some(Said::Fault(what)) => self.stray.push(what),
            None => self.stray.push(format!("a line nobody says on the port: {line:?}")),
        }
    }

    /// Whether the guest has said how the case ended.
    #[must_use]
    pub fn answered(&self, case: &str) -> bool {
        self.cases.get(case).is_some_and(|seen| seen.result.is_some())
    }

    /// Whether in addition everything the kernel said meanwhile has been read.
    #[must_use]
    pub fn settled(&self, case: &str) -> bool {
        self.answered(case) && self.cases.get(case).is_some_and(|seen| seen.closed)
    }

    /// Why the case failed; nothing if it passed.
    #[must_use]
    pub fn verdict(&self, case: &str) -> Vec<String> {
        let Some(seen) = self.cases.get(case) else {
            return vec![self.never_started()];
        };
        let mut reasons = Vec::from_iter(reason(&seen.console));
        match &seen.result {
            Some(Ok(())) => {}
            Some(Err(why)) => reasons.push(why.clone()),
            None => {
                let verb = if seen.started { "started and gave" } else { "gave" };
                let why = self.broken.as_deref().unwrap_or("the guest lives");
                reasons.push(format!("lost: it {verb} no result: {why}"));
            }
        }
        if seen.result.is_some() && !seen.closed {
            reasons.push("the console ends before the case does".into());
        }
        reasons
    }

    fn never_started(&self) -> String {
        let why = self.broken.as_deref().unwrap_or("it was not asked to");
        format!("lost: it never started: {why}")
    }

    /// Why a boot that was cut in the middle of the case, on purpose, is bad; nothing if it is not.
    #[must_use]
    pub fn verdict_of_cut(&self, case: &str) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.cases.get(case) {
            Some(Seen { console, result: None, started: true, .. }) => {
                reasons.extend(reason(console));
            }
            Some(Seen { console, result: Some(Err(why)), .. }) => {
                reasons.extend(reason(console));
                reasons.push(why.clone());
            }
            Some(Seen { result: Some(Ok(())), .. }) => {
                reasons.push("it came to its end before the cut".into());
            }
            _ => reasons.push(self.never_started()),
        }
        reasons
    }

    /// What went wrong in no case's time.
    #[must_use]
    pub fn strays(&self) -> &[String] {
        &self.stray
    }
}

/// The lines of the kernel's reports, as one reason: the telling line is not always the first.
fn reason(console: &[String]) -> Option<String> {
    (!console.is_empty()).then(|| format!("kernel: {}", console.join(" / ")))
}

/// What a negative control makes of the reasons: it passes if the first holds the text it must fail with.
#[must_use]
pub fn expect(must_fail: Option<&str>, reasons: Vec<String>) -> Vec<String> {
    let Some(text) = must_fail else { return reasons };
    match reasons.first() {
        Some(first) if first.contains(text) => Vec::new(),
        Some(_) => {
            let all = reasons.join("; ");
            vec![format!("a negative control failed, but not with {text:?}: {all}")]
        }
        None => vec![format!("a negative control passed; it must fail with {text:?}")],
    }
}

/// The processor's flags in a line of a report.
fn flags(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("EFLAGS: ")?;
    u32::from_str_radix(rest.split_whitespace().next()?, 16).ok()
}

/// The name in a marker line. `marker` is the marker of a nameless case.
fn between(line: &str, marker: &str, end: &str) -> Option<String> {
    let start = marker.strip_suffix(end)?;
    let at = line.find(start)?;
    line[at + start.len()..].trim_end().strip_suffix(end).map(String::from)
}

#[cfg(test)]
mod tests;
