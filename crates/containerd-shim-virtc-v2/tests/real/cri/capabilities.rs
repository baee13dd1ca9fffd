//! What a process may do by its capabilities, and what a program adds to them.

use k8s_cri::v1::{Capability, ContainerConfig};

use super::security::{WAIT, context, id};
use super::{Client, Containerd, Network, settings};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Adds and drops.
fn capabilities(config: &mut ContainerConfig, add: &[&str], drop: &[&str]) {
    context(config).capabilities = Some(Capability {
        add_capabilities: names(add),
        drop_capabilities: names(drop),
        ..Capability::default()
    });
}

/// The most that a container's processes can ever have.
#[track_caller]
fn bound(client: &mut Client, id: &str) -> u64 {
    let said = client.say(id, "grep CapBnd: /proc/self/status");
    let digits = said.split_whitespace().last().unwrap();
    u64::from_str_radix(digits, 16).unwrap()
}

/// Adds a bridge to the pod's network.
const BRIDGE: &str = "brctl addbr br7 && ls -d /sys/class/net/br7";

/// Needs a raw socket. By its path: the shell has one of its own.
const PING: &str = "/bin/ping -c 1 -w 5 127.0.0.1 | grep -c '1 packets received'";

#[test]
fn capabilities_are_added_and_dropped_alone_and_all_at_once() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let pod = client.run_pod("capabilities");
    let usual = client.begin(&pod, "usual", &WAIT, |_| {});
    assert_eq!(client.say(&usual, PING), "1");
    let said = client.say(&usual, BRIDGE);
    assert!(said.contains("not permitted"), "{said}");
    let admin = client.begin(&pod, "admin", &WAIT, |config| {
        capabilities(config, &["NET_ADMIN"], &[]);
    });
    assert_eq!(client.say(&admin, BRIDGE), "/sys/class/net/br7");
    let without = client.begin(&pod, "without", &WAIT, |config| {
        capabilities(config, &[], &["NET_RAW"]);
    });
    let said = client.say(&without, PING);
    assert!(said.contains("ermission denied"), "{said}");
    let all = client.begin(&pod, "all", &WAIT, |config| {
        capabilities(config, &["ALL"], &[]);
    });
    let none = client.begin(&pod, "none", &WAIT, |config| {
        capabilities(config, &[], &["ALL"]);
    });
    let some = bound(&mut client, &usual);
    let most = bound(&mut client, &all);
    assert!(some != 0 && most & some == some && most > some, "{most:x}");
    assert_eq!(bound(&mut client, &none), 0);

    // A program with the rights of its owner gives them to others, unless that is forbidden.
    for (name, forbidden) in [("raised", false), ("held", true)] {
        let user = client.begin(&pod, name, &WAIT, |config| {
            let context = context(config);
            context.run_as_user = id(1000);
            context.no_new_privs = forbidden;
        });
        let said = client.say(&user, PING);
        match forbidden {
            false => assert_eq!(said, "1"),
            true => assert!(said.contains("ermission denied"), "{said}"),
        }
    }
    // A group belongs to a user.
    let alone = client.try_create(&pod, "group", &WAIT, |config| {
        context(config).run_as_group = id(2000);
    });
    alone.unwrap_err();
    client.stop_pod(&pod);
    client.remove_pod(&pod);
}
