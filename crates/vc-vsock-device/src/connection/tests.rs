//! The state machine against a model of both sides: a host program with a socket of a few bytes,
//! and a guest that keeps to the protocol with a small receive buffer.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::packet::{Ports, SHUTDOWN_BOTH};

const WINDOW: u32 = 64;
const GUEST_BUFFER: u32 = 24;
const SOCKET_BYTES: usize = 20;
const GUEST_CID: u64 = 3;
const PORTS: Ports = Ports {
    host: 1 << 30,
    guest: 1024,
};

#[derive(Default)]
struct Guest {
    written: Vec<u8>,
    received: Vec<u8>,
    unread: u32,
    fwd_cnt: u32,
    sent: u32,
    host_buf_alloc: u32,
    host_fwd_cnt: u32,
    ended: u32,
    host_ended: u32,
    gone: bool,
}

#[derive(Default)]
struct Host {
    written: Vec<u8>,
    received: Vec<u8>,
    /// In the socket, towards the device and from it.
    outgoing: VecDeque<u8>,
    incoming: VecDeque<u8>,
    writes_ended: bool,
    closed: bool,
    welcomed: bool,
    /// What the device did to its end of the socket.
    got_eof: bool,
    refused_writes: bool,
}

struct World {
    connection: Connection,
    guest: Guest,
    host: Host,
}

#[derive(Debug, Clone)]
enum Action {
    HostWrites(usize),
    HostReads(usize),
    HostEndsWrites,
    HostCloses,
    GuestWrites(u32),
    GuestReads(u32),
    GuestEnds(u32),
    GuestResets,
    GuestTakes(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (1..40usize).prop_map(Action::HostWrites),
        8 => (1..40usize).prop_map(Action::HostReads),
        1 => Just(Action::HostEndsWrites),
        1 => Just(Action::HostCloses),
        8 => (1..40u32).prop_map(Action::GuestWrites),
        8 => (1..40u32).prop_map(Action::GuestReads),
        1 => (1..4u32).prop_map(Action::GuestEnds),
        1 => Just(Action::GuestResets),
        12 => (1..4usize).prop_map(Action::GuestTakes),
    ]
}

impl World {
    /// An open connection, asked for by the host program or by the guest.
    fn new(from_host: bool) -> Self {
        let mut header = Header::to_guest(GUEST_CID, PORTS, Op::Request);
        header.buf_alloc = GUEST_BUFFER;
        let connection = if from_host {
            Connection::from_host(WINDOW)
        } else {
            Connection::from_guest(&header, WINDOW)
        };
        let mut world = Self {
            connection,
            guest: Guest::default(),
            host: Host::default(),
        };
        world.host.welcomed = !from_host;
        world.guest_takes(1);
        if from_host {
            world.guest_sends(Op::Response, 0, &[]);
            world.settle();
            assert!(world.host.welcomed);
        }
        world
    }

    fn guest_sends(&mut self, op: Op, flags: u32, data: &[u8]) {
        let mut header = Header::to_guest(GUEST_CID, PORTS, op);
        header.flags = flags;
        header.len = u32::try_from(data.len()).unwrap();
        header.buf_alloc = GUEST_BUFFER;
        header.fwd_cnt = self.guest.fwd_cnt;
        if self.connection.packet(&header).unwrap() {
            let mut written = 0;
            if self.host.closed {
                self.connection.host_deaf();
                return;
            }
            if !self.connection.holds_data() {
                written = data.len().min(SOCKET_BYTES - self.host.incoming.len());
                self.host.incoming.extend(&data[..written]);
                self.connection.forwarded(u32::try_from(written).unwrap());
            }
            self.connection.hold(&data[written..]);
        }
    }

    /// What the muxer does after each event.
    fn settle(&mut self) {
        while self.connection.holds_data() && !self.host.closed {
            let held = self.connection.held();
            let count = held.len().min(SOCKET_BYTES - self.host.incoming.len());
            if count == 0 {
                break;
            }
            self.host.incoming.extend(&held[..count]);
            self.connection.wrote_held(count);
        }
        while let Some(step) = self.connection.next_for_host() {
            match step {
                ForHost::Welcome => self.host.welcomed = true,
                ForHost::EndWrites => self.host.got_eof = true,
                ForHost::EndReads => self.host.refused_writes = true,
                ForHost::Close => {
                    assert!(
                        !self.connection.holds_data(),
                        "closed with data for the host"
                    );
                    self.host.got_eof = true;
                    self.host.refused_writes = true;
                }
            }
        }
    }

