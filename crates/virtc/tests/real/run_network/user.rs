//! `--net user`: a process of the host makes the connections.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use test_vm::Host;

use super::super::host;
use super::stage::{
    FETCH_PAGE, FETCH_PAGE6, HOST6, LARGE_BYTES, RETRY, SERVE, SERVE_DATAGRAMS, Stage, in_namespace,
};

/// A script of a machine that fetches, looks a name up, and sends much.
fn reach_out() -> String {
    format!(
        "{} && getent ahostsv4 peer.test | head -n 1 && \
         timeout 40 busybox wget -q -O - http://10.7.1.1/large | wc -c",
        FETCH_PAGE.join(" ")
    )
}

/// What is told by names in the playing host: its neighbour. The mounts are the command's own.
fn with_resolver(stage: &Stage, host: &Host, command: Command) -> Command {
    let file = host.dir("etc").join("resolv.conf");
    fs::write(&file, "nameserver 10.7.1.1\nsearch test\n").unwrap();
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$@\"",
        file.display()
    );
    let mut inner = Command::new("unshare");
    inner
        .args([
            "--mount",
            "--propagation",
            "slave",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            inner.env(name, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        inner.current_dir(directory);
    }
    stage.enter(inner)
}

/// A process of the host makes the connections, and nothing of the host is changed meanwhile.
fn a_user_network_is_reached_both_ways(backend: &str) {
    let mut host = host();
    host.env("VIRTC_NETWORK_USER_BACKEND", backend);
    let stage = Stage::new(&host);
    stage.resolve();
    let before = stage.seen();
    let script = reach_out();
    let run = ["run", "-q", "--net", "user", "--", "sh", "-c", &script];
    let command = with_resolver(&stage, &host, host.command(run));
    let run = host.start_command(command).wait().expect_code(0);
    let out = run.out();
    assert!(out.starts_with("served by the peer\n10.7.1.1 "), "{out}");
    assert!(out.ends_with(&format!("\n{LARGE_BYTES}\n")), "{out}");

    // Ports alone ask for it.
    let flags = ["-q", "-p", "8080:80", "-p", "10.7.1.2:8081:80"];
    let mut running = stage.start(&host, &flags, &SERVE);
    for url in ["http://127.0.0.1:8080/page", "http://10.7.1.2:8081/page"] {
        let page = stage.fetched(&mut running, url);
        assert_eq!(page, "served by the machine\n", "{url}");
    }
    assert_eq!(stage.seen(), before);
    stage
        .run(&host, &["-q", "-p", "8080:80"], &["true"])
        .expect_code(125)
        .expect_err(&["127.0.0.1:8080/tcp", "taken"]);
    drop(running.stdin());
    running.wait().expect_code(0);
    assert_eq!(stage.seen(), before);
    drop(stage);
    host.expect_nothing_left();
}

#[test]
fn passt_makes_the_connections_of_a_machine() {
    a_user_network_is_reached_both_ways("passt");
}

#[test]
fn qemu_makes_the_connections_of_a_machine() {
    a_user_network_is_reached_both_ways("qemu");
}

#[test]
fn passt_has_no_rights_takes_low_ports_and_ends_with_its_keeper() {
    let mut host = host();
    host.env("VIRTC_NETWORK_USER_BACKEND", "passt");
    let stage = Stage::new(&host);
    let flags = ["-q", "--name", "web", "-p", "80:80"];
    let mut running = stage.start(&host, &flags, &SERVE);
    let page = stage.fetched(&mut running, "http://127.0.0.1:80/page");
    assert_eq!(page, "served by the machine\n");
    let passt = running.wait_for_process("--no-map-gw");
    let status = fs::read_to_string(format!("/proc/{}/status", passt.pid)).unwrap();
    let users = vc_types::SandboxUsers::of(&"web".parse().unwrap());
    assert!(
        status.contains(&format!("Uid:\t{}", users.network())),
        "{status}"
    );
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let caps = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"));
    let caps = u64::from_str_radix(caps.unwrap(), 16).unwrap();
    assert_eq!(
        caps & !(1 << 10),
        0,
        "no right but that of low ports: {status}"
    );
    running.signal(rustix::process::Signal::KILL);
    running.wait().expect_code(128 + 9);
    host.virtc(["gc"]).expect_code(0);
    drop(stage);
    host.expect_nothing_left();
}

/// Sends what it asks of the host's loopback by the network: a guest with every right can.
const FORGE: &str = r#"
ip link set lo down
ip route flush table local dev lo
ip addr del 127.0.0.1/8 dev lo
ip route add 127.0.0.0/8 via 10.0.2.2 src 10.0.2.15
for host in 127.0.0.1 127.1.2.3 10.0.2.2; do
    timeout 1 busybox wget -q -O - http://$host:8000/ </dev/null
done
perl -MSocket=:all -e '
    socket(S, AF_INET, SOCK_RAW, 255) or die $!;
    sub forge {
        my ($from, $to, $port) = (inet_aton($_[0]), inet_aton($_[1]), $_[2]);
        my $ip = pack("CCnnnCCna4a4", 0x45, 0, 34, 0, 0, 64, 17, 0, $from, $to);
        send(S, $ip . pack("nnnn", 55, $port, 14, 0) . "forged", 0, pack_sockaddr_in(0, $to));
        select(undef, undef, undef, 0.2) }
    # What the neighbour sends may be taken for the host own words then, which are answered.
    for (1..3) { forge("10.7.1.1", "10.7.1.1", 9);
        forge($_, "10.0.2.2", 8002), forge($_, "127.0.0.1", 8002) for "127.0.0.1", "10.0.2.15" }'
busybox wget -q -O - http://10.7.1.2:8001/ </dev/null
cat /sys/class/net/eth0/statistics/tx_packets"#;

#[test]
fn the_hosts_loopback_is_not_reached_however_the_guest_addresses_it() {
    let datagrams: &[&str] = &["-p", "0.0.0.0:8055:55/udp"];
    for (backend, ports) in [
        ("passt", &[][..]),
        ("passt", datagrams),
        ("qemu", &[]),
        ("qemu", datagrams),
    ] {
        let mut host = host();
        host.env("VIRTC_NETWORK_USER_BACKEND", backend);
        let stage = Stage::new(&host);
        // Whoever connects is seen, also one that takes no answer.
        let listen =
            |address: &str| in_namespace(&stage.host, || TcpListener::bind(address).unwrap());
        let own = listen("0.0.0.0:8000");
        own.set_nonblocking(true).unwrap();
        let hears = in_namespace(&stage.host, || UdpSocket::bind("127.0.0.1:8002").unwrap());
        hears.set_nonblocking(true).unwrap();
        let neighbour = in_namespace(&stage.peer, || UdpSocket::bind("10.7.1.1:8002").unwrap());
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let speaking = std::thread::spawn(move || {
            while ended.recv_timeout(RETRY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // Where nothing is published, nobody hears it.
                let _ = neighbour.send_to(b"spoken", "10.7.1.2:8055");
            }
        });
        // What the host's other addresses serve is for everybody.
        let open = listen("10.7.1.2:8001");
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = open.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nopen\n");
        });
        let flags = ["-q", "--net", "user", "--cap-add", "NET_ADMIN"];
        let flags = [&flags[..], &["--cap-add", "NET_RAW"], ports].concat();
        let run = stage.run(&host, &flags, &["sh", "-c", FORGE]);
        let out = run.expect_code(0).out().to_owned();
        let sent: u32 = out.strip_prefix("open\n").unwrap().trim().parse().unwrap();
        serving.join().unwrap();
        drop(end);
        speaking.join().unwrap();
        // Of each of the three, the first packet at least.
        assert!(sent > 3, "{backend}: {out}");
        let reached = own.accept().map(|(_, from)| from);
        assert!(reached.is_err(), "{backend}: from {reached:?}");
        let heard = hears.recv_from(&mut [0; 64]);
        assert!(heard.is_err(), "{backend} {ports:?}: {heard:?}");
    }
}

