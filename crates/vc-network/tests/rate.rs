//! Limits of what a machine receives and sends, with packets that are counted.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::guest::{INSIDE, OUTSIDE, udp};
use common::{Pod, TestNamespace, assert_same, need_root, pod};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vc_network::{Attachment, BitRate, Direction, Error, InterworkingModel, RateLimits, Undo};

/// A megabyte a second.
const RATE: u64 = 8_000_000;

/// For how long packets are counted, after those that had been saved up.
const WINDOW: Duration = Duration::from_secs(1);
const SETTLING: Duration = Duration::from_millis(200);

const PORT: u16 = 9;
const PAYLOAD: usize = 1200;

/// Bytes of `struct virtio_net_hdr`, before each frame.
const HEADER: usize = 10;

fn limits(receive: Option<u64>, send: Option<u64>) -> RateLimits {
    let rate = |bits: u64| BitRate::new(bits).unwrap();
    RateLimits {
        receive: receive.map(rate),
        send: send.map(rate),
    }
}

fn plan(namespace: &TestNamespace, model: InterworkingModel) -> Attachment {
    let endpoint = namespace.endpoint("eth0");
    Attachment::plan(&namespace.open(), &endpoint, model, 1).unwrap()
}

/// A frame from the machine to the other end of the pod's veth.
fn frame() -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend([2, 0, 0, 0, 0, 0x0b, 2, 0, 0, 0, 0, 0x0a, 8, 0]);
    let (ip, datagram) = (20 + 8 + PAYLOAD, 8 + PAYLOAD);
    let mut header = vec![0x45, 0];
    header.extend(u16::try_from(ip).unwrap().to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend(INSIDE.octets());
    header.extend(OUTSIDE.octets());
    let words = header
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum: u32 = words.sum();
    sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(sum).unwrap();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(header);
    frame.extend(PORT.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(u16::try_from(datagram).unwrap().to_be_bytes());
    // No checksum of UDP.
    frame.extend([0; 2]);
    frame.extend(vec![b'x'; PAYLOAD]);
    frame
}

fn is_readable(fd: impl AsFd) -> bool {
    let limit = Timespec::try_from(Duration::from_millis(100)).unwrap();
    let mut polled = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&limit)).unwrap() == 1
}

/// Bits a second that `receive` gets while `send` is called without end. Each gives the bytes of one
/// packet, if it came.
fn measure(mut send: impl FnMut() + Send, mut receive: impl FnMut() -> Option<usize>) -> u64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                send();
            }
        });
        let settled = Instant::now() + SETTLING;
        while Instant::now() < settled {
            receive();
        }
        let begin = Instant::now();
        let mut bytes = 0;
        while begin.elapsed() < WINDOW {
            bytes += receive().unwrap_or(0);
        }
        let taken = begin.elapsed();
        done.store(true, Ordering::Relaxed);
        let bits = u128::try_from(bytes).unwrap() * 8 * 1_000_000;
        u64::try_from(bits / taken.as_micros()).unwrap()
    })
}

/// What the machine receives of what a namespace sends to it.
fn received(from: &TestNamespace, mut tap: File) -> u64 {
    let socket = udp(from, OUTSIDE, 0);
    let mut buffer = [0; 4096];
    measure(
        || {
            // The kernel may say that a packet was dropped.
            let _ = socket.send_to(&[b'x'; PAYLOAD], (INSIDE, PORT));
        },
        || is_readable(&tap).then(|| tap.read(&mut buffer).unwrap() - HEADER),
    )
}

/// What the world receives of what the machine sends.
fn sent(mut tap: File, socket: &UdpSocket) -> u64 {
    let frame = frame();
    let mut buffer = [0; 4096];
    socket.set_nonblocking(true).unwrap();
    measure(
        || {
            let _ = tap.write(&frame);
        },
        || {
            let length = is_readable(socket).then(|| socket.recv(&mut buffer).ok());
            // The headers count too.
            Some(length.flatten()? + 14 + 20 + 8)
        },
    )
}

fn know_the_machine(namespace: &TestNamespace, link: &str) {
    namespace.ip(&format!(
        "neigh add 10.9.0.2 lladdr 02:00:00:00:00:0a dev {link} nud permanent"
    ));
}

#[track_caller]
fn assert_limited(bits: u64) {
    // Above, nothing but the bucket and the time of this process; below, a busy host.
    assert!(
        bits <= RATE * 11 / 10,
        "{bits} bit/s with a limit of {RATE}"
    );
    assert!(bits >= RATE / 2, "{bits} bit/s with a limit of {RATE}");
}

#[track_caller]
fn assert_free(bits: u64) {
    assert!(bits > RATE * 2, "{bits} bit/s without a limit");
}

fn tap_of(attached: vc_network::Attached) -> (File, Undo) {
    let tap = attached.tap.into_queues().remove(0);
    (File::from(tap), attached.undo)
}

