//! `--net nat`: an address behind a bridge.

use std::fs;
use std::path::Path;

use test_vm::Host;
use virtcontainers::fault::{VARIABLE, Walk};

use super::super::host;
use super::stage::{FETCH_PAGE, FETCH_PAGE6, HOST6, SERVE, SERVE_DATAGRAMS, Stage, inside};

/// A virtc of which no other test knows the private network.
fn host_with_nat() -> (Host, std::path::PathBuf) {
    let mut host = host();
    let directory = host.dir("nat");
    host.env("VIRTC_NETWORK_NAT_DIR", &directory);
    (host, directory)
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn an_address_behind_the_bridge_reaches_out_and_its_ports_are_reached() {
    let (mut host, directory) = host_with_nat();
    let stage = Stage::new(&host);
    stage.resolve();
    let before = stage.seen();
    let resolver = host.dir("etc").join("resolv.conf");
    fs::write(&resolver, "nameserver 10.7.1.1\n").unwrap();
    let resolver = format!("{}:/etc/resolv.conf:ro", resolver.display());
    let script = format!("{} && getent ahostsv4 peer.test", FETCH_PAGE.join(" "));
    let flags = ["--net", "nat", "-v", &resolver];
    let run = stage.run(&host, &flags, &["sh", "-c", &script]);
    let out = run.expect_code(0).out().to_owned();
    assert!(out.starts_with("served by the peer\n10.7.1.1 "), "{out}");

    let flags = [
        "-q",
        "--net",
        "nat",
        "-p",
        "8080:80",
        "-p",
        "10.7.1.2:8081:80",
    ];
    let mut running = stage.start(&host, &flags, &SERVE);
    for url in ["http://127.0.0.1:8080/page", "http://10.7.1.2:8081/page"] {
        let page = stage.fetched(&mut running, url);
        assert_eq!(page, "served by the machine\n", "{url}");
    }
    // A second machine shares the bridge, and cannot have the port.
    stage
        .run(&host, &["-q", "--net", "nat", "-p", "8080:80"], &["true"])
        .expect_code(125)
        .expect_err(&["127.0.0.1:8080/tcp", "taken by the sandbox"]);
    drop(running.stdin());
    running.wait().expect_code(0);
    assert_eq!(stage.seen(), before);
    assert!(is_empty(&directory));
    drop(stage);
    host.expect_nothing_left();
}

#[test]
fn a_lease_is_given_back_whenever_its_keeper_is_killed() {
    for point in Walk::Nat.points() {
        let (mut host, directory) = host_with_nat();
        let stage = Stage::new(&host);
        let before = stage.seen();
        let run = ["run", "-q", "--net", "nat", "-p", "8080:80", "--", "true"];
        let mut command = stage.enter(host.command(run));
        command.env(VARIABLE, format!("{point}:kill"));
        host.start_command(command).wait().expect_code(128 + 9);
        // From another network than the one that was changed.
        host.virtc(["gc"]).expect_code(0);
        assert_eq!(stage.seen(), before, "{point}");
        assert!(is_empty(&directory), "{point}");
        drop(stage);
        host.expect_nothing_left();
    }
}

#[test]
fn an_address_of_ipv6_behind_the_bridge_reaches_out_and_is_given_back() {
    let (mut host, directory) = host_with_nat();
    let stage = Stage::with_ipv6(&host);
    let before = stage.seen();
    let serving = stage.serve_once();
    let flags = ["-q", "--net", "nat"];
    let run = stage.run(&host, &flags, &["sh", "-c", FETCH_PAGE6]);
    assert_eq!(run.expect_code(0).out(), "served by the peer, by IPv6\n");
    assert_eq!(serving.join().unwrap().to_string(), HOST6);
    assert_eq!(stage.seen(), before);

    let flags = [
        "-q",
        "--net",
        "nat",
        "-p",
        "[::1]:8080:80",
        "-p",
        "8053:53/udp",
    ];
    let more = ["-p", "[2001:db8:7::2]:8081:80", "-p", "[::1]:8053:53/udp"];
    let flags = [&flags[..], &more].concat();
    let mut running = stage.start(&host, &flags, &["sh", "-c", SERVE_DATAGRAMS]);
    for url in ["http://[::1]:8080/page", "http://[2001:db8:7::2]:8081/page"] {
        assert_eq!(
            stage.fetched(&mut running, url),
            "served by the machine\n",
            "{url}"
        );
    }
    for address in ["127.0.0.1:8053", "[::1]:8053"] {
        assert_eq!(stage.echoed(&mut running, address), "echo of asked");
    }
    running.signal(rustix::process::Signal::KILL);
    running.wait().expect_code(128 + 9);
    host.virtc(["gc"]).expect_code(0);
    assert_eq!(stage.seen(), before);
    assert!(is_empty(&directory));
    drop(stage);
    host.expect_nothing_left();
}

#[test]
fn a_table_of_the_host_that_drops_what_is_forwarded_is_named() {
    let (host, _) = host_with_nat();
    let stage = Stage::new(&host);
    let chain = "type filter hook forward priority 0; policy drop;";
    for command in [
        vec!["add", "table", "ip", "engine"],
        vec!["add", "chain", "ip", "engine", "forward", "{", chain, "}"],
    ] {
        let status = inside(&stage.host, "nft").args(command).status();
        assert!(status.unwrap().success());
    }
    stage
        .run(&host, &["--net", "nat"], &["true"])
        .expect_code(0)
        .expect_err(&["ip engine", "drops what it forwards", "virtc0"]);
}

#[test]
fn ipv6_behind_the_bridge_can_be_switched_off() {
    let (mut host, directory) = host_with_nat();
    host.env("VIRTC_NETWORK_NAT_SUBNET6", "none");
    let stage = Stage::with_ipv6(&host);
    let before = stage.seen();
    let show = [
        "sh",
        "-c",
        "cat /proc/net/if_inet6 | grep -c fd76; ls /sys/class/net",
    ];
    let run = stage.run(&host, &["-q", "--net", "nat"], &show);
    assert_eq!(run.expect_code(0).out(), "0\neth0\nlo\n");
    let flags = ["-q", "--net", "nat", "-p", "[::1]:8080:80"];
    stage
        .run(&host, &flags, &["true"])
        .expect_code(125)
        .expect_err(&["[::1]:8080/tcp", "no subnet"]);
    assert_eq!(stage.seen(), before);
    assert!(is_empty(&directory));
    drop(stage);
    host.expect_nothing_left();
}
