//! What is refused, with the reason and without a change.

use std::env;
use std::net::Ipv4Addr;
use std::process::Command;

use vc_network::{Error, HostNetwork, Nat, NatConfig, Protocol};
use vc_types::Hint;

use crate::common::{assert_same, need_root};
use crate::setting::{
    DIRECTORY_VARIABLE, HOST_VARIABLE, MARK, Setting, everybody, id, listener, port,
};

#[test]
fn a_port_that_a_program_of_the_host_has_is_refused_and_so_is_one_twice() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    let taken = listener(&setting.host.open(), Ipv4Addr::UNSPECIFIED, 8080);
    let wanted = port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 8080, 80);
    let other = port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 8081, 80);
    for ports in [vec![wanted], vec![other, other]] {
        let error = nat.lease(&id("web"), &ports, everybody).unwrap_err();
        assert!(
            matches!(error, Error::PortTaken { owner: None, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("127.0.0.1:808"), "{error}");
        assert_same(&setting.snapshot(), &before, "after it");
    }
    drop(taken);
    nat.lease(&id("web"), &[wanted], everybody).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_changes_nothing() {
    need_root!();
    let setting = Setting::new();
    let file = setting.directory.path().join("leases.json");
    for text in ["", "{\"host\":1}", "[]"] {
        std::fs::write(&file, text).unwrap();
        let before = setting.snapshot();
        let nat = setting.nat();
        let error = nat.lease(&id("web"), &[], everybody).unwrap_err();
        assert!(error.to_string().contains("leases.json"), "{error}");
        assert!(nat.release(&id("web")).is_err());
        assert_same(&setting.snapshot(), &before, text);
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn forwarding_stays_on_where_it_was_on_or_others_have_rules_for_it() {
    need_root!();
    let setting = Setting::new();
    let nat = setting.nat();
    setting.set_forwarding("1");
    nat.lease(&id("web"), &[], everybody).unwrap();
    nat.release(&id("web")).unwrap();
    assert_eq!(setting.forwarding(), "1");

    setting.set_forwarding("0");
    nat.lease(&id("web"), &[], everybody).unwrap();
    setting.host.nft("add table inet engine");
    setting
        .host
        .nft("add chain inet engine forward { type filter hook forward priority 0 ; }");
    nat.release(&id("web")).unwrap();
    assert_eq!(setting.forwarding(), "1");
}

#[test]
fn a_table_that_drops_what_is_forwarded_is_named_and_left_alone() {
    need_root!();
    let setting = Setting::new();
    let nat = setting.nat();
    let lease = nat.lease(&id("one"), &[], everybody).unwrap();
    assert!(lease.dropped_by().is_empty());
    setting.host.nft("add table ip engine");
    setting
        .host
        .nft("add chain ip engine FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    let theirs = setting.host.nft("list table ip engine");
    let lease = nat.lease(&id("two"), &[], everybody).unwrap();
    assert_eq!(lease.dropped_by(), ["ip engine"]);
    nat.release(&id("one")).unwrap();
    nat.release(&id("two")).unwrap();
    assert_eq!(setting.host.nft("list table ip engine"), theirs);
}

#[test]
fn without_nft_the_package_is_named_and_nothing_is_changed() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    // A mount namespace in which the directory of nft is empty.
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs none /usr/sbin && exec \"$0\" --exact refused::a_process_without_nft --nocapture")
        .arg(env::current_exe().unwrap())
        .env(DIRECTORY_VARIABLE, setting.directory.path())
        .env(HOST_VARIABLE, setting.host.path())
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(MARK), "{said}");
    assert_same(&setting.snapshot(), &before, "after it");
}

/// The other process of the test before. As a test, it does nothing.
#[test]
fn a_process_without_nft() {
    let (Some(directory), Some(host)) =
        (env::var_os(DIRECTORY_VARIABLE), env::var_os(HOST_VARIABLE))
    else {
        return;
    };
    let host = HostNetwork::at(host).unwrap();
    let nat = Nat::open(directory, NatConfig::default(), host).unwrap();
    let error = nat.lease(&id("web"), &[], everybody).unwrap_err();
    assert!(
        matches!(error, Error::NoProgram { program: "nft", .. }),
        "{error}"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("install the package nftables")
    );
    println!("\n{MARK}");
}

#[test]
fn what_cannot_be_leased_is_refused_with_the_reason_and_changes_nothing() {
    need_root!();
    let setting = Setting::new();
    let refused = |config: NatConfig, expected: &str| {
        let before = setting.snapshot();
        let nat = setting.nat_with(config);
        let error = nat.lease(&id("new"), &[], everybody).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_same(&setting.snapshot(), &before, "after it");
        error
    };
    let config = |bridge: &str, subnet: &str| {
        NatConfig::new(bridge.parse().unwrap(), subnet.parse().unwrap()).unwrap()
    };
    setting.host.ip("link add taken type bridge");
    refused(config("taken", "10.1.0.0/24"), "has a link taken");
    setting.host.ip("link del taken");
    let error = refused(
        config("virtc0", "198.51.0.0/16"),
        "the address 198.51.100.1/24",
    );
    assert!(error.hint().unwrap().contains("choose a subnet"));
    setting.host.ip("route add 10.1.2.0/24 via 198.51.100.2");
    refused(config("virtc0", "10.1.0.0/16"), "the route to 10.1.2.0/24");

    let small = setting.nat_with(config("virtc0", "10.3.0.0/29"));
    for number in 0..5 {
        small
            .lease(&id(&format!("n{number}")), &[], everybody)
            .unwrap();
    }
    refused(
        config("virtc0", "10.3.0.0/29"),
        "all addresses of 10.3.0.0/29",
    );
    refused(
        NatConfig::default(),
        "leases of the bridge virtc0 with the subnet 10.3.0.0/29",
    );
    // An owner that has died makes place.
    let lease = small.lease(&id("new"), &[], |owner| owner.as_str() != "n3");
    assert_eq!(lease.unwrap().address(), Ipv4Addr::new(10, 3, 0, 5));
}