#[test]
fn each_direction_is_limited_alone_and_freed_again() {
    need_root!();
    let Pod { inside, outside } = pod();
    know_the_machine(&outside, "peer0");
    let namespace = inside.open();
    let before = inside.snapshot();
    let world = udp(&outside, OUTSIDE, PORT);
    for (receive, send) in [(Some(RATE), None), (None, Some(RATE))] {
        let plan = plan(&inside, InterworkingModel::Tcfilter);
        let plan = plan.limit(&namespace, limits(receive, send)).unwrap();
        let text = serde_json::to_string(plan.undo()).unwrap();
        let undo: Undo = serde_json::from_str(&text).unwrap();
        let (tap, _) = tap_of(plan.attach(&namespace).unwrap());
        let (got, went) = (
            received(&outside, tap.try_clone().unwrap()),
            sent(tap, &world),
        );
        if receive.is_some() {
            assert_limited(got);
            assert_free(went);
        } else {
            assert_free(got);
            assert_limited(went);
        }
        for _ in 0..2 {
            undo.undo_at(inside.path()).unwrap();
            assert_same(&inside.snapshot(), &before, "after it");
        }
    }
}

#[test]
fn a_macvtap_and_a_tap_are_limited_in_the_direction_that_they_can() {
    need_root!();
    let Pod { inside, outside } = pod();
    let namespace = inside.open();
    let attachment = plan(&inside, InterworkingModel::Macvtap);
    let error = attachment
        .limit(&namespace, limits(Some(RATE), None))
        .unwrap_err();
    let expected = Direction::Receive;
    assert!(matches!(error, Error::NoRateLimit { direction, .. } if direction == expected));
    assert!(
        error.to_string().contains("can receive by the link eth0"),
        "{error}"
    );
    let attachment = plan(&inside, InterworkingModel::Macvtap);
    let attachment = attachment
        .limit(&namespace, limits(None, Some(RATE)))
        .unwrap();
    match attachment.attach(&namespace) {
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            println!("skipped: the kernel has no macvtap");
        }
        attached => {
            let (tap, undo) = tap_of(attached.unwrap());
            assert_limited(sent(tap, &udp(&outside, OUTSIDE, PORT)));
            undo.undo(&namespace).unwrap();
        }
    }

    let test = TestNamespace::new();
    test.ip("tuntap add mode tap name eth0");
    test.ip("link set eth0 up");
    test.ip("addr add 10.9.0.1/24 dev eth0");
    know_the_machine(&test, "eth0");
    let namespace = test.open();
    let attachment = plan(&test, InterworkingModel::None);
    let error = attachment
        .limit(&namespace, limits(None, Some(RATE)))
        .unwrap_err();
    assert!(matches!(
        error,
        Error::NoRateLimit {
            direction: Direction::Send,
            ..
        }
    ));
    let attachment = plan(&test, InterworkingModel::None);
    let attachment = attachment
        .limit(&namespace, limits(Some(RATE), None))
        .unwrap();
    let (tap, undo) = tap_of(attachment.attach(&namespace).unwrap());
    assert_limited(received(&test, tap));
    assert!(test.tc("qdisc show").contains("tbf"));
    // Whether the header is restored at once depends on who else has been started meanwhile.
    let _ = undo.undo(&namespace);
    assert!(!test.tc("qdisc show").contains("tbf"));
}

#[test]
fn the_largest_and_the_smallest_rates_are_taken_and_undone() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let before = pod.inside.snapshot();
    for (bits, shown) in [(8_000, "rate 8Kbit"), (1_000_000_000_000, "rate 1Tbit")] {
        let plan = plan(&pod.inside, InterworkingModel::Tcfilter);
        let plan = plan
            .limit(&namespace, limits(Some(bits), Some(bits)))
            .unwrap();
        let attached = plan.attach(&namespace).unwrap();
        let qdiscs = pod.inside.tc("qdisc show");
        assert_eq!(qdiscs.matches(shown).count(), 2, "{qdiscs}");
        drop(attached.tap);
        attached.undo.undo(&namespace).unwrap();
        assert_same(&pod.inside.snapshot(), &before, "after it");
    }
}

#[test]
fn a_qdisc_of_others_is_refused_and_left_alone() {
    need_root!();
    let pod = pod();
    let namespace = pod.inside.open();
    let send = limits(None, Some(RATE));
    let early = plan(&pod.inside, InterworkingModel::Tcfilter);
    let early = early.limit(&namespace, send).unwrap();
    let undo = early.undo().clone();
    pod.inside
        .tc("qdisc add dev eth0 root tbf rate 1mbit burst 10kb latency 50ms");
    let before = pod.inside.snapshot();
    let late = plan(&pod.inside, InterworkingModel::Tcfilter);
    let error = late.limit(&namespace, send).unwrap_err();
    assert!(matches!(error, Error::InTheWay { .. }), "{error}");
    // It came between plan and attachment.
    let error = early.attach(&namespace).unwrap_err();
    assert!(
        error.to_string().contains("limit the rate of eth0"),
        "{error}"
    );
    undo.undo(&namespace).unwrap();
    assert_same(&pod.inside.snapshot(), &before, "after it");
    // What is received is limited at the tap.
    let late = plan(&pod.inside, InterworkingModel::Tcfilter);
    let late = late.limit(&namespace, limits(Some(RATE), None)).unwrap();
    let attached = late.attach(&namespace).unwrap();
    attached.undo.undo(&namespace).unwrap();
    assert_same(&pod.inside.snapshot(), &before, "after it");
    // A state of before there were limits.
    let text = serde_json::to_string(&attached.undo).unwrap();
    let old = text.replace(",\"limited\":false", "");
    assert_ne!(old, text);
    assert_eq!(serde_json::from_str::<Undo>(&old).unwrap(), attached.undo);
}
