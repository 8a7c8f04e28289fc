//! The lines that guest and host exchange.
//!
//! They have a serial port of their own (`ttyS1`), so that kernel messages cannot damage them. A serial port
//! rather than a virtio one: the kernel has it built in, and once the guest has drained it every byte is in the
//! host's hands and survives QEMU's death.

use std::fmt;

/// The guest's end of the port.
pub const PORT: &str = "/dev/ttyS1";
/// Word on the kernel command line that asks for a shell instead of the port.
pub const SHELL: &str = "vm.shell";
/// What stands there before the number that the guest's limits are multiplied by.
pub const SLOWNESS: &str = "vm.slowness=";
/// Word there that says that the kernel's own checkers are judged.
pub const CHECKED: &str = "vm.checked";
/// Serial number of the disk that holds the second archive of the guest's root.
pub const EXTRA: &str = "extra";

/// What the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The guest is up and waits for orders.
    Ready {
        release: String,
    },
    Start {
        case: String,
    },
    /// A case ended by itself or by its time limit; `error` is what it failed with.
    Done {
        case: String,
        millis: u64,
        error: Option<String>,
    },
    /// Something the host keeps for later phases, on the far side of a power cut.
    Ack(String),
    /// A line for the log.
    Note(String),
    /// The case asks for the power cut now.
    Cut,
    /// The last case left something that only another boot clears away.
    Dirty(String),
    /// Something that is wrong with the boot as a whole.
    Fault(String),
}

/// What the host orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// An acknowledgement recorded in an earlier phase.
    Fact(String),
    Run {
        case: String,
        phase: usize,
        seed: u64,
    },
    Off,
}

/// One line, whatever the text held.
fn flat(text: &str) -> String {
    text.trim_end().replace('\n', " | ").replace('\r', "")
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Ready { release } => write!(f, "READY {release}"),
            Said::Start { case } => write!(f, "CASE {case} START"),
            Said::Done { case, millis, error: None } => write!(f, "CASE {case} PASS {millis}"),
            Said::Done { case, millis, error: Some(why) } => {
                write!(f, "CASE {case} FAIL {millis} {}", flat(why))
            }
            Said::Ack(text) => write!(f, "ACK {}", flat(text)),
            Said::Note(text) => write!(f, "NOTE {}", flat(text)),
            Said::Cut => write!(f, "CUT"),
            Said::Dirty(why) => write!(f, "DIRTY {}", flat(why)),
            Said::Fault(what) => write!(f, "FAULT {}", flat(what)),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Fact(text) => write!(f, "FACT {}", flat(text)),
            Order::Run { case, phase, seed } => write!(f, "RUN {case} {phase} {seed}"),
            Order::Off => write!(f, "OFF"),
        }
    }
}

/// The line's first word and the rest.
fn word(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

impl Said {
    /// `None` for a line that is none of ours, which the judge counts against the boot.
    #[must_use]
    pub fn parse(line: &str) -> Option<Said> {
        let (verb, rest) = word(line);
        Some(match verb {
            "READY" => Said::Ready { release: rest.into() },
            "ACK" => Said::Ack(rest.into()),
            "NOTE" => Said::Note(rest.into()),
            "CUT" if rest.is_empty() => Said::Cut,
            "DIRTY" => Said::Dirty(rest.into()),
            "FAULT" => Said::Fault(rest.into()),
            "CASE" => {
                let (case, rest) = word(rest);
                let (how, rest) = word(rest);
                let (millis, why) = word(rest);
                let case = case.to_string();
                match how {
                    "START" => Said::Start { case },
                    "PASS" => Said::Done { case, millis: millis.parse().ok()?, error: None },
                    "FAIL" => {
                        Said::Done { case, millis: millis.parse().ok()?, error: Some(why.into()) }
                    }
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}

impl Order {
    #[must_use]
    pub fn parse(line: &str) -> Option<Order> {
        let (verb, rest) = word(line);
        Some(match verb {
            "FACT" => Order::Fact(rest.into()),
            "OFF" => Order::Off,
            "RUN" => {
                let mut words = rest.split(' ');
                Order::Run {
                    case: words.next()?.into(),
                    phase: words.next()?.parse().ok()?,
                    seed: words.next()?.parse().ok()?,
                }
            }
            _ => return None,
        })
    }
}

/// The kernel log carries these two lines around a case, so that the judge knows whose a kernel message is.
#[must_use]
pub fn opening(case: &str) -> String {
    format!("vm-case: {case} begins")
}

/// See [`opening`].
#[must_use]
pub fn closing(case: &str) -> String {
    format!("vm-case: {case} ends")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let said = [
            Said::Ready { release: "6.1.0-56-amd64".into() },
            Said::Start { case: "a.b".into() },
            Said::Done { case: "a.b".into(), millis: 12, error: None },
            Said::Done { case: "a.b".into(), millis: 12, error: Some("two words".into()) },
            Said::Ack("sector 7 version 3".into()),
            Said::Note(String::new()),
            Said::Cut,
            Said::Dirty("dm-0".into()),
            Said::Fault("a leak".into()),
        ];
        for said in said {
            assert_eq!(Said::parse(&said.to_string()), Some(said));
        }
        let orders = [
            Order::Fact("sector 7".into()),
            Order::Run { case: "a.b".into(), phase: 1, seed: u64::MAX },
            Order::Off,
        ];
        for order in orders {
            assert_eq!(Order::parse(&order.to_string()), Some(order));
        }
    }

    #[test]
    fn a_message_of_many_lines_stays_one_line() {
        let said = Said::Done { case: "a".into(), millis: 1, error: Some("one\ntwo\n".into()) };
        assert_eq!(said.to_string(), "CASE a FAIL 1 one | two");
    }

    #[test]
    fn damaged_lines_are_not_understood() {
        for line in ["CASE a.b", "CASE a.b MAYBE 1", "CASE a.b PASS x", "RUN", "CUT now", ""] {
            assert_eq!(Said::parse(line), None, "{line}");
        }
    }
}
