//! Real processes: what the launcher step leaves of rights, descriptors and mounts.
//!
//! The program of these tests is the launcher step and the launched program too, so it has its
//! own `main`. All of them need root; without it they say so and are passed over.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, and the output of a test program"
)]

mod change;
mod failures;
mod lifetime;
mod probe;
mod rights;
mod tree;
mod unpack;

use std::process::ExitCode;

use rustix::mount::MountPropagationFlags;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "a_missing_program_names_the_step",
        failures::a_missing_program_names_the_step,
    ),
    (
        "a_program_that_is_no_step_is_an_error",
        failures::a_program_that_is_no_step_is_an_error,
    ),
    (
        "a_step_that_hangs_up_is_an_error",
        failures::a_step_that_hangs_up_is_an_error,
    ),
    (
        "nothing_is_made_in_a_bind_mount",
        failures::nothing_is_made_in_a_bind_mount,
    ),
    (
        "a_dropped_guard_kills_and_reaps",
        lifetime::a_dropped_guard_kills_and_reaps,
    ),
    (
        "a_killed_parent_takes_its_children_along",
        lifetime::a_killed_parent_takes_its_children_along,
    ),
    (
        "a_dropped_launcher_takes_its_children_along",
        lifetime::a_dropped_launcher_takes_its_children_along,
    ),
    ("an_end_is_said_again", lifetime::an_end_is_said_again),
    (
        "many_launches_run_side_by_side",
        lifetime::many_launches_run_side_by_side,
    ),
    (
        "a_dropped_launch_leaves_no_process",
        lifetime::a_dropped_launch_leaves_no_process,
    ),
    (
        "only_passed_descriptors_are_open",
        rights::only_passed_descriptors_are_open,
    ),
    (
        "an_unprivileged_process_has_nothing",
        rights::an_unprivileged_process_has_nothing,
    ),
    (
        "root_keeps_only_what_is_named",
        rights::root_keeps_only_what_is_named,
    ),
    (
        "another_user_keeps_what_is_named",
        rights::another_user_keeps_what_is_named,
    ),
    (
        "the_environment_is_what_was_given",
        rights::the_environment_is_what_was_given,
    ),
    (
        "limits_are_set_or_lowered_to_what_is_allowed",
        rights::limits_are_set_or_lowered,
    ),
    (
        "nothing_of_the_host_is_in_the_tree",
        tree::nothing_of_the_host_is_in_the_tree,
    ),
    (
        "read_only_holds_below_the_mount_too",
        tree::read_only_holds_below_the_mount_too,
    ),
    (
        "other_mounts_come_only_when_asked_for",
        tree::other_mounts_come_only_when_asked_for,
    ),
    (
        "a_tree_leaves_no_mount_on_the_host",
        tree::a_tree_leaves_no_mount_on_the_host,
    ),
    ("namespaces_are_new", tree::namespaces_are_new),
    (
        "a_running_process_gets_and_loses_mounts",
        change::a_running_process_gets_and_loses_mounts,
    ),
    (
        "a_slave_follows_the_host_and_never_leads_it",
        change::a_slave_follows_the_host_and_never_leads_it,
    ),
    (
        "a_change_that_fails_says_where",
        change::a_change_that_fails_says_where,
    ),
    (
        "an_archive_is_unpacked_by_a_process_that_sees_the_destination_alone",
        unpack::an_archive_is_unpacked_by_a_process_that_sees_the_destination_alone,
    ),
    (
        "what_cannot_be_unpacked_is_named_and_a_lost_sender_leaves_no_half_file",
        unpack::what_cannot_be_unpacked_is_named_and_a_lost_sender_leaves_no_half_file,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["internal", "launch"] => {
            let error = vc_launch::internal_launch().unwrap_err();
            ExitCode::from(u8::try_from(error.raw_os_error().unwrap_or(1)).unwrap_or(1))
        }
        ["internal", "change-tree"] => match vc_launch::internal_change_tree() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        ["internal", "unpack"] => match vc_launch::internal_unpack() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        ["probe", rest @ ..] => probe::run(rest),
        ["parent"] => lifetime::parent(),
        // What a program that is no launcher step does.
        ["internal", ..] => ExitCode::from(2),
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
    if !rustix::process::geteuid().is_root() {
        println!("skipped: these tests make namespaces, which needs root");
        return ExitCode::SUCCESS;
    }
    // What these tests mount is nobody else's business, and goes with this process.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let exact = args.contains(&"--exact");
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| {
                if exact {
                    name == **filter
                } else {
                    name.contains(**filter)
                }
            })
    };
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u8::from(!passed);
    }
    ExitCode::from(failed.min(101))
}
