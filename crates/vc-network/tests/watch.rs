//! Changes of a namespace while it is watched.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::os::fd::AsFd;
use std::time::Duration;

use common::{need_root, pod};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vc_network::{Difference, Scan, Watch};

/// How long a change is waited for.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);

/// Whether the descriptor is readable, or becomes it within `limit`.
fn is_readable(watch: &Watch, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    let mut polled = [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&limit)).unwrap() == 1
}

/// Waits until the watch tells of a change that a scan shows, and takes over what is there now.
fn next_difference(
    watch: &mut Watch,
    namespace: &vc_network::Namespace,
    known: &mut Scan,
) -> Difference {
    loop {
        assert!(
            is_readable(watch, CHANGE_LIMIT),
            "nothing within {CHANGE_LIMIT:?}"
        );
        if !watch.has_changed().unwrap() {
            continue;
        }
        let now = Scan::of(namespace).unwrap();
        let difference = known.difference(&now);
        *known = now;
        if !difference.is_empty() {
            return difference;
        }
    }
}

#[test]
fn each_kind_of_change_is_told_and_found() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let mut watch = Watch::on(&namespace).unwrap();
    let mut known = Scan::of(&namespace).unwrap();
    let mut next = |command: &str| {
        pod.inside.ip(command);
        next_difference(&mut watch, &namespace, &mut known)
    };
    let route = next("route add 10.20.0.0/16 via 10.9.0.9");
    assert_eq!(route.added_routes.len(), 1);
    let route = next("-6 route add fd20::/64 via fd09::9");
    assert_eq!(route.added_routes.len(), 1);
    let route = next("route del 10.20.0.0/16");
    assert_eq!(route.vanished_routes.len(), 1);
    let neighbour = next("neigh add 10.9.0.77 lladdr 02:00:00:00:00:4d dev eth0 nud permanent");
    assert_eq!(neighbour.added_neighbours.len(), 1);
    let neighbour = next("neigh del 10.9.0.77 dev eth0");
    assert_eq!(neighbour.vanished_neighbours.len(), 1);
    let address = next("addr add 10.9.0.3/24 dev eth0");
    assert_eq!(address.changed_links[0].now.addresses.len(), 3);
    let address = next("-6 addr add fd09::3/64 dev eth0 nodad");
    assert_eq!(address.changed_links[0].now.addresses.len(), 4);
    let mtu = next("link set eth0 mtu 1300");
    assert_eq!(mtu.changed_links[0].now.mtu, 1300);

    pod.inside.ip("link add br0 type bridge");
    let link = next("addr add 10.7.0.1/24 dev br0");
    assert_eq!(link.added_links[0].name.as_str(), "br0");
    let link = next("link del br0");
    assert_eq!(link.vanished_links[0].name.as_str(), "br0");
}

#[test]
fn what_an_attachment_adds_is_no_change() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let plan = pod.inside.plan();
    let mut watch = Watch::on(&namespace).unwrap();
    let before = Scan::of(&namespace).unwrap();
    let attached = plan.attach(&namespace).unwrap();
    assert_eq!(Scan::of(&namespace).unwrap(), before);
    assert!(!watch.has_changed().unwrap());
    attached.undo.undo(&namespace).unwrap();
    assert!(!watch.has_changed().unwrap());
    assert!(!is_readable(&watch, Duration::ZERO));
    // It was not deaf.
    pod.inside.ip("addr add 10.9.0.3/24 dev eth0");
    assert!(watch.has_changed().unwrap());
}

#[test]
fn messages_that_were_lost_are_a_change() {
    need_root!();
    let pod = pod();
    let mut watch = Watch::on(&pod.inside.open()).unwrap();
    // More than a socket's buffer holds, which the kernel rounds up to some kilobytes.
    rustix::net::sockopt::set_socket_recv_buffer_size(&watch, 1).unwrap();
    for number in 0..40 {
        pod.inside
            .ip(&format!("tuntap add mode tap name vctap9{number}"));
    }
    assert!(watch.has_changed().unwrap());
    assert!(!watch.has_changed().unwrap());
}
