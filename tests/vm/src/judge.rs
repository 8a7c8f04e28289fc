//! Judges a guest by what it reported and by what its kernel printed.

use crate::PREFIX;

/// What a kernel prints when it has caught itself in a mistake.
const ALARMS: [&str; 8] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "Kernel panic",
    "blocked for more than",
    "detected stall",
    "general protection fault",
    "refcount_t:",
];

#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub passed: Vec<String>,
    /// Name and reason.
    pub failed: Vec<(String, String)>,
}

/// A wanted case that did not report is lost, and a lost case has failed.
pub fn judge(wanted: &[String], report: &str, console: &str) -> Verdict {
    let mut verdict = Verdict { passed: Vec::new(), failed: Vec::new() };
    for name in wanted {
        let line = report.lines().find_map(|l| {
            l.trim_end().strip_prefix(PREFIX)?.strip_prefix(name.as_str())?.strip_prefix(' ')
        });
        match line {
            Some("PASS") => verdict.passed.push(name.clone()),
            Some(other) => verdict.failed.push((name.clone(), other.to_owned())),
            None => verdict.failed.push((name.clone(), "lost: it never reported".to_owned())),
        }
    }
    for line in console.lines() {
        if let Some(alarm) = ALARMS.iter().find(|&&a| line.contains(a)) {
            verdict.failed.push((format!("console.{alarm}"), line.trim().to_owned()));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Vec<String> {
        vec!["a".to_owned(), "a.b".to_owned()]
    }

    #[test]
    fn a_clean_run_passes() {
        let verdict = judge(&wanted(), "CASE a PASS\r\nCASE a.b PASS\n", "Linux version 6.1\n");
        assert_eq!(verdict.passed, wanted());
        assert!(verdict.failed.is_empty());
    }

    #[test]
    fn failed_and_lost_cases_fail() {
        let verdict = judge(&wanted(), "CASE a FAIL read back zeroes\n", "");
        assert!(verdict.passed.is_empty());
        assert_eq!(verdict.failed[0], ("a".to_owned(), "FAIL read back zeroes".to_owned()));
        assert!(verdict.failed[1].1.starts_with("lost"));
    }

    #[test]
    fn a_kernel_warning_fails_a_run_whose_cases_pass() {
        let console = "[ 3.1] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1\n";
        let verdict = judge(&wanted(), "CASE a PASS\nCASE a.b PASS\n", console);
        assert_eq!(verdict.failed.len(), 1);
    }
}
