//! Connections between the guest's loopback addresses and the namespace that it stands for.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;
use test_vm::Host;

use super::host;
use super::network::{Wire, create};
use super::run_network::{answer, in_namespace};

/// How long a program of the guest may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(20);

/// Between two looks.
const RETRY: Duration = Duration::from_millis(50);

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Counts what comes on each connection until its end, and then says how much it was.
const SERVE: &str = "echo page >/page
httpd -p [::1]:8080 -h /
exec nc -ll -p 9000 -e wc -c";

fn started(host: &Host, bundle: &str) {
    assert!(
        create(host, bundle, None, "c1"),
        "{}",
        host.virtc(["list"]).out()
    );
    host.virtc(["start", "c1"]).expect_code(0);
}

fn dial(wire: &Wire, to: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let stream = in_namespace(&wire.container, || TcpStream::connect(to))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(stream)
}

/// What the other end says to `bytes` and their end.
fn said(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<String> {
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn what_is_asked_of_the_namespace_by_loopback_is_the_guests() {
    let mut host = host();
    host.env("VIRTC_NETWORK_LOOPBACK_RELAY", "true");
    let wire = Wire::new();
    let before = wire.seen();
    let bundle = wire.bundle(&host, &["/bin/sh", "-c", SERVE]);
    started(&host, &bundle);

    // Whoever is refused in the guest sees a reset, and no end.
    let mut refused = dial(&wire, "127.0.0.1:7").unwrap();
    let error = refused.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let begun = Instant::now();
    while said(dial(&wire, "127.0.0.1:9000").unwrap(), b"x").is_err() {
        assert!(begun.elapsed() < LISTEN_LIMIT);
        std::thread::sleep(RETRY);
    }
    // The end of what is sent is not the end of the connection.
    let long = vec![7; 1 << 20];
    let count = said(dial(&wire, "127.0.0.1:9000").unwrap(), &long).unwrap();
    assert_eq!(count.trim(), long.len().to_string());
    let fetch = || {
        let request = b"GET /page HTTP/1.0\r\n\r\n";
        let page = said(dial(&wire, "[::1]:8080").unwrap(), request).unwrap();
        assert!(page.ends_with("page\n"), "{page}");
    };
    // Many at once, as many as that server takes.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(fetch);
        }
    });

    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);
    let gone = dial(&wire, "127.0.0.1:9000").unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
    drop(wire);
    host.expect_nothing_left();
}

/// A resolver of the namespace, for as long as this process lives. Its answers over a connection are
/// those of [`answer`] too.
fn resolve(wire: &Wire, at: &str) {
    let (datagrams, connections) = in_namespace(&wire.container, || {
        (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap())
    });
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((bytes, from)) = datagrams.recv_from(&mut query) {
            datagrams.send_to(&answer(&query[..bytes]), from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in connections.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).unwrap();
            let answer = answer(&query);
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &answer].concat()).unwrap();
        }
    });
}

/// A container whose programs are told of these resolvers.
fn told_of(host: &Host, wire: &Wire, resolvers: &str) -> String {
    let file = host.dir("etc").join("resolv.conf");
    fs::write(&file, resolvers).unwrap();
    let mount = json!({
        "destination": "/etc/resolv.conf", "type": "bind", "source": file,
        "options": ["rbind", "ro"],
    });
    wire.bundle_with(host, &["/bin/sleep", "1000"], |config| {
        config["mounts"].as_array_mut().unwrap().push(mount);
    })
}

/// A query for the address of `web`, after its length.
const QUERY: &str =
    r"\000\025\000\007\001\000\000\001\000\000\000\000\000\000\003web\000\000\001\000\001";

#[test]
fn a_resolver_inside_the_namespace_is_asked_from_the_guest() {
    let mut host = host();
    let wire = Wire::new();
    let before = wire.seen();
    resolve(&wire, "127.0.0.11:53");
    let bundle = told_of(&host, &wire, "nameserver 127.0.0.11\n");
    started(&host, &bundle);
    let by_datagram = host
        .virtc(["exec", "c1", "busybox", "nslookup", "web"])
        .expect_code(0);
    assert!(
        by_datagram.out().contains("10.7.1.1"),
        "{}",
        by_datagram.out()
    );
    let script = format!("printf '{QUERY}' | nc -w 5 127.0.0.11 53 | hexdump -v -e '1/1 \"%u.\"'");
    let by_connection = host
        .virtc(["exec", "c1", "sh", "-c", &script])
        .expect_code(0);
    assert!(
        by_connection.out().contains("10.7.1.1."),
        "{}",
        by_connection.out()
    );
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    assert_eq!(wire.seen(), before);
    drop(wire);
    host.expect_nothing_left();
}

#[test]
fn a_resolver_of_the_guests_own_is_left_its_address() {
    let mut host = host();
    let wire = Wire::new();
    let bundle = told_of(&host, &wire, "nameserver 127.0.0.1\n");
    started(&host, &bundle);
    let script = "(echo own | nc -l -p 53) & \
                  until nc -w 5 127.0.0.1 53 </dev/null 2>/dev/null; do sleep 0.1; done";
    let exec = [
        "exec",
        "--cap",
        "CAP_NET_BIND_SERVICE",
        "c1",
        "sh",
        "-c",
        script,
    ];
    let own = host.virtc(exec).expect_code(0);
    assert_eq!(own.out(), "own\n");
    host.virtc(["delete", "--force", "c1"]).expect_code(0);
    drop(wire);
    host.expect_nothing_left();
}
