//! The whole device, between host sockets and a guest's queues.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::fake_guest::{FakeGuest, GUEST_CID, LIMIT};
use crate::limits::{ANSWERS_MAX, NARROW_WINDOW_BYTES, WINDOW_BYTES};
use crate::packet::{Header, Op, Ports, SHUTDOWN_BOTH, SHUTDOWN_SEND, TYPE_STREAM};

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn a_stream_goes_both_ways_and_each_way_ends_on_its_own() {
    let mut guest = FakeGuest::start();
    guest.give(32, 1000);
    let (mut host, ports) = guest.connected(1024);

    host.write_all(b"question").unwrap();
    assert_eq!(guest.receive().1, b"question");
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.expect(Op::Shutdown).flags, SHUTDOWN_SEND);

    guest.send(ports, Op::Data, 0, b"answer");
    let mut answer = [0; 6];
    host.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    guest.send(ports, Op::Shutdown, SHUTDOWN_SEND, &[]);
    assert_eq!(host.read(&mut answer).unwrap(), 0);
    assert_eq!(guest.expect(Op::Shutdown).flags, SHUTDOWN_BOTH);
    guest.send(ports, Op::Reset, 0, &[]);
    guest.end().unwrap();
}

#[test]
fn the_guest_ends_first_and_the_host_still_sends() {
    let mut guest = FakeGuest::start();
    guest.give(32, 1000);
    let (mut host, ports) = guest.connected(1024);
    guest.send(ports, Op::Data, 0, b"hello");
    guest.send(ports, Op::Shutdown, SHUTDOWN_SEND, &[]);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"hello");
    host.write_all(b"still here").unwrap();
    assert_eq!(guest.receive().1, b"still here");
    drop(host);
    assert_eq!(guest.expect(Op::Shutdown).flags, SHUTDOWN_BOTH);
    guest.end().unwrap();
}

#[test]
fn a_late_reader_gets_all_that_came_before_the_guests_reset() {
    let mut guest = FakeGuest::start();
    guest.give(32, 0);
    let (mut host, ports) = guest.connected(1024);
    // More than the socket holds, so that the device must keep the rest.
    let mut sent = Vec::new();
    for round in 0..(WINDOW_BYTES / 4000) {
        let part = vec![round as u8; 4000];
        guest.send(ports, Op::Data, 0, &part);
        sent.extend(part);
    }
    guest.send(ports, Op::Shutdown, SHUTDOWN_BOTH, &[]);
    while let Some((header, _)) = guest.receive_within(SHORT) {
        assert_eq!(
            header.op,
            Some(Op::CreditUpdate),
            "no last word before all was taken"
        );
    }
    guest.send(ports, Op::Reset, 0, &[]);
    // The ports are free at once, for a listener that does not exist.
    guest.send(ports, Op::Data, 0, b"lost");
    guest.expect(Op::Reset);

    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert!(all == sent, "{} of {} bytes", all.len(), sent.len());
    guest.end().unwrap();
}

#[test]
fn a_reader_in_time_gives_the_guest_its_last_word() {
    let mut guest = FakeGuest::start();
    guest.give(32, 0);
    let (mut host, ports) = guest.connected(1024);
    guest.send(ports, Op::Data, 0, b"all");
    guest.send(ports, Op::Shutdown, SHUTDOWN_BOTH, &[]);
    guest.expect(Op::Reset);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"all");
    guest.end().unwrap();
}