/// Datagrams to a published port, and what is fetched by IPv6, where a process of the host makes the
/// connections.
fn a_user_network_with_ipv6_and_datagrams(backend: &str) {
    let mut host = host();
    host.env("VIRTC_NETWORK_USER_BACKEND", backend);
    let stage = Stage::with_ipv6(&host);
    let before = stage.seen();
    let serving = stage.serve_once();
    let run = stage.run(&host, &["-q", "--net", "user"], &["sh", "-c", FETCH_PAGE6]);
    assert_eq!(run.expect_code(0).out(), "served by the peer, by IPv6\n");
    assert_eq!(serving.join().unwrap().to_string(), HOST6);

    // Of datagrams, passt publishes those of others.
    let passt = [
        "-q",
        "-p",
        "10.7.1.2:8053:53/udp",
        "-p",
        "[::1]:8080:80",
        "-p",
        "[2001:db8:7::2]:8054:53/udp",
    ];
    let (flags, addresses, from) = match backend {
        "passt" => (
            &passt[..],
            &["10.7.1.2:8053", "[2001:db8:7::2]:8054"][..],
            &stage.peer,
        ),
        _ => (
            &["-q", "-p", "8053:53/udp"][..],
            &["127.0.0.1:8053"][..],
            &stage.host,
        ),
    };
    let (refused, why) = match backend {
        "passt" => ("127.0.0.1:8053:53/udp", "nobody would get an answer"),
        _ => ("[::1]:8080:80", "QEMU's own network stack publishes none"),
    };
    if backend != "auto" {
        stage
            .run(&host, &["-q", "-p", refused], &["true"])
            .expect_code(125)
            .expect_err(&[why]);
    }
    let mut running = stage.start(&host, flags, &["sh", "-c", SERVE_DATAGRAMS]);
    for address in addresses {
        assert_eq!(
            Stage::echoed_in(from, &mut running, address),
            "echo of asked",
            "{address}"
        );
    }
    if backend == "passt" {
        let page = stage.fetched(&mut running, "http://[::1]:8080/page");
        assert_eq!(page, "served by the machine\n");
    }
    assert_eq!(stage.seen(), before);
    drop(running.stdin());
    running.wait().expect_code(0);
    assert_eq!(stage.seen(), before);
    drop(stage);
    host.expect_nothing_left();
}

#[test]
fn passt_makes_connections_of_ipv6_and_publishes_datagrams() {
    a_user_network_with_ipv6_and_datagrams("passt");
}

#[test]
fn qemu_makes_connections_of_ipv6_and_publishes_datagrams() {
    a_user_network_with_ipv6_and_datagrams("qemu");
}

#[test]
fn without_a_choice_datagrams_of_the_host_itself_are_answered() {
    a_user_network_with_ipv6_and_datagrams("auto");
}
