use super::*;

const GOOD: &str = "\
C [    1.0] Linux version 6.1.0-56-amd64
P READY 6.1.0-56-amd64
C [    2.0] vm-case: a.b begins
P CASE a.b START
C [    2.1] null_blk: module loaded
P CASE a.b PASS 1200
C [    2.2] vm-case: a.b ends
";

/// `C` is the console, `P` the port.
fn transcript(text: &str) -> Transcript {
    let mut transcript = Transcript::default();
    for line in text.lines() {
        match line.split_at(2) {
            ("C ", line) => transcript.console(line),
            (_, line) => transcript.port(line),
        }
    }
    transcript
}

fn verdict(text: &str) -> Vec<String> {
    transcript(text).verdict("a.b")
}

#[test]
fn a_good_run_is_good() {
    assert_eq!(verdict(GOOD), Vec::<String>::new());
    assert!(transcript(GOOD).settled("a.b"));
    assert!(transcript(GOOD).strays().is_empty());
}

/// Each of these lines in the middle of an otherwise good case fails it.
#[test]
fn a_bad_kernel_line_fails_the_case_it_falls_in() {
    let lines = [
        "WARNING: CPU: 0 PID: 1 at drivers/md/dm.c:100 dm_table_run+0x1/0x2",
        "INFO: task kworker/0:1:30 blocked for more than 120 seconds.",
        "BUG: unable to handle page fault for address: ffff",
        "Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
        "WARNING: possible circular locking dependency detected",
        "refcount_t: underflow; use-after-free.",
        "list_del corruption. prev->next should be ffff",
        "BUG: sleeping function called from invalid context at mm/slab.h:494",
        "BUG kmalloc-64 (Tainted: G): Objects remaining in kmalloc-64 on __kmem_cache_shutdown()",
        "Kernel panic - not syncing: Fatal exception",
    ];
    for line in lines {
        let bad = GOOD.replace("null_blk: module loaded", line);
        let why = verdict(&bad);
        assert!(why.len() == 1 && why[0].contains(line), "{line}: {why:?}");
    }
}

#[test]
fn a_bad_kernel_line_between_cases_is_not_lost() {
    let bad = GOOD.to_string() + "C [    3.0] WARNING: CPU: 0 PID: 1 at fs/x.c:1\n";
    assert_eq!(verdict(&bad), Vec::<String>::new());
    assert_eq!(transcript(&bad).strays().len(), 1);
}

#[test]
fn a_case_that_says_it_failed_has_failed() {
    let bad = GOOD.replace("CASE a.b PASS 1200", "CASE a.b FAIL 1200 sector 7: zeroes");
    assert_eq!(verdict(&bad), ["sector 7: zeroes"]);
}

/// The run may stop after any line: nothing but the whole of it is a pass.
#[test]
fn a_truncated_run_fails() {
    for end in 0..GOOD.lines().count() {
        let cut: Vec<&str> = GOOD.lines().take(end).collect();
        assert!(!verdict(&cut.join("\n")).is_empty(), "passed after {cut:?}");
    }
}

#[test]
fn a_case_that_was_not_run_is_lost() {
    let lost = transcript(GOOD).verdict("a.c");
    assert!(lost[0].starts_with("lost: it never started"), "{lost:?}");
}

#[test]
fn a_lost_result_is_told_with_the_way_the_guest_ended() {
    let mut dead = transcript(&GOOD.replace("P CASE a.b PASS 1200\n", ""));
    dead.broken = Some("QEMU ended with signal 9".into());
    let why = dead.verdict("a.b");
    assert_eq!(why, ["lost: it started and gave no result: QEMU ended with signal 9"]);
}

#[test]
fn noise_on_the_port_is_counted() {
    assert_eq!(transcript("P CASE a.b PA").strays().len(), 1);
}

#[test]
fn a_cut_is_good_only_in_the_middle_of_the_case() {
    let cut = GOOD.replace("P CASE a.b PASS 1200\n", "P ACK 1\nP CUT\n");
    let cut = cut.replace("C [    2.2] vm-case: a.b ends\n", "");
    let good = transcript(&cut);
    assert!(good.cut_requested && good.acks == ["1"]);
    assert_eq!(good.verdict_of_cut("a.b"), Vec::<String>::new());
    assert!(!transcript(GOOD).verdict_of_cut("a.b").is_empty());
    assert!(!transcript("P READY x").verdict_of_cut("a.b").is_empty());
    let warned = cut.replace("null_blk: module loaded", "Oops: 0");
    assert!(!transcript(&warned).verdict_of_cut("a.b").is_empty());
}

#[test]
fn a_negative_control_passes_only_if_it_fails_as_it_must() {
    let reasons = |text: &str| vec![text.to_string(), "and more".to_string()];
    assert!(expect(Some("on purpose"), reasons("failed on purpose")).is_empty());
    assert!(!expect(Some("on purpose"), reasons("something else")).is_empty());
    assert!(!expect(Some("on purpose"), Vec::new()).is_empty());
    assert!(!expect(None, reasons("failed on purpose")).is_empty());
}

