//! Networks of Debian's docker, made in a namespace that stands for the host.

use super::docker::Docker;
use super::engine_network::{Namespace, SERVE, wait_until};
use super::host;

const RUN: [&str; 3] = ["run", "--runtime", "virtc"];

#[test]
fn containers_of_a_network_reach_each_other_and_join_another_one() {
    let host = host();
    let namespace = Namespace::new("docker");
    let Some(docker) = Docker::in_namespace(&host, &namespace.0) else {
        return;
    };
    for (name, subnet) in [("one", "10.79.1.0/24"), ("two", "10.79.2.0/24")] {
        docker.done(&["network", "create", "--subnet", subnet, name]);
    }
    let web = ["--detach", "--name", "web", "--network", "one", "--ip"];
    let ports = ["10.79.1.9", "--publish", "8088:8080"];
    let serve = ["box", "/bin/sh", "-c", SERVE];
    docker.done(&[&RUN[..], &web, &ports, &serve].concat());
    wait_until("the published port", || {
        namespace.fetched("http://127.0.0.1:8088/page") == "page\n"
    });

    // By name, which docker's resolver inside the namespace knows, and by address.
    let fetch = "for at in web 10.79.1.9; do busybox wget -q -O - http://$at:8080/page; done";
    let other = ["--rm", "--network", "one", "box", "/bin/sh", "-c", fetch];
    assert_eq!(docker.done(&[&RUN[..], &other].concat()), "page\npage\n");

    let addresses = || docker.done(&["exec", "web", "busybox", "ip", "-o", "-4", "addr"]);
    assert!(addresses().contains("10.79.1.9"));
    docker.done(&["network", "connect", "two", "web"]);
    wait_until("the second network", || addresses().contains("10.79.2."));
    docker.done(&["network", "disconnect", "one", "web"]);
    wait_until("the end of the first network", || {
        !addresses().contains("10.79.1.")
    });
    docker.done(&["rm", "--force", "web"]);
    for name in ["one", "two"] {
        docker.done(&["network", "rm", name]);
    }
}
