//! A namespace that plays the host, and its only neighbour.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use test_vm::{Host, Outcome, Running};

/// How long a server of a test may take to listen.
pub(super) const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks.
pub(super) const RETRY: Duration = Duration::from_millis(50);

/// Runs a program of the host to its end.
pub(super) fn sh(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace that plays the host, and its only neighbour, which serves a page.
pub(super) struct Stage {
    pub(super) host: String,
    pub(super) peer: String,
    pub(super) server: Child,
}

impl Stage {
    pub(super) fn new(vm: &Host) -> Self {
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
    pub(super) fn with_ipv6(vm: &Host) -> Self {
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
    pub(super) fn serve_once(&self) -> std::thread::JoinHandle<std::net::IpAddr> {
        let listener = in_namespace(&self.peer, || TcpListener::bind((PEER6, 80)).unwrap());
        std::thread::spawn(move || {
            let (mut stream, from) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let page = "HTTP/1.0 200 OK\r\n\r\nserved by the peer, by IPv6\n";
            stream.write_all(page.as_bytes()).unwrap();
            from.ip()
        })
    }

    pub(super) fn path(&self) -> String {
        format!("/run/netns/{}", self.host)
    }

    /// Everything that somebody could have changed in the playing host.
    pub(super) fn seen(&self) -> String {
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
    pub(super) fn start(&self, vm: &Host, flags: &[&str], command: &[&str]) -> Running {
        let run = ["run"].iter().chain(flags).chain(&["--"]).chain(command);
        vm.start_command(self.enter(vm.command(run)))
    }

    /// Runs it to its end.
    #[track_caller]
    pub(super) fn run(&self, vm: &Host, flags: &[&str], command: &[&str]) -> Outcome {
        self.start(vm, flags, command).wait()
    }

    /// The same command in the playing host's network, and no other mounts.
    pub(super) fn enter(&self, command: Command) -> Command {
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
    pub(super) fn fetched(&self, running: &mut Running, url: &str) -> String {
        let fetch = ["timeout", "20", "busybox", "wget", "-q", "-O", "-", url];
        running.wait_until(url, |_| {
            let output = self.in_host(&fetch);
            let page = String::from_utf8(output.stdout).unwrap();
            output.status.success().then_some(page)
        })
    }

    /// What the playing host gets back for a datagram from a machine once that serves.
    #[track_caller]
    pub(super) fn echoed(&self, running: &mut Running, address: &str) -> String {
        Self::echoed_in(&self.host, running, address)
    }

    /// The same in one of the namespaces.
    #[track_caller]
    pub(super) fn echoed_in(namespace: &str, running: &mut Running, address: &str) -> String {
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
    pub(super) fn resolve(&self) {
        let socket = in_namespace(&self.peer, || UdpSocket::bind("10.7.1.1:53").unwrap());
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((bytes, from)) = socket.recv_from(&mut query) {
                socket.send_to(&answer(&query[..bytes]), from).unwrap();
            }
        });
    }

    /// Runs a program in the playing host to its end.
    pub(super) fn in_host(&self, command: &[&str]) -> std::process::Output {
        let mut inside = inside(&self.host, command[0]);
        inside.args(&command[1..]).output().unwrap()
    }
}

/// Does something in a namespace, in a thread of its own.
pub(in super::super) fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
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
pub(in super::super) fn answer(query: &[u8]) -> Vec<u8> {
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
pub(super) const LARGE_BYTES: usize = 4 << 20;

/// A command of a machine that serves a page until its stdin ends.
pub(super) const SERVE: [&str; 3] = [
    "sh",
    "-c",
    "mkdir /tmp/w; echo served by the machine > /tmp/w/page; busybox httpd -p 80 -h /tmp/w; cat",
];

/// The same, and what is sent to its port 53 as a datagram is sent back.
pub(super) const SERVE_DATAGRAMS: &str = r#"
mkdir /tmp/w; echo served by the machine > /tmp/w/page; busybox httpd -p 80 -h /tmp/w
perl -MSocket=:all -e '
    socket(S, AF_INET6, SOCK_DGRAM, 0) or die; setsockopt(S, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    bind(S, pack_sockaddr_in6(53, inet_pton(AF_INET6, "::"))) or die $!;
    while (defined(my $from = recv(S, my $data, 64, 0))) { send(S, "echo of $data", 0, $from) }' &
cat; kill $!"#;

pub(super) const HOST6: &str = "2001:db8:7::2";
pub(super) const PEER6: &str = "2001:db8:7::1";

/// What is fetched by IPv6.
pub(super) const FETCH_PAGE6: &str = "timeout 20 busybox wget -q -O - http://[2001:db8:7::1]/page";

/// What the neighbour serves.
pub(super) const FETCH_PAGE: [&str; 8] = [
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
pub(super) fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}