    /// The guest gives `count` receive buffers of 8 bytes.
    fn guest_takes(&mut self, count: usize) {
        for _ in 0..count {
            let Some(next) = self.connection.next_for_guest() else {
                return;
            };
            let mut header = Header::to_guest(GUEST_CID, PORTS, Op::Reset);
            let mut data = Vec::new();
            match next {
                ForGuest::Control(op, flags) => {
                    self.connection.sent_control(op, flags, &mut header);
                }
                ForGuest::Data { max } => {
                    let count = self.host.outgoing.len().min(max as usize).min(8);
                    if count == 0 {
                        if self.host.writes_ended || self.host.closed {
                            self.connection.host_eof();
                        } else {
                            self.connection.host_drained();
                        }
                        self.settle();
                        continue;
                    }
                    data.extend(self.host.outgoing.drain(..count));
                    self.connection
                        .sent_data(u32::try_from(count).unwrap(), &mut header);
                }
            }
            self.guest_gets(&header, &data);
            self.settle();
        }
    }

    fn guest_gets(&mut self, header: &Header, data: &[u8]) {
        assert!(
            !self.guest.gone,
            "a packet for a guest that has forgotten the connection"
        );
        assert_eq!(header.len as usize, data.len());
        self.guest.host_buf_alloc = header.buf_alloc;
        self.guest.host_fwd_cnt = header.fwd_cnt;
        match header.op.unwrap() {
            Op::Data => {
                assert_eq!(
                    self.guest.host_ended & SHUTDOWN_SEND,
                    0,
                    "data after the end"
                );
                self.guest.received.extend(data);
                self.guest.unread += header.len;
                assert!(
                    self.guest.unread <= GUEST_BUFFER,
                    "more than the guest's credit"
                );
            }
            Op::Shutdown => self.guest.host_ended |= header.flags,
            Op::Reset => {
                self.guest.gone = true;
                self.guest.host_ended = SHUTDOWN_BOTH;
            }
            Op::CreditRequest => self.guest_sends(Op::CreditUpdate, 0, &[]),
            Op::Request | Op::Response | Op::CreditUpdate => {}
        }
        // Linux answers the end of both directions with a reset once all was read.
        self.guest_resets_when_done();
    }

    fn guest_resets_when_done(&mut self) {
        if self.guest.host_ended == SHUTDOWN_BOTH && self.guest.unread == 0 && !self.guest.gone {
            self.guest.gone = true;
            self.guest_sends(Op::Reset, 0, &[]);
        }
    }

    fn apply(&mut self, action: &Action) {
        match *action {
            Action::HostWrites(count) => {
                let host = &mut self.host;
                if !(host.writes_ended || host.closed || host.refused_writes) {
                    for _ in 0..count.min(SOCKET_BYTES - host.outgoing.len()) {
                        let byte = host.written.len() as u8;
                        host.written.push(byte);
                        host.outgoing.push_back(byte);
                    }
                    self.connection.host_readable();
                }
            }
            Action::HostReads(count) => {
                let host = &mut self.host;
                let count = count.min(host.incoming.len());
                host.received.extend(host.incoming.drain(..count));
            }
            Action::HostEndsWrites => {
                self.host.writes_ended = true;
                self.connection.host_readable();
            }
            Action::HostCloses => {
                self.host.closed = true;
                self.host.incoming.clear();
                self.connection.host_readable();
                self.connection.host_deaf();
            }
            Action::GuestWrites(count) => {
                let guest = &mut self.guest;
                let open = guest.ended & SHUTDOWN_SEND == 0
                    && guest.host_ended & SHUTDOWN_RECEIVE == 0
                    && !guest.gone;
                let in_flight = guest.sent.wrapping_sub(guest.host_fwd_cnt);
                let count = count.min(guest.host_buf_alloc - in_flight);
                if open && count > 0 {
                    let start = guest.written.len();
                    let data: Vec<u8> = (start..).map(|at| at as u8).take(count as usize).collect();
                    guest.written.extend(&data);
                    guest.sent += count;
                    self.guest_sends(Op::Data, 0, &data);
                }
            }
            Action::GuestReads(count) => {
                let count = count.min(self.guest.unread);
                self.guest.unread -= count;
                self.guest.fwd_cnt += count;
                if !self.guest.gone && count > 0 {
                    self.guest_sends(Op::CreditUpdate, 0, &[]);
                }
                self.guest_resets_when_done();
            }
            Action::GuestEnds(flags) => {
                if !self.guest.gone {
                    self.guest.ended |= flags;
                    self.guest_sends(Op::Shutdown, flags, &[]);
                }
            }
            Action::GuestResets => {
                if !self.guest.gone {
                    self.guest.gone = true;
                    self.guest.ended = SHUTDOWN_BOTH;
                    self.guest_sends(Op::Reset, 0, &[]);
                }
            }
            Action::GuestTakes(count) => self.guest_takes(count),
        }
        self.settle();
        assert!(self.connection.window.held() <= WINDOW);
        assert!(self.guest.written.starts_with(&self.host.received));
        assert!(self.host.written.starts_with(&self.guest.received));
    }