#[test]
fn the_host_is_not_read_beyond_the_guests_credit() {
    let mut guest = FakeGuest::start();
    guest.buf_alloc = 100;
    guest.give(32, 64);
    let (mut host, ports) = guest.connected(1024);
    host.write_all(&[7; 250]).unwrap();
    drop(host);
    let mut received = 0;
    let mut ended = false;
    while !ended {
        let (header, data) = guest.receive();
        match header.op {
            Some(Op::Data) => received += data.len(),
            // The host program is gone, which concerns what the guest writes.
            Some(Op::Shutdown) => ended = header.flags == SHUTDOWN_BOTH,
            Some(Op::CreditRequest) => {
                assert!(received == 100 || received == 200, "{received} bytes");
                assert!(guest.receive_within(SHORT).is_none_or(|(header, _)| {
                    header.op == Some(Op::Shutdown) && header.flags & SHUTDOWN_SEND == 0
                }));
                guest.fwd_cnt = received as u32;
                guest.send(ports, Op::CreditUpdate, 0, &[]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, 250);
    guest.end().unwrap();
}

#[test]
fn what_the_guest_sends_is_bounded_by_its_credit() {
    let mut guest = FakeGuest::start();
    guest.give(60, 0);
    let (mut host, ports) = guest.connected(1024);
    // Nobody reads; the socket takes some, the window the rest, and no more.
    let mut sent = 0;
    let reset = loop {
        guest.send(ports, Op::Data, 0, &[1; 4000]);
        sent += 4000;
        match guest.receive_within(Duration::from_millis(1)) {
            Some((header, _)) if header.op == Some(Op::Reset) => break header,
            _ => assert!(sent < 4 << 20, "no bound"),
        }
    };
    assert_eq!(reset.dst_port, ports.guest);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    // The reset may have been seen some packets late.
    assert!(
        all.len() < sent && all.len() % 4000 == 0,
        "{} of {sent}",
        all.len()
    );
    assert!(
        all.len() + 4000 > WINDOW_BYTES as usize,
        "{} of {sent}",
        all.len()
    );
    guest.end().unwrap();
}

#[test]
fn nothing_is_lost_while_the_guest_gives_no_buffers() {
    let mut guest = FakeGuest::start();
    let unknown = |guest: u32| Ports { host: 9, guest };
    // Each is answered with a reset that cannot be sent yet.
    let mut taken = 0;
    while guest.send_within(unknown(taken), Op::Data, 0, &[], Duration::from_secs(1)) {
        taken += 1;
    }
    assert_eq!(taken as usize, ANSWERS_MAX);
    let mut host = guest.connect(77);
    for port in 0..=taken {
        guest.give(1, 0);
        assert_eq!(guest.expect(Op::Reset).dst_port, port);
    }
    guest.give(1, 0);
    let request = guest.expect(Op::Request);
    assert_eq!(request.dst_port, 77);
    guest.send(
        Ports {
            host: request.src_port,
            guest: 77,
        },
        Op::Reset,
        0,
        &[],
    );
    assert_eq!(host.read(&mut [0; 8]).unwrap(), 0);
    guest.end().unwrap();
}

#[test]
fn the_guest_dials_the_host() {
    let mut guest = FakeGuest::start();
    guest.give(32, 100);
    let ports = Ports {
        host: 1027,
        guest: 5000,
    };
    guest.send(ports, Op::Request, 0, &[]);
    guest.expect(Op::Reset);

    let listener = UnixListener::bind(guest.path("vsock.sock_1027")).unwrap();
    guest.send(ports, Op::Request, 0, &[]);
    let response = guest.expect(Op::Response);
    assert_eq!((response.src_port, response.dst_port), (1027, 5000));
    assert_eq!(response.buf_alloc, WINDOW_BYTES);
    let (mut host, _) = listener.accept().unwrap();
    host.write_all(b"hi").unwrap();
    assert_eq!(guest.receive().1, b"hi");

    // A second request for the same ports is a violation and ends both.
    guest.send(ports, Op::Request, 0, &[]);
    guest.expect(Op::Reset);
    assert_eq!(host.read(&mut [0; 8]).unwrap(), 0);
    // After that the ports can be used again.
    guest.send(ports, Op::Request, 0, &[]);
    guest.expect(Op::Response);
    guest.end().unwrap();
}

#[test]
fn a_pause_keeps_connections_and_a_restart_ends_them() {
    let mut guest = FakeGuest::start();
    guest.give(16, 100);
    let (mut host, ports) = guest.connected(1024);
    // Drained, so that the fake's idea of how far the queues are is exact.
    while guest.receive_within(SHORT).is_some() {}
    guest.pause();
    host.write_all(b"after the pause").unwrap();
    assert_eq!(guest.receive().1, b"after the pause");

    guest.send(ports, Op::Data, 0, b"before the restart");
    guest.restart();
    let waiting = guest.connect(99);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"before the restart");
    guest.give(16, 100);
    assert_eq!(guest.expect(Op::Request).dst_port, 99);
    drop(waiting);
    guest.expect(Op::Reset);
    guest.end().unwrap();
}

#[test]
fn wrong_lines_and_early_leavers_trouble_nobody() {
    let mut guest = FakeGuest::start();
    let refused = || {
        let mut wrong = UnixStream::connect(guest.path("vsock.sock")).unwrap();
        wrong.set_read_timeout(Some(LIMIT)).unwrap();
        wrong
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        assert_eq!(wrong.read(&mut [0; 8]).unwrap(), 0);
    };
    for _ in 0..100 {
        drop(guest.connect(5));
    }
    // Events come in order: when these are refused, those have been seen to leave.
    (0..5).for_each(|_| refused());
    guest.give(8, 100);
    let request = guest.receive_within(SHORT);
    assert_eq!(request, None, "from a program that has left");

    // What was sent behind the line, by a program that does not wait, arrives.
    let mut hasty = guest.connect(6);
    hasty.write_all(b"no patience").unwrap();
    drop(hasty);
    let host = guest.expect(Op::Request).src_port;
    guest.send(Ports { host, guest: 6 }, Op::Response, 0, &[]);
    assert_eq!(guest.receive().1, b"no patience");
    let ends = guest.expect(Op::Shutdown).flags;
    assert_eq!(ends, SHUTDOWN_BOTH);
    guest.end().unwrap();
}

#[test]
fn too_many_connections_are_refused() {
    // Both ends of each connection are in this process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .unwrap();
    let mut guest = FakeGuest::start();
    let listener = UnixListener::bind(guest.path("vsock.sock_1")).unwrap();
    let mut streams = Vec::new();
    let mut windows = std::collections::BTreeSet::new();
    let refused = (0..).find(|&port| {
        guest.give(1, 0);
        guest.send(
            Ports {
                host: 1,
                guest: port,
            },
            Op::Request,
            0,
            &[],
        );
        let (header, _) = guest.receive();
        if header.op == Some(Op::Response) {
            windows.insert(header.buf_alloc);
            streams.push(listener.accept().unwrap());
        }
        header.op == Some(Op::Reset)
    });
    assert_eq!(refused, Some(crate::limits::CONNECTIONS_MAX as u32));
    assert_eq!(windows, [NARROW_WINDOW_BYTES, WINDOW_BYTES].into());
    let mut host = UnixStream::connect(guest.path("vsock.sock")).unwrap();
    host.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);

    guest.send(Ports { host: 1, guest: 0 }, Op::Reset, 0, &[]);
    guest.give(1, 0);
    guest.send(Ports { host: 1, guest: 0 }, Op::Request, 0, &[]);
    guest.expect(Op::Response);
    guest.end().unwrap();
}

#[test]
fn hostile_packets_and_chains_are_thrown_away() {
    let mut guest = FakeGuest::start();
    guest.give(32, 100);
    let (mut host, ports) = guest.connected(1024);
    let good = Header {
        src_cid: GUEST_CID,
        dst_cid: 2,
        src_port: ports.guest,
        dst_port: ports.host,
        len: 10,
        kind: TYPE_STREAM,
        op: Some(Op::Data),
        flags: 0,
        buf_alloc: u32::MAX,
        fwd_cnt: u32::MAX,
    };
    for bad in [
        Header { src_cid: 4, ..good },
        Header { dst_cid: 1, ..good },
        Header { len: 11, ..good },
        Header {
            len: u32::MAX,
            ..good
        },
    ] {
        guest.send_raw(&bad.to_bytes(), &[1; 10]);
    }
    let outside = 1 << 40;
    for chain in [
        &[(outside, 44, 0)][..],
        &[(0x10_4000, 10, 0)],
        &[(0x10_4000, 44, 2)],
        &[(0x10_4000, u32::MAX, 0)],
        &[(u64::MAX - 10, 44, 0)],
        &[(0x10_4000, 44, 1), (outside, 100, 0)],
        &[(0x10_4000, 44, 1), (0x10_4000, 0, 4)],
        &[(0x10_4000, 0, 0)],
    ] {
        guest.offer_raw(1, chain);
    }
    // A type that is not offered is refused without touching the stream of the same ports.
    guest.send_raw(&Header { kind: 2, ..good }.to_bytes(), &[1; 10]);
    assert_eq!(guest.expect(Op::Reset).kind, 2);
    guest.send_raw(&good.to_bytes(), b"still well");
    let mut text = [0; 10];
    host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"still well");

    guest.send_raw(&Header { op: None, ..good }.to_bytes(), &[1; 10]);
    guest.expect(Op::Reset);
    assert_eq!(host.read(&mut text).unwrap(), 0);
    guest.end().unwrap();
}

