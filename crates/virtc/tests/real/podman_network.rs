//! Networks of Debian's podman, made in a namespace that stands for the host.

use super::engine_network::{Namespace, SERVE, wait_until};
use super::host;
use super::podman::Podman;

#[test]
fn containers_of_a_network_reach_each_other_and_their_ports_are_published() {
    let host = host();
    let namespace = Namespace::new("podman");
    let podman = Podman::in_namespace(&host, Some(namespace.0.clone()));
    let subnets = ["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"];
    let create = ["network", "create", "--ipv6"];
    podman.done(&[&create[..], &subnets, &["one"]].concat());
    let run = ["run", "--detach", "--name", "web", "--network", "one"];
    let ports = [
        "--ip",
        "10.77.0.9",
        "--ip6",
        "fd77::9",
        "--publish",
        "8088:8080",
    ];
    podman.done(&[&run[..], &ports, &["box", "/bin/sh", "-c", SERVE]].concat());

    // By name, by address, and from the host by the published port.
    wait_until("the published port", || {
        namespace.fetched("http://127.0.0.1:8088/page") == "page\n"
    });
    let other = ["run", "--rm", "--network", "one", "box", "/bin/sh", "-c"];
    let fetch = "for at in web 10.77.0.9 '[fd77::9]'; do \
                 busybox wget -q -O - http://$at:8080/page; done";
    let fetched = podman.done(&[&other[..], &[fetch]].concat());
    assert_eq!(fetched, "page\npage\npage\n");

    // A restart keeps the address.
    podman.done(&["restart", "--time", "0", "web"]);
    wait_until("the port after a restart", || {
        namespace.fetched("http://127.0.0.1:8088/page") == "page\n"
    });
    podman.done(&["rm", "--force", "--time", "0", "web"]);
    podman.done(&["network", "rm", "one"]);
}

#[test]
fn a_running_container_joins_and_leaves_networks_and_a_pod_has_one_address() {
    let host = host();
    let namespace = Namespace::new("podman");
    let podman = Podman::in_namespace(&host, Some(namespace.0.clone()));
    for (name, subnet) in [("one", "10.78.1.0/24"), ("two", "10.78.2.0/24")] {
        podman.done(&["network", "create", "--subnet", subnet, name]);
    }
    let run = ["run", "--detach", "--name", "c", "--network", "one"];
    podman.done(&[&run[..], &["box", "/bin/sleep", "1000"]].concat());
    let addresses = || podman.done(&["exec", "c", "busybox", "ip", "-o", "-4", "addr"]);
    assert!(addresses().contains("10.78.1."));
    podman.done(&["network", "connect", "two", "c"]);
    wait_until("the second network", || addresses().contains("10.78.2."));
    podman.done(&["network", "disconnect", "one", "c"]);
    wait_until("the end of the first network", || {
        !addresses().contains("10.78.1.")
    });
    let links = podman.done(&["exec", "c", "ls", "/sys/class/net"]);
    assert_eq!(links, "eth1\nlo\n", "the device of the first is gone");
    podman.done(&["rm", "--force", "--time", "0", "c"]);

    let infra = [
        "--infra-image",
        "box",
        "--infra-command",
        "/bin/sleep 100000",
    ];
    let create = ["pod", "create", "--name", "pod", "--network", "two"];
    podman.done(&[&create[..], &infra].concat());
    for name in ["a", "b"] {
        let run = ["run", "--detach", "--pod", "pod", "--name", name, "box"];
        podman.done(&[&run[..], &["/bin/sleep", "1000"]].concat());
    }
    let address = |name: &str| podman.done(&["exec", name, "busybox", "ip", "-o", "-4", "addr"]);
    assert_eq!(address("a"), address("b"));
    assert!(address("a").contains("10.78.2."));
    podman.done(&["pod", "rm", "--force", "--time", "0", "pod"]);
}
