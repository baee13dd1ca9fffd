//! The relay of connections inside a namespace.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use common::{Pod, TestNamespace, need_root, pod};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vc_network::{Error, LoopbackRelay, LoopbackUndo, dial_inside, original_destination};
use vc_types::Hint;

const CYCLES: usize = 20;

/// How long a connection is waited for.
const LIMIT: Duration = Duration::from_secs(10);

fn snapshot(namespace: &TestNamespace) -> String {
    namespace.snapshot() + &namespace.nft("list ruleset")
}

fn connect(namespace: &TestNamespace, to: SocketAddr) -> io::Result<TcpStream> {
    let connected = namespace
        .open()
        .run(|| Ok(TcpStream::connect_timeout(&to, LIMIT)));
    connected.unwrap()
}

fn accept(listener: &TcpListener) -> TcpStream {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let mut polled = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
    assert_eq!(poll(&mut polled, Some(&limit)).unwrap(), 1, "no connection");
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// One byte each way.
fn exchange(mut client: TcpStream, mut server: TcpStream) {
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
    }
    let mut byte = [0];
    client.write_all(b"q").unwrap();
    server.read_exact(&mut byte).unwrap();
    server.write_all(b"a").unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"a");
}

fn listen(pod: &Pod, address: &str) -> TcpListener {
    let address: SocketAddr = address.parse().unwrap();
    pod.inside
        .open()
        .run(|| TcpListener::bind(address))
        .unwrap()
}

#[test]
fn connections_to_own_addresses_arrive_and_say_where_they_were_to_go() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let relay = LoopbackRelay::plan(&namespace).unwrap();
    let listeners = relay.open(&namespace).unwrap();
    let ipv6 = listeners.ipv6.as_ref().unwrap();
    for (to, listener) in [
        ("127.0.0.1:80", &listeners.ipv4),
        ("127.0.0.11:53", &listeners.ipv4),
        ("10.9.0.2:65535", &listeners.ipv4),
        ("[::1]:80", ipv6),
        ("[fd09::2]:81", ipv6),
    ] {
        let to = to.parse().unwrap();
        let client = connect(&pod.inside, to).unwrap();
        let server = accept(listener);
        assert_eq!(original_destination(&server).unwrap(), to);
        exchange(client, server);
    }
    // One to a listener itself is not led around.
    let own = listeners.ipv4.local_addr().unwrap();
    let client = connect(&pod.inside, own).unwrap();
    let server = accept(&listeners.ipv4);
    assert_eq!(original_destination(&server).unwrap(), own);
    exchange(client, server);
    let error = listeners.ipv4.accept().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn what_comes_from_outside_and_what_is_marked_is_not_relayed() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let listeners = LoopbackRelay::plan(&namespace)
        .unwrap()
        .open(&namespace)
        .unwrap();
    let server = listen(&pod, "10.9.0.2:80");
    let client = connect(&pod.outside, "10.9.0.2:80".parse().unwrap()).unwrap();
    exchange(client, accept(&server));
    for address in ["127.0.0.11:53", "[::1]:53"] {
        let resolver = listen(&pod, address);
        let client = dial_inside(&namespace, address.parse().unwrap(), LIMIT).unwrap();
        let server = accept(&resolver);
        assert_eq!(
            original_destination(&server).unwrap(),
            address.parse().unwrap()
        );
        exchange(client, server);
    }
    let nobody = "127.0.0.11:54".parse().unwrap();
    let error = dial_inside(&namespace, nobody, LIMIT).unwrap_err();
    assert!(
        format!("{error:?}").contains("ConnectionRefused"),
        "{error:?}"
    );
    let error = listeners.ipv4.accept().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn it_is_undone_by_whoever_has_the_record_and_can_be_opened_again() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let before = snapshot(&pod.inside);
    for _ in 0..CYCLES {
        let relay = LoopbackRelay::plan(&namespace).unwrap();
        let text = serde_json::to_string(relay.undo()).unwrap();
        let undo: LoopbackUndo = serde_json::from_str(&text).unwrap();
        undo.undo(&namespace).unwrap();
        let listeners = relay.open(&namespace).unwrap();
        assert!(snapshot(&pod.inside).contains("redirect to"));
        drop(listeners);
        for _ in 0..2 {
            undo.undo_at(pod.inside.path()).unwrap();
            assert_eq!(snapshot(&pod.inside), before);
        }
    }
}

#[test]
fn a_second_one_is_refused_and_the_first_one_stays() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let late = LoopbackRelay::plan(&namespace).unwrap();
    let _listeners = LoopbackRelay::plan(&namespace)
        .unwrap()
        .open(&namespace)
        .unwrap();
    let during = snapshot(&pod.inside);
    let error = LoopbackRelay::plan(&namespace).unwrap_err();
    assert!(matches!(error, Error::RelayInTheWay { .. }), "{error}");
    assert!(error.hint().unwrap().contains("nft delete table"));
    // It came between plan and opening.
    let error = late.open(&namespace).unwrap_err();
    assert!(matches!(error, Error::Program { .. }), "{error}");
    assert_eq!(snapshot(&pod.inside), during);
}

#[test]
fn another_namespace_is_left_alone() {
    need_root!();
    let (pod, other) = (pod(), common::pod());
    let relay = LoopbackRelay::plan(&pod.inside.open()).unwrap();
    let undo = relay.undo().clone();
    let error = relay.open(&other.inside.open()).unwrap_err();
    assert!(matches!(error, Error::NamespaceGone { .. }), "{error}");
    let namespace = other.inside.open();
    let _listeners = LoopbackRelay::plan(&namespace)
        .unwrap()
        .open(&namespace)
        .unwrap();
    let during = snapshot(&other.inside);
    undo.undo(&namespace).unwrap();
    assert_eq!(snapshot(&other.inside), during);
    let path = pod.inside.path();
    pod.inside.delete();
    undo.undo_at(path).unwrap();
}
