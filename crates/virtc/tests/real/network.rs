//! Networks of namespaces: what is in one reaches the guest, and is left as it was.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_vm::Host;
use virtcontainers::fault::{VARIABLE, Walk};

use super::host;
use super::oci::bundle;

/// How long the kernel may take to give a link its own address.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at it.
const SETTLE_RETRY: Duration = Duration::from_millis(50);

/// Runs a program of the host to its end.
pub(super) fn sh(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// Two network namespaces of a test: that of a container, with `eth0`, and its only neighbour.
pub(super) struct Wire {
    pub(super) container: String,
    pub(super) peer: String,
}

impl Wire {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("virtc-test-{}-{number}-{end}", std::process::id());
        let wire = Self {
            container: name("c"),
            peer: name("p"),
        };
        let (container, peer) = (wire.container.as_str(), wire.peer.as_str());
        for namespace in [container, peer] {
            sh("ip", &["netns", "add", namespace]);
            sh("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        }
        let veth = ["type", "veth", "peer", "name", "out", "netns", peer];
        let mut add = vec!["-n", container, "link", "add", "eth0", "mtu", "1420"];
        add.extend(veth);
        sh("ip", &add);
        for (namespace, link, v4, v6) in [
            (container, "eth0", "10.7.0.2/24", "fd07::2/64"),
            (peer, "out", "10.7.0.1/24", "fd07::1/64"),
        ] {
            sh("ip", &["-n", namespace, "link", "set", link, "up"]);
            for address in [v4, v6] {
                let add = [
                    "-n", namespace, "addr", "add", address, "dev", link, "nodad",
                ];
                sh("ip", &add);
            }
        }
        let route = [
            "-n", container, "route", "add", "default", "via", "10.7.0.1",
        ];
        sh("ip", &route);
        wire.settle();
        wire
    }

    /// Waits for the addresses that links make for themselves, which are looked for first.
    pub(super) fn settle(&self) {
        let begun = Instant::now();
        let is_settled = |seen: &str| seen.contains("inet6 fe80:") && !seen.contains("tentative");
        while !is_settled(&self.seen()) {
            assert!(begun.elapsed() < SETTLE_LIMIT, "{}", self.seen());
            std::thread::sleep(SETTLE_RETRY);
        }
    }

    /// Everything that somebody could have changed in the container's namespace.
    pub(super) fn seen(&self) -> String {
        let namespace = self.container.as_str();
        let ip = |args: &[&str]| sh("ip", &[&["-n", namespace], args].concat());
        let mut seen = ip(&["-d", "addr"]);
        seen += &ip(&["route"]);
        seen += &ip(&["-6", "route"]);
        seen += &ip(&["neigh", "show", "nud", "permanent"]);
        seen += &sh("tc", &["-n", namespace, "qdisc"]);
        let inside = format!("--net=/run/netns/{namespace}");
        seen += &sh("nsenter", &[&inside, "nft", "list", "ruleset"]);
        let filters = ["-n", namespace, "filter", "show", "dev", "eth0", "ingress"];
        // Where there is no such qdisc, tc says so by its code.
        let filters = Command::new("tc").args(filters).output().unwrap().stdout;
        seen + &String::from_utf8(filters).unwrap()
    }

    /// Makes the bundle of a container in the namespace.
    pub(super) fn bundle(&self, host: &Host, args: &[&str]) -> String {
        self.bundle_with(host, args, |_| {})
    }

    /// The same, changed.
    pub(super) fn bundle_with(
        &self,
        host: &Host,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> String {
        let path = format!("/run/netns/{}", self.container);
        let directory = bundle(host, args, |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "network");
            namespaces.push(json!({"type": "network", "path": path}));
            change(config);
        });
        directory.to_str().unwrap().to_owned()
    }

    /// What the container's neighbour gets at an address.
    pub(super) fn fetched(&self, url: &str) -> String {
        let in_peer = ["netns", "exec", &self.peer];
        let wget = ["timeout", "20", "busybox", "wget", "-q", "-O", "-", url];
        sh("ip", &[&in_peer[..], &wget].concat())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.container, &self.peer] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

/// `virtc create`, whose stand-in lives on.
pub(super) fn create(host: &Host, bundle: &str, fault: Option<&str>, id: &str) -> bool {
    let mut command = host.command(["create", "--bundle", bundle, id]);
    if let Some(point) = fault {
        command.env(VARIABLE, format!("{point}:kill"));
    }
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().unwrap().success()
}

#[test]
fn what_is_in_the_namespace_is_the_guests_and_stays_as_it_was() {
    let mut host = host();
    let wire = Wire::new();
    let before = wire.seen();
    let bundle = wire.bundle(&host, &["/bin/sleep", "1000"]);
    assert!(create(&host, &bundle, None, "c1"));
    host.virtc(["start", "c1"]).expect_code(0);

    let script = "echo served > /page; httpd -p 8080 -h /; \
                  ip link show eth0; ip -4 -o addr show eth0; ip -6 -o addr show eth0; \
                  ip route; wget -q -O - http://10.7.0.2:8080/page";
    let seen = host
        .virtc(["exec", "c1", "sh", "-c", script])
        .expect_code(0);
    for text in [
        "mtu 1420",
        "10.7.0.2/24",
        "fd07::2/64",
        "default via 10.7.0.1 dev eth0",
        "served\n",
    ] {
        assert!(seen.out().contains(text), "{text}: {}", seen.out());
    }
    assert!(!seen.out().contains("tentative"), "{}", seen.out());
    let listed = host.virtc(["network", "ls", "c1"]).expect_code(0);
    assert!(
        listed.out().contains("\"ip\": \"fd07::2\""),
        "{}",
        listed.out()
    );
    let routes = host.virtc(["network", "route", "c1"]).expect_code(0).out();
    assert!(routes.contains("\"gateway\": \"10.7.0.1\""), "{routes}");
    let file = host.dir("routes").join("routes.json");
    let more = json!([
        {"destination": null, "gateway": "10.7.0.1", "interface": "eth0"},
        {"destination": {"ip": "10.50.0.0", "prefix": 16}, "gateway": "10.7.0.1",
         "interface": "eth0"},
    ]);
    std::fs::write(&file, more.to_string()).unwrap();
    let set = ["network", "route", "c1", "--set", file.to_str().unwrap()];
    let routes = host.virtc(set).expect_code(0).out();
    assert!(routes.contains("\"ip\": \"10.50.0.0\""), "{routes}");
    assert_eq!(wire.fetched("http://10.7.0.2:8080/page"), "served\n");
    assert_eq!(wire.fetched("http://[fd07::2]:8080/page"), "served\n");

    // Our guest has no packet filter, and says so.
    let rules = host.dir("rules").join("rules");
    std::fs::write(&rules, "*filter\nCOMMIT\n").unwrap();
    let set = [
        "network",
        "iptables",
        "c1",
        "--ipv6",
        "--set",
        rules.to_str().unwrap(),
    ];
    for (command, program) in [(&set[..3], "iptables"), (&set, "ip6tables")] {
        host.virtc(command.iter().copied())
            .expect_code(1)
            .expect_err(&[&format!("{program} in this guest is not supported")]);
    }

    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}

#[test]
fn the_namespace_is_as_it_was_whenever_the_keeper_is_killed() {
    let wire = Wire::new();
    let before = wire.seen();
    let models = [("tcfilter", "VIRTC_NETWORK_RECEIVE_RATE"), ("macvtap", "")];
    let points = Walk::Network.points();
    let cases = points
        .iter()
        .flat_map(|point| models.map(|model| (point, model)));
    for (point, (model, receive)) in cases {
        let mut host = host();
        host.env("VIRTC_NETWORK_LOOPBACK_RELAY", "true");
        host.env("VIRTC_NETWORK_INTERWORKING", model);
        // What was limited is freed too.
        for key in ["VIRTC_NETWORK_SEND_RATE", receive] {
            if !key.is_empty() {
                host.env(key, "1 Gbit");
            }
        }
        let bundle = wire.bundle(&host, &["/bin/true"]);
        if create(&host, &bundle, Some(point), "c1") {
            // It is killed at its end.
            host.virtc(["start", "c1"]).expect_code(0);
        }
        host.virtc(["delete", "--force", "c1"]).expect_code(0);
        assert_eq!(wire.seen(), before, "{point} {model}");
        host.expect_nothing_left();
    }
}

#[test]
fn the_hosts_own_network_is_refused() {
    let host = host();
    let directory = bundle(&host, &["/bin/true"], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "network");
        namespaces.push(json!({"type": "network", "path": "/proc/self/ns/net"}));
    });
    let bundle = directory.to_str().unwrap();
    host.virtc(["create", "--bundle", bundle, "c1"])
        .expect_code(1)
        .expect_err(&["network", "host"]);
}

