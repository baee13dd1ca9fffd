//! Networks of throw-away machines, in namespaces that stand for the host and its neighbour.

mod nat;
mod stage;
mod user;

pub(super) use stage::{answer, in_namespace};

use self::stage::{FETCH_PAGE, Stage};

use super::host;

#[test]
fn a_namespace_is_joined_and_left_as_it_was() {
    let mut host = host();
    let stage = Stage::new(&host);
    let before = stage.seen();
    let net = format!("ns:{}", stage.path());
    let run = host.run(&["--net", &net], &FETCH_PAGE).expect_code(0);
    assert_eq!(run.out(), "served by the peer\n");
    assert_eq!(stage.seen(), before);
    // Without, there is nobody to reach.
    let run = host.run(&["-q"], &["ls", "/sys/class/net"]).expect_code(0);
    assert_eq!(run.out(), "lo\n");
    drop(stage);
    host.expect_nothing_left();
}

#[test]
fn what_cannot_be_a_network_is_wrong_usage() {
    let host = host();
    host.run(&["--net", "host"], &["true"])
        .expect_code(2)
        .expect_err(&["cannot share the host's"]);
    host.run(&["--net", "ns:/etc/hostname"], &["true"])
        .expect_code(125)
        .expect_err(&["/etc/hostname", "not a network namespace"]);
    host.run(&["--net", "none", "-p", "80:80"], &["true"])
        .expect_code(2)
        .expect_err(&["--net none", "publish"]);
    host.run(&["-p", "80"], &["true"])
        .expect_code(2)
        .expect_err(&["HOST and GUEST"]);
}