#[test]
fn useless_receive_buffers_are_given_back() {
    let mut guest = FakeGuest::start();
    let mut host = guest.connect(7);
    guest.offer_raw(0, &[(0x4000, 10, 2)]);
    guest.offer_raw(0, &[(1 << 40, 100, 2)]);
    guest.offer_raw(0, &[(0x4000, 100, 0)]);
    guest.give(1, 0);
    let request = guest.expect(Op::Request);
    guest.send(
        Ports {
            host: request.src_port,
            guest: 7,
        },
        Op::Response,
        0,
        &[],
    );
    host.write_all(b"x").unwrap();
    // No room for data.
    guest.offer_raw(0, &[(0x4000, 44, 2)]);
    guest.give(1, 1);
    assert_eq!(guest.receive().1, b"x");
    guest.end().unwrap();
}

#[test]
fn the_end_of_the_vmm_ends_the_device_and_takes_nothing_away() {
    let mut guest = FakeGuest::start();
    guest.give(32, 0);
    let (mut host, ports) = guest.connected(1024);
    let mut sent = 0;
    while sent + 4000 <= WINDOW_BYTES as usize {
        guest.send(ports, Op::Data, 0, &[1; 4000]);
        sent += 4000;
    }
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        let mut all = Vec::new();
        host.read_to_end(&mut all).unwrap();
        all.len()
    });
    guest.end().unwrap();
    assert_eq!(reader.join().unwrap(), sent);
}