/// How often a network is made and undone.
fn cycles() -> usize {
    let count = std::env::var("VIRTC_TEST_NETWORK_CYCLES").ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(3)
}

#[test]
fn many_machines_leave_no_trace_in_a_namespace() {
    let wire = Wire::new();
    let before = wire.seen();
    let mut host = host();
    for _ in 0..cycles() {
        let bundle = wire.bundle(&host, &["/bin/true"]);
        assert!(create(&host, &bundle, None, "c1"));
        host.virtc(["delete", "--force", "c1"]).expect_code(0);
        assert_eq!(wire.seen(), before);
    }
    host.expect_nothing_left();
}

#[test]
fn links_that_come_and_go_leave_no_trace() {
    let mut host = host();
    let wire = Wire::new();
    let (container, peer) = (wire.container.as_str(), wire.peer.as_str());
    let ip = |args: &[&str]| sh("ip", &[&["-n", container], args].concat());
    let before = wire.seen();
    let bundle = wire.bundle(&host, &["/bin/sleep", "1000"]);
    assert!(create(&host, &bundle, None, "c1"));
    host.virtc(["start", "c1"]).expect_code(0);
    let state = host.virtc(["state", "c1"]).expect_code(0).out();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let descriptors = || {
        let path = format!("/proc/{}/fd", state["pid"]);
        std::fs::read_dir(path).unwrap().count()
    };
    let running = wire.seen();
    let open = descriptors();
    for _ in 0..cycles() {
        let veth = ["type", "veth", "peer", "name", "out1", "netns", peer];
        ip(&[&["link", "add", "net1"], &veth[..]].concat());
        ip(&["addr", "add", "10.8.0.2/24", "dev", "net1"]);
        ip(&["link", "set", "net1", "up"]);
        wait_for_addresses(&host, |seen| seen.contains("net1    inet 10.8.0.2/24"));
        ip(&["link", "del", "net1"]);
        wait_for_addresses(&host, |seen| !seen.contains("net1"));
        // The guest has let go of it a moment before the host has undone its part, and the
        // keeper's sockets of that and of the last exec close a moment later.
        let begun = Instant::now();
        while wire.seen() != running {
            assert!(begun.elapsed() < SETTLE_LIMIT, "{}", wire.seen());
            std::thread::sleep(SETTLE_RETRY);
        }
        while descriptors() > open {
            assert!(begun.elapsed() < SETTLE_LIMIT, "{} > {open}", descriptors());
            std::thread::sleep(SETTLE_RETRY);
        }
    }
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);
    host.expect_nothing_left();
}

