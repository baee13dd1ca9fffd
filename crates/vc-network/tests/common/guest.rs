//! What a machine would do with the frames of a tap.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Pod, TestNamespace};

/// How long a frame or a packet is waited for.
const FRAME_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of `struct virtio_net_hdr`, before each frame.
const HEADER: usize = 10;

pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const ECHO_PORT: u16 = 7;

/// A machine with the address 10.9.0.2 that sends every UDP packet back.
pub(crate) struct Guest {
    tap: File,
    mac: [u8; 6],
}

impl Guest {
    pub(crate) fn new(tap: OwnedFd, mac: [u8; 6]) -> Self {
        let tap = File::from(tap);
        Self { tap, mac }
    }

    /// Answers what comes by the tap, until it has sent one UDP packet back.
    pub(crate) fn echo_once(&mut self) {
        let deadline = Instant::now() + FRAME_LIMIT;
        loop {
            let mut frame = self.next_frame(deadline);
            match frame.get(12..14) {
                Some([0x08, 0x06]) if frame[38..42] == INSIDE.octets() => self.answer_arp(&frame),
                Some([0x08, 0x00]) if frame[23] == 17 => {
                    let (to, from) = frame.split_at_mut(6);
                    to.swap_with_slice(&mut from[..6]);
                    let (from, to) = frame[26..34].split_at_mut(4);
                    from.swap_with_slice(to);
                    let (from, to) = frame[34..38].split_at_mut(2);
                    from.swap_with_slice(to);
                    // No checksum of UDP.
                    frame[40..42].fill(0);
                    return self.send(&frame);
                }
                _ => {}
            }
        }
    }

    fn answer_arp(&mut self, request: &[u8]) {
        let mut answer = request[..42].to_vec();
        answer[..6].copy_from_slice(&request[6..12]);
        answer[6..12].copy_from_slice(&self.mac);
        answer[21] = 2;
        answer[22..28].copy_from_slice(&self.mac);
        answer[28..32].copy_from_slice(&INSIDE.octets());
        answer[32..42].copy_from_slice(&request[22..32]);
        self.send(&answer);
    }

    fn next_frame(&mut self, deadline: Instant) -> Vec<u8> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap();
        let mut polled = [PollFd::from_borrowed_fd(self.tap.as_fd(), PollFlags::IN)];
        let ready = poll(&mut polled, Some(&left)).unwrap();
        assert_eq!(ready, 1, "no frame within {FRAME_LIMIT:?}");
        let mut buffer = [0; 2048];
        let length = self.tap.read(&mut buffer).unwrap();
        buffer[HEADER..length].to_vec()
    }

    fn send(&mut self, frame: &[u8]) {
        let bytes = [&[0; HEADER], frame].concat();
        assert_eq!(self.tap.write(&bytes).unwrap(), bytes.len());
    }
}

/// A socket in the namespace.
pub(crate) fn udp(namespace: &TestNamespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = namespace
        .open()
        .run(|| UdpSocket::bind((address, port)))
        .unwrap();
    socket.set_read_timeout(Some(FRAME_LIMIT)).unwrap();
    socket
}

/// Sends a packet from outside to the guest and gets it back; the pod's own stack gets nothing.
pub(crate) fn assert_guest_is_reached(pod: &Pod, guest: &mut Guest) {
    let own = udp(&pod.inside, INSIDE, ECHO_PORT);
    own.set_nonblocking(true).unwrap();
    assert_guest_is_reached_from(&pod.outside, guest);
    let error = own.recv_from(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

/// Sends a packet from a namespace with the address 10.9.0.1 to the guest and gets it back.
pub(crate) fn assert_guest_is_reached_from(namespace: &TestNamespace, guest: &mut Guest) {
    let outside = udp(namespace, OUTSIDE, 0);
    outside
        .send_to(b"to the guest", (INSIDE, ECHO_PORT))
        .unwrap();
    guest.echo_once();
    let mut answer = [0; 64];
    let (length, from) = outside.recv_from(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"to the guest");
    assert_eq!(from, SocketAddr::from((INSIDE, ECHO_PORT)));
}

/// Sends a packet from outside to the pod's own stack.
pub(crate) fn assert_pod_is_reached(pod: &Pod) {
    let own = udp(&pod.inside, INSIDE, ECHO_PORT);
    let outside = udp(&pod.outside, OUTSIDE, 0);
    outside.send_to(b"to the pod", (INSIDE, ECHO_PORT)).unwrap();
    let mut packet = [0; 64];
    let (length, _) = own.recv_from(&mut packet).unwrap();
    assert_eq!(&packet[..length], b"to the pod");
}
