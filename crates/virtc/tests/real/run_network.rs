//! Networks of throw-away machines, in namespaces that stand for the host and its neighbour.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use test_vm::{Host, Outcome, Running};
use virtcontainers::fault::{VARIABLE, Walk};

use super::host;

/// How long a server of a test may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks.
const RETRY: Duration = Duration::from_millis(50);

/// Runs a program of the host to its end.
fn sh(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace that plays the host, and its only neighbour, which serves a page.
struct Stage {
    host: String,
    peer: String,
    server: Child,
}

impl Stage {
    fn new(vm: &Host) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("virtc-test-{}-{number}-{end}", std::process::id());
        let (host, peer) = (name("host"), name("peer"));
        for namespace in [&host, &peer] {
            sh("ip", &["netns", "add", namespace]);
            sh("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        }
        let wire = ["type", "veth", "peer", "name", "eth0", "netns", &peer];
        let add = ["-n", &host, "link", "add", "eth0"];
        sh("ip", &[&add[..], &wire].concat());
        for (namespace, address) in [(&host, "10.7.1.2/24"), (&peer, "10.7.1.1/24")] {
            sh("ip", &["-n", namespace, "link", "set", "eth0", "up"]);
            sh(
                "ip",
                &["-n", namespace, "addr", "add", address, "dev", "eth0"],
            );
        }
        let route = ["-n", &host, "route", "add", "default", "via", "10.7.1.1"];
        sh("ip", &route);
        let off = inside(&host, "sysctl")
            .args(["-q", "-w", "net.ipv4.ip_forward=0"])
            .status();
        assert!(off.unwrap().success());
        let page = vm.dir("page");
        fs::write(page.join("page"), "served by the peer\n").unwrap();
        fs::write(page.join("large"), vec![7; LARGE_BYTES]).unwrap();
        let server = inside(&peer, "busybox")
            .args(["httpd", "-f", "-p", "10.7.1.1:80", "-h"])
            .arg(page)
            .spawn()
            .unwrap();
        let stage = Self { host, peer, server };
        let begun = Instant::now();
        // The addresses that links make for themselves are looked for first.
        while !stage.in_host(&FETCH_PAGE).status.success() || stage.seen().contains("tentative") {
            assert!(begun.elapsed() < LISTEN_LIMIT);
            std::thread::sleep(RETRY);
        }
        stage
    }

    /// The same with IPv6 and a default route of it.
    fn with_ipv6(vm: &Host) -> Self {
        let stage = Self::new(vm);
        for (namespace, address) in [(&stage.host, HOST6), (&stage.peer, PEER6)] {
            let address = format!("{address}/64");
            let add = [
                "-n", namespace, "addr", "add", &address, "dev", "eth0", "nodad",
            ];
            sh("ip", &add);
        }
        let route = [
            "-n",
            &stage.host,
            "-6",
            "route",
            "add",
            "default",
            "via",
            PEER6,
        ];
        sh("ip", &route);
        // Nobody tells this host anything.
        let deaf = inside(&stage.host, "sysctl")
            .args(["-q", "-w", "net.ipv6.conf.eth0.accept_ra=0"])
            .status();
        assert!(deaf.unwrap().success());
        stage
    }

    /// What the neighbour sends by IPv6 when it is asked once.
    fn serve_once(&self) -> std::thread::JoinHandle<std::net::IpAddr> {
        let listener = in_namespace(&self.peer, || TcpListener::bind((PEER6, 80)).unwrap());
        std::thread::spawn(move || {
            let (mut stream, from) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let page = "HTTP/1.0 200 OK\r\n\r\nserved by the peer, by IPv6\n";
            stream.write_all(page.as_bytes()).unwrap();
            from.ip()
        })
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.host)
    }

    /// Everything that somebody could have changed in the playing host.
    fn seen(&self) -> String {
        let ip = |args: &[&str]| sh("ip", &[&["-n", &self.host], args].concat());
        let of = |program: &str, args: &[&str]| {
            let output = inside(&self.host, program).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let mut seen = ip(&["-o", "addr"]);
        seen += &ip(&["-o", "link"]);
        seen += &ip(&["route"]);
        seen += &ip(&["-6", "route", "show", "table", "all"]);
        seen += &of("sysctl", &["-a", "--pattern", "ipv6.*\\.forwarding$"]);
        seen += &of("tc", &["qdisc"]);
        seen += &of("nft", &["list", "ruleset"]);
        seen + &of("cat", &["/proc/sys/net/ipv4/ip_forward"])
    }

    /// Starts `virtc run FLAGS -- COMMAND` in the playing host.
    fn start(&self, vm: &Host, flags: &[&str], command: &[&str]) -> Running {
        let run = ["run"].iter().chain(flags).chain(&["--"]).chain(command);
        vm.start_command(self.enter(vm.command(run)))
    }

    /// Runs it to its end.
    #[track_caller]
    fn run(&self, vm: &Host, flags: &[&str], command: &[&str]) -> Outcome {
        self.start(vm, flags, command).wait()
    }

    /// The same command in the playing host's network, and no other mounts.
    fn enter(&self, command: Command) -> Command {
        let mut entered = Command::new("nsenter");
        entered
            .arg(format!("--net={}", self.path()))
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                entered.env(name, value);
            }
        }
        if let Some(directory) = command.get_current_dir() {
            entered.current_dir(directory);
        }
        entered
    }

    /// What the playing host fetches from a machine once that serves.
    #[track_caller]
    fn fetched(&self, running: &mut Running, url: &str) -> String {
        let fetch = ["timeout", "20", "busybox", "wget", "-q", "-O", "-", url];
        running.wait_until(url, |_| {
            let output = self.in_host(&fetch);
            let page = String::from_utf8(output.stdout).unwrap();
            output.status.success().then_some(page)
        })
    }

    /// What the playing host gets back for a datagram from a machine once that serves.
    #[track_caller]
    fn echoed(&self, running: &mut Running, address: &str) -> String {
        Self::echoed_in(&self.host, running, address)
    }

    /// The same in one of the namespaces.
    #[track_caller]
    fn echoed_in(namespace: &str, running: &mut Running, address: &str) -> String {
        let to: std::net::SocketAddr = address.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = in_namespace(namespace, || UdpSocket::bind(any).unwrap());
        // Only answers that seem to come from there are taken.
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(RETRY)).unwrap();
        running.wait_until(address, |_| {
            // Nobody listens yet: it says so of the one before.
            let _ = socket.send(b"asked");
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer).ok()?;
            Some(String::from_utf8_lossy(&answer[..length]).into_owned())
        })
    }

    /// The neighbour resolves every name to itself from now on, for as long as this process lives.
    fn resolve(&self) {
        let socket = in_namespace(&self.peer, || UdpSocket::bind("10.7.1.1:53").unwrap());
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((bytes, from)) = socket.recv_from(&mut query) {
                socket.send_to(&answer(&query[..bytes]), from).unwrap();
            }
        });
    }

    /// Runs a program in the playing host to its end.
    fn in_host(&self, command: &[&str]) -> std::process::Output {
        let mut inside = inside(&self.host, command[0]);
        inside.args(&command[1..]).output().unwrap()
    }
}