/// Waits until the guest's addresses are so; what brings them is another process.
fn wait_for_addresses(host: &Host, is_so: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    loop {
        let seen = host
            .virtc(["exec", "c1", "busybox", "ip", "-o", "addr"])
            .expect_code(0)
            .out();
        if is_so(&seen) {
            return;
        }
        assert!(begun.elapsed() < SETTLE_LIMIT, "{seen}");
        std::thread::sleep(SETTLE_RETRY);
    }
}

#[test]
fn what_cannot_be_the_guests_is_left_out_and_keeps_nothing_else() {
    let mut host = host();
    let wire = Wire::new();
    let (container, peer) = (wire.container.as_str(), wire.peer.as_str());
    let ip = |args: &[&str]| sh("ip", &[&["-n", container], args].concat());
    let add_veth = |name: &str, out: &str, address: &str| {
        let veth = ["type", "veth", "peer", "name", out, "netns", peer];
        ip(&[&["link", "add", name], &veth[..]].concat());
        ip(&["addr", "add", address, "dev", name]);
    };
    // At the start, one without an address is left out; one that cannot be a guest's is refused.
    ip(&["link", "add", "idle0", "type", "bridge"]);
    ip(&["tuntap", "add", "tun0", "mode", "tun"]);
    let bundle = wire.bundle(&host, &["/bin/sleep", "1000"]);
    ip(&["addr", "add", "10.9.0.2/24", "dev", "tun0"]);
    let before = wire.seen();
    host.virtc(["create", "--bundle", &bundle, "c1"])
        .expect_code(1)
        .expect_err(&["tun0", "not Ethernet frames"]);
    assert_eq!(wire.seen(), before);
    ip(&["addr", "del", "10.9.0.2/24", "dev", "tun0"]);
    assert!(create(&host, &bundle, None, "c1"));
    host.virtc(["start", "c1"]).expect_code(0);
    wait_for_addresses(&host, |seen| {
        seen.contains("10.7.0.2/24") && !seen.contains("idle0")
    });

    // While it runs, it keeps nothing else from the guest.
    ip(&["addr", "add", "10.9.0.2/24", "dev", "tun0"]);
    add_veth("net1", "out1", "10.8.0.2/24");
    wait_for_addresses(&host, |seen| seen.contains("net1    inet 10.8.0.2/24"));
    // Two links of one address would be taken for each other: nothing of it is the guest's.
    let mac = ip(&["-br", "link", "show", "dev", "eth0"]);
    let mac = mac.split_whitespace().nth(2).unwrap().to_owned();
    let veth = ["type", "veth", "peer", "name", "out2", "netns", peer];
    ip(&[&["link", "add", "net2", "address", &mac], &veth[..]].concat());
    ip(&["addr", "add", "10.8.1.2/24", "dev", "net2"]);
    ip(&["link", "set", "net2", "address", "02:00:00:00:08:01"]);
    wait_for_addresses(&host, |seen| seen.contains("net2    inet 10.8.1.2/24"));
    let seen = host.virtc(["exec", "c1", "busybox", "ip", "-o", "link"]);
    let seen = seen.expect_code(0).out();
    assert!(!seen.contains("tun0") && !seen.contains("idle0"), "{seen}");

    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    let after = wire.seen();
    for ours in ["vctap", "ingress", "mirred"] {
        assert!(!after.contains(ours), "{after}");
    }
    host.expect_nothing_left();
}

