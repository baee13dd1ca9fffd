//! Real QEMU processes. Their guests are a few bytes that do one thing, so that no kernel is
//! needed; the tests of whole VMs are elsewhere.
//!
//! The program of these tests is the launcher step too, so it has its own `main`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their harness, and these have their own"
)]

mod ends;
mod hot_plug;
mod machine;
mod operations;
mod start;

use std::process::ExitCode;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "a_vm_starts_as_an_unprivileged_user",
        start::as_an_unprivileged_user,
    ),
    (
        "a_vm_with_its_own_network_stack_is_in_its_callers_network",
        start::with_its_own_network_stack,
    ),
    ("a_launch_is_fast", start::is_timed),
    (
        "a_kernel_that_is_none_is_an_end_with_qemus_words",
        start::with_a_bad_kernel,
    ),
    ("a_missing_program_leaves_nothing", start::without_a_program),
    ("a_dropped_launch_leaves_nothing", start::dropped_halfway),
    (
        "a_program_that_is_not_qemu_passes_the_limit",
        start::of_another_program,
    ),
    (
        "pause_and_resume_are_seen_by_the_guest",
        operations::pause_and_resume,
    ),
    (
        "an_attached_vm_is_operated_and_outlives_its_handle",
        operations::attached,
    ),
    (
        "one_client_at_a_time_and_the_other_passes_its_limit",
        operations::one_client,
    ),
    (
        "a_disk_comes_and_goes_and_leaves_nothing",
        hot_plug::disk_comes_and_goes,
    ),
    (
        "a_network_device_comes_and_goes_and_leaves_nothing",
        hot_plug::nic_comes_and_goes,
    ),
    ("a_device_that_is_refused_leaves_nothing", hot_plug::refused),
    (
        "a_vm_without_a_free_port_refuses_before_anything_changes",
        hot_plug::all_ports_taken,
    ),
    (
        "a_device_that_the_guest_keeps_is_known_as_leaving_by_other_processes_too",
        hot_plug::kept_by_the_guest,
    ),
    (
        "what_an_interrupted_plug_left_is_taken_out",
        hot_plug::interrupted,
    ),
    ("a_stop_asks_first", ends::asked),
    ("a_stop_kills_a_vmm_that_does_not_listen", ends::deaf),
    ("a_stop_at_once_kills", ends::at_once),
    ("a_kill_from_outside_is_named", ends::killed),
    ("a_polite_kill_is_named", ends::terminated),
    ("a_guest_that_resets_is_named", ends::guest_reset),
    ("a_guest_that_switches_off_is_named", ends::guest_shutdown),
    ("a_guest_that_panics_is_named", ends::guest_panic),
    ("a_kernel_that_panics_is_named", ends::kernel_panic),
    ("a_dropped_vm_is_killed", ends::dropped),
    ("a_console_without_an_end_is_bounded", ends::console_flood),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["internal", "launch"] => {
            let _ = vc_launch::internal_launch();
            ExitCode::FAILURE
        }
        rest => run_tests(rest),
    }
}

/// As much of libtest's command line as cargo and nextest use.
fn run_tests(args: &[&str]) -> ExitCode {
    if args.contains(&"--list") {
        if !args.contains(&"--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = machine::unmet_need() {
        println!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let exact = args.contains(&"--exact");
    let matches = |name: &str, filter: &str| match exact {
        true => name == filter,
        false => name.contains(filter),
    };
    let mut failed = 0;
    for (name, test) in TESTS {
        if !filters.is_empty() && !filters.iter().any(|filter| matches(name, filter)) {
            continue;
        }
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u8::from(!passed);
    }
    ExitCode::from(failed)
}