/// Does something in a namespace, in a thread of its own.
pub(super) fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(format!("/run/netns/{name}")).unwrap();
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        done.join().unwrap()
    })
}

/// An answer of DNS: the name has the neighbour's address, and no other records.
pub(super) fn answer(query: &[u8]) -> Vec<u8> {
    // A header, the name in labels, a type and a class.
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &query[12..12 + name + 5];
    let is_address = question[name + 1..name + 3] == [0, 1];
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 7, 1, 1]);
    }
    answer
}

/// Bytes of a file that does not fit into a few packets.
const LARGE_BYTES: usize = 4 << 20;

/// A command of a machine that serves a page until its stdin ends.
const SERVE: [&str; 3] = [
    "sh",
    "-c",
    "mkdir /tmp/w; echo served by the machine > /tmp/w/page; busybox httpd -p 80 -h /tmp/w; cat",
];

/// The same, and what is sent to its port 53 as a datagram is sent back.
const SERVE_DATAGRAMS: &str = r#"
mkdir /tmp/w; echo served by the machine > /tmp/w/page; busybox httpd -p 80 -h /tmp/w
perl -MSocket=:all -e '
    socket(S, AF_INET6, SOCK_DGRAM, 0) or die; setsockopt(S, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    bind(S, pack_sockaddr_in6(53, inet_pton(AF_INET6, "::"))) or die $!;
    while (defined(my $from = recv(S, my $data, 64, 0))) { send(S, "echo of $data", 0, $from) }' &
cat; kill $!"#;

const HOST6: &str = "2001:db8:7::2";
const PEER6: &str = "2001:db8:7::1";

/// What is fetched by IPv6.
const FETCH_PAGE6: &str = "timeout 20 busybox wget -q -O - http://[2001:db8:7::1]/page";

/// What the neighbour serves.
const FETCH_PAGE: [&str; 8] = [
    "timeout",
    "20",
    "busybox",
    "wget",
    "-q",
    "-O",
    "-",
    "http://10.7.1.1/page",
];

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        for namespace in [&self.host, &self.peer] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

/// A command in a network namespace with a name.
fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

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