#[test]
fn large_data_arrives_unchanged_in_both_directions() {
    let mut guest = FakeGuest::start();
    guest.buf_alloc = 3000;
    guest.give(8, 700);
    let (host, ports) = guest.connected(1024);
    let data: Vec<u8> = (0..1_000_000u32).map(|at| (at / 7) as u8).collect();
    let expected = data.clone();
    let mut writer = host.try_clone().unwrap();
    let mut reader = host;
    let writing = std::thread::spawn(move || {
        writer.write_all(&data).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        match reader.read_to_end(&mut all) {
            Ok(_) => all,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no end of file"),
            Err(error) => panic!("{error}"),
        }
    });
    // The guest sends back what it gets.
    let (mut host_fwd, mut sent) = (0u32, 0u32);
    let mut back: Vec<u8> = Vec::new();
    let mut ended = false;
    while !ended || !back.is_empty() {
        if let Some((header, part)) = guest.receive_within(Duration::from_millis(5)) {
            guest.give(1, 700);
            host_fwd = header.fwd_cnt;
            guest.fwd_cnt = guest.fwd_cnt.wrapping_add(header.len);
            back.extend(part);
            ended |= header.op == Some(Op::Shutdown);
        }
        let room = (WINDOW_BYTES - sent.wrapping_sub(host_fwd)) as usize;
        let count = back.len().min(room).min(4000);
        if count == 0 {
            guest.send(ports, Op::CreditUpdate, 0, &[]);
            continue;
        }
        let part: Vec<u8> = back.drain(..count).collect();
        guest.send(ports, Op::Data, 0, &part);
        sent = sent.wrapping_add(u32::try_from(count).unwrap());
    }
    guest.send(ports, Op::Shutdown, SHUTDOWN_BOTH, &[]);
    writing.join().unwrap();
    assert!(reading.join().unwrap() == expected);
    guest.end().unwrap();
}
