//! Every step of a start and an end, failing, panicking or killed in the middle.

use virtcontainers::fault::Walk;

use super::{host, is_dead};

/// The points in their order, as the library lists them.
const POINTS: &[&str] = Walk::Run.points();

#[test]
fn a_kill_at_every_point_leaves_only_what_the_next_run_removes() {
    for point in POINTS {
        let mut host = host();
        host.fault(point, "kill");
        host.run(&[], &["true"]).expect_code(128 + 9);
        let left = host.left();
        assert!(is_dead(&left), "{point}: {left:?}");
        host.clear_env();
        host.virtc(["list"]).expect_code(0);
        host.virtc(["gc"]).expect_code(0);
        host.expect_nothing_left();
    }
}

#[test]
fn an_error_at_every_point_of_the_start_leaves_nothing() {
    for point in POINTS.iter().filter(|point| point.starts_with("create.")) {
        let mut host = host();
        host.fault(point, "error");
        host.run(&[], &["true"])
            .expect_code(125)
            .expect_err(&[point]);
        host.expect_nothing_left();
    }
}

#[test]
fn a_panic_in_the_middle_of_a_start_leaves_nothing() {
    let mut host = host();
    host.fault("create.vmm-launched", "panic");
    host.run(&[], &["true"])
        .expect_code(125)
        .expect_err(&["create.vmm-launched", "defect"]);
}