    /// Both sides read all they can get.
    fn finish(&mut self) {
        for _ in 0..200 {
            self.apply(&Action::HostReads(usize::MAX));
            self.apply(&Action::GuestReads(u32::MAX));
            self.apply(&Action::GuestTakes(4));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_in_order_and_the_end_after_the_last(
        from_host: bool,
        actions in prop::collection::vec(action(), 0..120),
    ) {
        let mut world = World::new(from_host);
        for action in &actions {
            world.apply(action);
        }
        world.finish();

        let (guest, host) = (&world.guest, &world.host);
        if !host.closed {
            prop_assert_eq!(&host.received, &guest.written);
            prop_assert_eq!(host.got_eof, guest.gone || guest.ended & SHUTDOWN_SEND != 0);
        }
        if guest.ended & SHUTDOWN_RECEIVE == 0 && !guest.gone {
            prop_assert_eq!(&guest.received, &host.written);
            let ended = host.writes_ended || host.closed;
            prop_assert_eq!(guest.host_ended & SHUTDOWN_SEND != 0, ended);
        }
        if !host.closed && !guest.gone && guest.ended & SHUTDOWN_SEND == 0 {
            let unknown = guest.sent.wrapping_sub(guest.host_fwd_cnt);
            prop_assert!(unknown < WINDOW / 4, "the guest does not know that it may go on");
        }
        if host.closed && !guest.gone {
            prop_assert!(guest.host_ended & SHUTDOWN_RECEIVE != 0, "the guest writes to nobody");
        }

        // Whoever is left closes, and nothing remains.
        world.apply(&Action::GuestEnds(SHUTDOWN_BOTH));
        world.finish();
        prop_assert!(world.guest.gone, "the guest waits for the last word");
        prop_assert!(world.connection.is_over());
        if !world.host.closed {
            prop_assert!(world.host.got_eof);
            prop_assert_eq!(&world.host.received, &world.guest.written);
        }
    }

    /// A guest that sends anything at all: no panic, no more held than the window, and after the
    /// host has gone and the guest has reset nothing remains.
    #[test]
    fn a_hostile_guest_breaks_nothing_but_its_connection(
        from_host: bool,
        packets in prop::collection::vec(
            (0..8u16, 0..4u32, 0..100u32, any::<u32>(), any::<u32>(), any::<bool>()), 0..60),
    ) {
        let mut world = World::new(from_host);
        world.host.outgoing.extend([7; SOCKET_BYTES]);
        for (op, flags, len, buf_alloc, fwd_cnt, take) in packets {
            let mut bytes = Header::to_guest(GUEST_CID, PORTS, Op::Data).to_bytes();
            bytes[30..32].copy_from_slice(&op.to_le_bytes());
            let header = Header { flags, len, buf_alloc, fwd_cnt, ..Header::from_bytes(&bytes) };
            if header.op != Some(Op::Request)
                && world.connection.packet(&header) == Ok(true)
            {
                world.connection.hold(&vec![1; len as usize]);
            }
            world.connection.host_readable();
            world.host.incoming.clear();
            world.settle();
            prop_assert!(world.connection.window.held() <= WINDOW);
            if take && let Some(next) = world.connection.next_for_guest() {
                let mut header = Header::to_guest(GUEST_CID, PORTS, Op::Reset);
                match next {
                    ForGuest::Control(op, flags) => {
                        world.connection.sent_control(op, flags, &mut header);
                    }
                    ForGuest::Data { max } => {
                        prop_assert!(max > 0);
                        world.connection.sent_data(max.min(8), &mut header);
                    }
                }
            }
        }
        world.connection.host_deaf();
        world.connection.host_eof();
        world.connection.guest_gone();
        world.settle();
        prop_assert!(world.connection.is_over());
    }
}

#[test]
fn a_slow_reader_gets_all_after_the_guests_reset() {
    let mut world = World::new(true);
    world.apply(&Action::GuestWrites(WINDOW));
    world.apply(&Action::GuestEnds(SHUTDOWN_BOTH));
    world.apply(&Action::GuestTakes(10));
    assert!(
        !world.guest.gone,
        "the last word came before the data was taken"
    );
    world.apply(&Action::GuestResets);
    assert!(world.connection.is_gone() && !world.connection.is_over());
    assert!(!world.host.got_eof);
    for _ in 0..20 {
        world.apply(&Action::HostReads(5));
    }
    assert_eq!(world.host.received.len(), WINDOW as usize);
    assert!(world.host.got_eof && world.connection.is_over());
}

#[test]
fn a_refusal_closes_without_a_welcome() {
    let mut connection = Connection::from_host(WINDOW);
    assert_eq!(
        connection.next_for_guest(),
        Some(ForGuest::Control(Op::Request, 0))
    );
    let mut header = Header::to_guest(GUEST_CID, PORTS, Op::Reset);
    connection.sent_control(Op::Request, 0, &mut header);
    assert_eq!((header.op, header.buf_alloc), (Some(Op::Request), WINDOW));
    assert_eq!(connection.next_for_host(), None);
    let refusal = Header::to_guest(GUEST_CID, PORTS, Op::Reset);
    assert_eq!(connection.packet(&refusal), Ok(false));
    assert_eq!(connection.next_for_host(), Some(ForHost::Close));
    assert!(connection.is_over());
}

#[test]
fn a_request_that_is_cancelled_before_it_was_sent_leaves_nothing() {
    let mut connection = Connection::from_host(WINDOW);
    connection.cancel();
    assert_eq!(connection.next_for_guest(), None);
    assert_eq!(connection.next_for_host(), Some(ForHost::Close));
    assert!(connection.is_over());
}

#[test]
fn violations_reset_the_connection() {
    for (op, len) in [
        (Op::Data, WINDOW + 1),
        (Op::Response, 0),
        (Op::Data, u32::MAX),
    ] {
        let mut world = World::new(false);
        let mut header = Header::to_guest(GUEST_CID, PORTS, op);
        header.len = len;
        assert!(world.connection.packet(&header).is_err(), "{op:?} {len}");
        world.guest_takes(1);
        assert!(world.guest.gone && world.connection.is_over());
    }
}

#[test]
fn a_guest_that_does_not_read_learns_that_the_host_has_left() {
    let mut world = World::new(true);
    for _ in 0..3 {
        world.apply(&Action::HostWrites(20));
        world.apply(&Action::GuestTakes(4));
    }
    assert_eq!(world.guest.unread, GUEST_BUFFER);
    world.apply(&Action::HostCloses);
    world.apply(&Action::GuestTakes(4));
    assert_eq!(world.guest.host_ended, SHUTDOWN_RECEIVE);
    world.finish();
    assert_eq!(world.guest.received, world.host.written);
    assert!(world.connection.is_over());
}

#[test]
fn credit_is_asked_for_once_and_answered_once() {
    let mut world = World::new(false);
    let mut header = Header::to_guest(GUEST_CID, PORTS, Op::CreditUpdate);
    world.connection.packet(&header).unwrap();
    assert_eq!(world.connection.credit.available(), 0);
    world.connection.host_readable();
    let asks = Some(ForGuest::Control(Op::CreditRequest, 0));
    assert_eq!(world.connection.next_for_guest(), asks);
    world
        .connection
        .sent_control(Op::CreditRequest, 0, &mut header);
    assert_eq!(world.connection.next_for_guest(), None);

    let no_credit = Header {
        buf_alloc: 0,
        fwd_cnt: 0,
        ..header
    };
    let request = Header {
        op: Some(Op::CreditRequest),
        ..no_credit
    };
    world.connection.packet(&request).unwrap();
    let answers = Some(ForGuest::Control(Op::CreditUpdate, 0));
    assert_eq!(world.connection.next_for_guest(), answers);
    world
        .connection
        .sent_control(Op::CreditUpdate, 0, &mut header);
    assert_eq!(world.connection.next_for_guest(), None);

    let update = Header {
        op: Some(Op::CreditUpdate),
        buf_alloc: 5,
        ..no_credit
    };
    world.connection.packet(&update).unwrap();
    assert_eq!(
        world.connection.next_for_guest(),
        Some(ForGuest::Data { max: 5 })
    );
}
