//! Who makes the filter of a container's system calls.

use super::factory::Factory;
use super::host;
use super::own_kernel::detailed_console;

/// What a guest says of the filter that its container gets.
fn said(console: &str) -> &str {
    // The last one: a template has made a container before.
    let said = console.lines().rev().find_map(|line| {
        line.split_once("filter of system calls")
            .map(|(_, rest)| rest)
    });
    said.unwrap_or_else(|| panic!("{console}")).trim()
}

#[test]
fn the_host_makes_the_filter_for_a_guest_that_has_booted() {
    let (console, _) = detailed_console(&mut host());
    assert_eq!(said(&console), "by_host=true");
}

#[test]
fn a_clone_has_the_filter_that_its_template_made() {
    let (console, _) = detailed_console(&mut Factory::new().host);
    assert_eq!(said(&console), "by_host=false");
}
