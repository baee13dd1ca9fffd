//! Real shares: what a guest that speaks FUSE itself can reach, and how a share ends.
//!
//! The program of these tests is the launcher step and the share device too, so it has its own
//! `main`. They need root; without it they say so and are passed over.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, and the output of a test program"
)]

mod caching;
mod escape;
mod fuse;
mod harness;
mod lifetime;
mod queue;
mod scratch;
mod slave;
mod writing;

use std::process::ExitCode;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "what_is_shared_can_be_read",
        escape::what_is_shared_can_be_read,
    ),
    (
        "what_is_not_world_readable_is_refused",
        escape::what_is_not_world_readable_is_refused,
    ),
    (
        "no_name_leads_out_of_a_share",
        escape::no_name_leads_out_of_a_share,
    ),
    ("links_out_lead_nowhere", escape::links_out_lead_nowhere),
    (
        "nothing_can_be_changed_by_a_crooked_name",
        escape::nothing_can_be_changed_by_a_crooked_name,
    ),
    (
        "nothing_of_the_host_is_in_the_system_share",
        escape::nothing_of_the_host_is_in_the_system_share,
    ),
    (
        "a_share_ends_with_its_vmm",
        lifetime::a_share_ends_with_its_vmm,
    ),
    (
        "a_killed_keeper_takes_its_shares_along",
        lifetime::a_killed_keeper_takes_its_shares_along,
    ),
    (
        "a_dropped_share_leaves_nothing",
        lifetime::a_dropped_share_leaves_nothing,
    ),
    (
        "a_share_has_few_rights_and_descriptors",
        lifetime::a_share_has_few_rights_and_descriptors,
    ),
    (
        "a_read_only_source_is_not_written",
        writing::a_read_only_source_is_not_written,
    ),
    (
        "a_writable_source_is_written_as_the_guest_says",
        writing::a_writable_source_is_written_as_the_guest_says,
    ),
    (
        "a_user_s_share_has_the_user_s_rights",
        writing::a_user_s_share_has_the_user_s_rights,
    ),
    (
        "content_is_kept_and_attributes_are_asked_for_again",
        caching::content_is_kept_and_attributes_are_asked_for_again,
    ),
    (
        "a_read_only_slave_refuses_writes_to_what_is_mounted_later",
        slave::a_read_only_slave_refuses_writes_to_what_is_mounted_later,
    ),
    (
        "what_the_guest_has_forgotten_of_a_slave_can_be_unmounted",
        slave::what_the_guest_has_forgotten_of_a_slave_can_be_unmounted,
    ),
    ("no_device_is_made", writing::no_device_is_made),
    ("a_file_can_be_shared", writing::a_file_can_be_shared),
    (
        "a_scratch_disk_has_a_file_system",
        scratch::a_scratch_disk_has_a_file_system,
    ),
    (
        "a_scratch_disk_is_filled_instead_or_stays_empty",
        scratch::a_scratch_disk_is_filled_instead_or_stays_empty,
    ),
    (
        "a_failed_format_says_why",
        scratch::a_failed_format_says_why,
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
        ["internal", "share-device", options @ ..] => share_device(options),
        ["keeper", directory] => lifetime::keeper(directory.as_ref()),
        rest => run_tests(rest),
    }
}

fn share_device(arguments: &[&str]) -> ExitCode {
    let options = vc_share_device::Options::parse(arguments.iter().map(|one| (*one).to_owned()));
    let options = options.unwrap();
    let listener = vc_launch::inherited_descriptor(options.listener).unwrap();
    vc_share_device::run(&options, listener).unwrap();
    ExitCode::SUCCESS
}

/// As much of libtest's command line as cargo and nextest use.
fn run_tests(args: &[&str]) -> ExitCode {
    if args.contains(&"--list") {
        if !args.contains(&"--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = harness::unmet() {
        println!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
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