#[test]
fn what_changes_in_the_namespace_comes_to_the_guest() {
    let mut host = host();
    let wire = Wire::new();
    let (container, peer) = (wire.container.as_str(), wire.peer.as_str());
    let bundle = wire.bundle(&host, &["/bin/sleep", "1000"]);
    assert!(create(&host, &bundle, None, "c1"));
    host.virtc(["start", "c1"]).expect_code(0);
    let ip = |args: &[&str]| sh("ip", &[&["-n", container], args].concat());

    // A link more, which is plugged in, with a route by it.
    let veth = ["type", "veth", "peer", "name", "out1", "netns", peer];
    ip(&[&["link", "add", "net1"], &veth[..]].concat());
    ip(&["addr", "add", "10.8.0.2/24", "dev", "net1"]);
    ip(&["link", "set", "net1", "up"]);
    ip(&["route", "add", "10.99.0.0/16", "via", "10.8.0.1"]);
    sh(
        "ip",
        &["-n", peer, "addr", "add", "10.8.0.1/24", "dev", "out1"],
    );
    sh("ip", &["-n", peer, "link", "set", "out1", "up"]);
    wait_for_addresses(&host, |seen| seen.contains("net1    inet 10.8.0.2/24"));
    let script = "echo served > /page; httpd -p 8080 -h /; ip route";
    let seen = host
        .virtc(["exec", "c1", "sh", "-c", script])
        .expect_code(0);
    assert!(
        seen.out().contains("10.99.0.0/16 via 10.8.0.1 dev net1"),
        "{}",
        seen.out()
    );
    assert_eq!(wire.fetched("http://10.8.0.2:8080/page"), "served\n");

    // Another address, and both links go: that which was there from the beginning too.
    ip(&["addr", "add", "10.8.0.3/24", "dev", "net1"]);
    wait_for_addresses(&host, |seen| seen.contains("10.8.0.3/24"));
    ip(&["link", "del", "net1"]);
    wait_for_addresses(&host, |seen| !seen.contains("net1"));
    assert_eq!(wire.fetched("http://10.7.0.2:8080/page"), "served\n");
    ip(&["addr", "flush", "dev", "eth0"]);
    wait_for_addresses(&host, |seen| !seen.contains("10.7.0.2"));
    for address in ["10.7.0.2/24", "fd07::2/64"] {
        ip(&["addr", "add", address, "dev", "eth0", "nodad"]);
    }
    ip(&["route", "add", "default", "via", "10.7.0.1"]);
    wait_for_addresses(&host, |seen| seen.contains("10.7.0.2/24"));
    assert_eq!(wire.fetched("http://10.7.0.2:8080/page"), "served\n");

    // A link of the start goes with its device too, and its place is free again.
    ip(&["link", "del", "eth0"]);
    wait_for_addresses(&host, |seen| !seen.contains("eth0"));
    let list = ["exec", "c1", "busybox", "ip", "-o", "link"];
    let links = host.virtc(list).expect_code(0).out();
    assert!(
        links.starts_with("1: lo") && links.lines().count() == 1,
        "{links}"
    );
    let veth = ["type", "veth", "peer", "name", "out2", "netns", peer];
    ip(&[&["link", "add", "eth0"], &veth[..]].concat());
    ip(&["addr", "add", "10.7.0.2/24", "dev", "eth0"]);
    ip(&["link", "set", "eth0", "up"]);
    sh(
        "ip",
        &["-n", peer, "addr", "add", "10.7.0.1/24", "dev", "out2"],
    );
    sh("ip", &["-n", peer, "link", "set", "out2", "up"]);
    wait_for_addresses(&host, |seen| seen.contains("10.7.0.2/24"));
    assert_eq!(wire.fetched("http://10.7.0.2:8080/page"), "served\n");

    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    let after = wire.seen();
    for ours in ["vctap", "ingress", "mirred"] {
        assert!(!after.contains(ours), "{after}");
    }
    host.expect_nothing_left();
}