/// Only an oops that nothing came before can be the emulator's; and it is still a failure until it is run again.
#[test]
fn the_emulators_breakpoint_is_told_from_an_oops() {
    let oops = GOOD.replace("null_blk: module loaded", "Oops: int3: 0000 [#1] PREEMPT SMP");
    assert!(transcript(&oops).emulator_failed() && !verdict(&oops).is_empty());
    let after = oops.replace("C [    2.1]", "C [    2.1] BUG: x\nC [    2.1]");
    assert!(!transcript(&after).emulator_failed());
    assert!(!transcript(&oops.replace("int3: ", "")).emulator_failed());
    let trace =
        "SMP\nC RIP: 0010:trace_dmr_fault+0x5/0x60 [dm_remap_shim]\nC ---[ end trace 0000 ]---";
    assert!(!transcript(&oops.replace("SMP", trace)).emulator_failed());
}

/// The demo once failed with a debug trap in the middle of the kernel's allocator, whose flags no processor has.
#[test]
fn flags_that_no_processor_has_are_the_emulators() {
    let report = "------------[ cut here ]------------
C WARNING: CPU: 1 PID: 46 at arch/x86/kernel/traps.c:1120 exc_debug_kernel+0xca/0x160
C RIP: 0010:exc_debug_kernel+0xca/0x160
C RSP: 0018:ffffa40e0018fbc8 EFLAGS: 00010002
C Call Trace:
C RSP: 0018:ffffa40e0018fc90 EFLAGS: 04d0bf02
C ---[ end trace 0000000000000000 ]---";
    let warned = GOOD.replace("null_blk: module loaded", report);
    assert!(transcript(&warned).emulator_failed() && !verdict(&warned).is_empty());
    assert!(!transcript(&warned.replace("04d0bf02", "0010bf02")).emulator_failed());
    let second = warned.replace("04d0bf02", "00010002");
    let second =
        second.replace("P CASE a.b PASS", "C RSP: 0018:ffffa EFLAGS: 04d0bf02\nP CASE a.b PASS");
    assert!(!transcript(&second).emulator_failed());
}

/// A negative control once failed so on 6.1, which was enabling a tracepoint; nothing of the module was under way.
#[test]
fn a_processor_that_stands_still_while_code_is_changed_is_the_emulators() {
    let report = "rcu: INFO: rcu_preempt self-detected stall on CPU
C RIP: 0010:__schedule+0x1bc/0xa00
C Call Trace:
C  schedule+0x5a/0xd0
C RIP: 0010:smp_call_function_many_cond+0xf1/0x330
C Call Trace:
C  text_poke_bp_batch+0xb7/0x300";
    let stalled = GOOD.replace("null_blk: module loaded", report);
    assert!(transcript(&stalled).emulator_failed() && !verdict(&stalled).is_empty());
    let ours = stalled.replace("schedule+0x5a/0xd0", "dmr_work+0x5a/0xd0 [dm_remap_shim]");
    assert!(!transcript(&ours).emulator_failed());
    let other = stalled.replace("rcu: INFO: rcu_preempt self-detected stall on CPU", "BUG: x");
    assert!(!transcript(&other).emulator_failed());
}

#[test]
fn a_clock_that_was_measured_wrong_is_noticed() {
    assert!(!transcript(GOOD).wrong_clock);
    let warned =
        format!("C [    0.02] tsc: PIT calibration deviates from HPET: 195046 2594723\n{GOOD}");
    assert!(transcript(&warned).wrong_clock);
}

#[test]
fn a_report_of_many_lines_is_one_reason() {
    let report = "C ------------[ cut here ]------------\nC ODEBUG: free active (active state 0)\nC WARNING: CPU: 0 PID: 9\n";
    let bad = GOOD.replace("C [    2.1] null_blk: module loaded\n", report);
    let why = verdict(&bad);
    assert!(why.len() == 1 && why[0].contains("ODEBUG: free active"), "{why:?}");
    assert!(expect(Some("ODEBUG: free active"), why).is_empty());
}

#[test]
fn what_the_guest_finds_at_its_end_counts_against_the_boot() {
    let bad = format!("{GOOD}P FAULT a leak: unreferenced object\n");
    assert_eq!(verdict(&bad), Vec::<String>::new());
    assert_eq!(transcript(&bad).strays(), ["a leak: unreferenced object"]);
}

/// On a busy machine QEMU has ended before the guest's first word, and nothing was on the console.
#[test]
fn a_guest_that_never_ran_is_the_emulators() {
    let mut seen = Transcript { stillborn: true, ..Transcript::default() };
    assert!(seen.emulator_failed() && !seen.verdict("a.b").is_empty());
    seen.console("Kernel panic - not syncing: Attempted to kill init!");
    assert!(!seen.emulator_failed());
}
