//! Leases are taken back, whatever became of those who had them.

use std::cell::RefCell;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use vc_network::{Error, HostNetwork, Nat, NatConfig};
use vc_types::Hint;

use crate::common::{assert_same, need_root};
use crate::setting::{DIRECTORY_VARIABLE, HOST_VARIABLE, MARK, Setting, everybody, id};

#[test]
fn it_is_taken_back_whatever_of_it_has_vanished() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    for vanished in ["veth", "bridge", "table", "namespace"] {
        let lease = nat.lease(&id("web"), &[], everybody).unwrap();
        match vanished {
            "veth" => drop(setting.host.ip("link del virtc0-2")),
            "bridge" => drop(setting.host.ip("link del virtc0")),
            "table" => drop(setting.host.nft("flush ruleset")),
            _ => {
                rustix::mount::unmount(lease.namespace(), rustix::mount::UnmountFlags::DETACH)
                    .unwrap();
                std::fs::remove_file(lease.namespace()).unwrap();
            }
        }
        nat.release(&id("web")).unwrap();
        assert_same(&setting.snapshot(), &before, vanished);
    }
}

#[test]
fn it_is_taken_back_at_whichever_step_it_was_interrupted() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    let file = setting.directory.path().join("leases.json");
    let lease = nat.lease(&id("web"), &[], everybody).unwrap();
    let text = std::fs::read(&file).unwrap();
    nat.release(&id("web")).unwrap();
    let namespace = lease.namespace();
    let host = &setting.host;
    let steps: [&dyn Fn(); 7] = [
        &|| std::fs::write(&file, &text).unwrap(),
        &|| drop(host.nft("add table ip virtcontainers-virtc0")),
        &|| drop(host.ip("link add virtc0 type bridge")),
        &|| setting.set_forwarding("1"),
        &|| std::fs::create_dir_all(namespace.parent().unwrap()).unwrap(),
        &|| std::fs::write(namespace, "").unwrap(),
        &|| drop(host.ip("link add virtc0-2 type veth peer name inner")),
    ];
    for last in 0..steps.len() {
        for step in &steps[..=last] {
            step();
        }
        assert_ne!(setting.snapshot(), before, "step {last}");
        assert_eq!(nat.collect(|_| false).unwrap(), [id("web")]);
        assert_same(&setting.snapshot(), &before, &format!("step {last}"));
    }
    // One that was interrupted while it was taken back is taken back by the next lease.
    for step in steps {
        step();
    }
    nat.lease(&id("next"), &[], |_| false).unwrap();
    nat.release(&id("next")).unwrap();
    assert_same(&setting.snapshot(), &before, "after the next one");
}

#[test]
fn what_a_killed_owner_had_is_taken_back_by_the_next_one() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let killed = || {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "undone::a_process_that_leases_and_waits",
                "--nocapture",
            ])
            .env(DIRECTORY_VARIABLE, setting.directory.path())
            .env(HOST_VARIABLE, setting.host.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let leased = output.lines().any(|line| line.unwrap().contains(MARK));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(leased);
    };
    killed();
    let nat = setting.nat();
    let asked = RefCell::new(Vec::new());
    let lease = nat.lease(&id("next"), &[], |owner| {
        asked.borrow_mut().push(owner.to_string());
        false
    });
    assert_eq!(asked.into_inner(), ["killed"]);
    assert_eq!(lease.unwrap().address(), Ipv4Addr::new(10, 89, 199, 2));
    killed();
    let freed = nat.collect(|owner| owner.as_str() == "next").unwrap();
    assert_eq!(freed, [id("killed")]);
    nat.release(&id("next")).unwrap();
    assert_same(&setting.snapshot(), &before, "after it");
}

/// The other process of the test before. As a test, it does nothing.
#[test]
fn a_process_that_leases_and_waits() {
    let (Some(directory), Some(host)) =
        (env::var_os(DIRECTORY_VARIABLE), env::var_os(HOST_VARIABLE))
    else {
        return;
    };
    let host = HostNetwork::at(host).unwrap();
    let nat = Nat::open(directory, NatConfig::default(), host).unwrap();
    let _lease = nat.lease(&id("killed"), &[], everybody).unwrap();
    let mut stdout = io::stdout();
    writeln!(stdout, "\n{MARK}").unwrap();
    stdout.flush().unwrap();
    // Until it is killed, or nobody waits for it any more.
    io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn many_at_once_get_addresses_of_their_own() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let leased: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let nat = setting.nat();
                scope.spawn(move || {
                    let owner = id(&format!("n{number}"));
                    nat.lease(&owner, &[], everybody).unwrap().address()
                })
            })
            .collect();
        threads.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut distinct = leased.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{leased:?}");
    std::thread::scope(|scope| {
        for number in 0..4 {
            let nat = setting.nat();
            scope.spawn(move || nat.release(&id(&format!("n{number}"))).unwrap());
        }
    });
    assert_same(&setting.snapshot(), &before, "after it");
}

#[test]
fn a_caller_in_another_network_takes_back_where_the_lease_was_made_and_leases_nothing() {
    need_root!();
    let setting = Setting::new();
    let before = setting.snapshot();
    let nat = setting.nat();
    nat.lease(&id("web"), &[], everybody).unwrap();
    nat.lease(&id("db"), &[], everybody).unwrap();
    let elsewhere = HostNetwork::at(setting.world.path()).unwrap();
    let elsewhere = Nat::open(setting.directory.path(), NatConfig::default(), elsewhere).unwrap();
    let world = setting.world.snapshot();
    let error = elsewhere.lease(&id("new"), &[], everybody).unwrap_err();
    assert!(matches!(error, Error::OtherHost { .. }), "{error}");
    assert!(error.hint().is_some());
    elsewhere.release(&id("web")).unwrap();
    assert!(
        setting.host.ip("link").contains("virtc0"),
        "one has it still"
    );
    elsewhere.release(&id("db")).unwrap();
    assert_same(&setting.snapshot(), &before, "released from elsewhere");
    assert_same(&setting.world.snapshot(), &world, "the other network");
}
