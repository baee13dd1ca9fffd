//! All connections together: host events and guest packets go to the connection they belong to,
//! and connections with something for the guest wait in one queue for its receive buffers.
//!
//! Nothing that the guest must get is lost or held without bound while it gives no buffers: a
//! connection keeps what it owes as flags, and the few answers that belong to no connection are
//! counted; when there are too many, the guest's own packets wait ([`Muxer::takes_packets`]).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use tracing::{debug, trace, warn};

use crate::connection::{Connection, ForHost};
use crate::guest_buffer::{GuestPacket, Pieces};
use crate::handshake::Handshake;
use crate::host_socket::{HostSocket, Peeked, accept, close, dial};
use crate::limits::{ANSWERS_MAX, CONNECT_LINE_BYTES_MAX};
use crate::packet::{HOST_CID, Header, Op, Ports, TYPE_STREAM};
use crate::table::{SlotId, Stage, Table};

/// What the events of the listening socket carry.
const LISTENER: u64 = u64::MAX;

/// The connections and what they share.
#[derive(Debug)]
pub(crate) struct Muxer {
    pub(crate) guest_cid: u64,
    epoll: OwnedFd,
    listener: OwnedFd,
    upcall_dir: OwnedFd,
    pub(crate) table: Table,
    /// Connections with a packet for the guest, each once.
    pub(crate) work: VecDeque<SlotId>,
    /// Packets for the guest that belong to no connection.
    pub(crate) answers: VecDeque<Header>,
    /// A connection could not be accepted for want of descriptors.
    accept_stalled: bool,
}

impl Muxer {
    /// A muxer without connections. Events of `listener` and of all sockets come by `epoll`.
    ///
    /// # Errors
    ///
    /// What `epoll_ctl` says.
    pub(crate) fn new(
        guest_cid: u64,
        epoll: OwnedFd,
        listener: OwnedFd,
        upcall_dir: OwnedFd,
        connections_max: usize,
    ) -> rustix::io::Result<Self> {
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), flags)?;
        Ok(Self {
            guest_cid,
            epoll,
            listener,
            upcall_dir,
            table: Table::new(connections_max),
            work: VecDeque::new(),
            answers: VecDeque::new(),
            accept_stalled: false,
        })
    }

    /// Where the events of the host's sockets come.
    pub(crate) fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    // ---- the host ----

    /// Handles an event of the host's side.
    pub(crate) fn host_event(&mut self, token: u64, flags: EventFlags) {
        if token == LISTENER {
            self.accept_all();
            return;
        }
        let id = SlotId::from_token(token);
        let Some(slot) = self.table.get(id) else {
            return;
        };
        let (Some(socket), stage) = (&mut slot.socket, &mut slot.stage) else {
            return;
        };
        match stage {
            Stage::Handshake(_) => self.handshake(id),
            Stage::Stream(_, connection) => {
                if flags != EventFlags::OUT {
                    connection.host_readable();
                }
                if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                    if connection.is_requested()
                        && !matches!(socket.peek(&mut [0]), Peeked::Bytes(_))
                    {
                        connection.cancel();
                    } else {
                        connection.host_deaf();
                    }
                }
                write_held(connection, socket, self.epoll.as_fd());
                self.settle(id);
            }
        }
    }

    fn accept_all(&mut self) {
        self.accept_stalled = false;
        loop {
            match accept(self.listener.as_fd()) {
                Ok(Some(socket)) => self.accepted(socket),
                Ok(None) => return,
                Err(error) => {
                    warn!(%error, "cannot accept a host connection");
                    self.accept_stalled = true;
                    return;
                }
            }
        }
    }

    /// A host program connected. What cannot be served is closed, which it sees as a refusal.
    fn accepted(&mut self, socket: OwnedFd) {
        let Some(id) = self.table.vacancy() else {
            warn!(
                connections = self.table.len(),
                "too many connections, one of the host refused"
            );
            close(socket);
            return;
        };
        match HostSocket::register(socket, self.epoll.as_fd(), id.token()) {
            Ok(socket) => {
                self.table
                    .insert(id, socket, Stage::Handshake(Handshake::default()));
            }
            Err(error) => warn!(%error, "cannot watch a host connection"),
        }
    }

    /// Reads on in the line that names the guest's port.
    fn handshake(&mut self, id: SlotId) {
        let Some(slot) = self.table.get(id) else {
            return;
        };
        let (Some(socket), Stage::Handshake(handshake)) = (&slot.socket, &mut slot.stage) else {
            return;
        };
        let mut line = [0; CONNECT_LINE_BYTES_MAX];
        let port = loop {
            let room = handshake.room();
            let count = match socket.peek(&mut line[..room]) {
                Peeked::Nothing => return,
                Peeked::End => break None,
                Peeked::Bytes(count) => count,
            };
            let Ok(taken) = handshake.take(&line[..count]) else {
                break None;
            };
            if socket.take(&mut line[..taken.bytes]).is_err() {
                break None;
            }
            if taken.port.is_some() {
                // The program may have sent data behind the line, or have left already.
                socket.look_again(self.epoll.as_fd());
                break taken.port;
            }
        };
        let ports = port.and_then(|guest| {
            self.table
                .free_host_port(guest)
                .map(|host| Ports { host, guest })
        });
        match ports {
            Some(ports) => {
                trace!(
                    host = ports.host,
                    guest = ports.guest,
                    "a host program asks"
                );
                let connection = Connection::from_host(self.table.window());
                self.table.assign(id, ports, Box::new(connection));
                self.settle(id);
            }
            None => {
                debug!("a host program left or sent no port");
                self.remove(id);
            }
        }
    }

    // ---- the guest ----

    /// Whether there is room for an answer to the guest's next packet.
    pub(crate) fn takes_packets(&self) -> bool {
        self.answers.len() < ANSWERS_MAX
    }

    /// Handles a packet of the guest. Call it only while [`Self::takes_packets`].
    pub(crate) fn guest_packet(&mut self, packet: &GuestPacket<'_>) {
        let header = &packet.header;
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            debug!(
                from = header.src_cid,
                to = header.dst_cid,
                "packet with a foreign address"
            );
            return;
        }
        if header.kind != TYPE_STREAM {
            self.refuse(header);
            return;
        }
        let ports = header.ports_from_guest();
        match (self.table.find(ports), header.op) {
            (None, Some(Op::Request)) => self.dial(ports, header),
            (None, _) => self.refuse(header),
            (Some(id), Some(Op::Request)) => self.violated(id, "a request for ports in use"),
            (Some(id), _) => self.connection_packet(id, header, &packet.data),
        }
    }

    /// The guest's driver has started anew, or the guest has ended: what it knew is gone. What it
    /// sent before still goes to the host's programs. Requests that it never saw are kept.
    pub(crate) fn guest_restarted(&mut self) {
        self.answers.clear();
        for id in self.table.ids() {
            if let Some(slot) = self.table.get(id)
                && let Stage::Stream(_, connection) = &mut slot.stage
                && !connection.is_unsent()
            {
                connection.guest_gone();
                self.settle(id);
            }
        }
    }

    /// Answers a packet that belongs to no connection. A reset is never answered.
    fn refuse(&mut self, header: &Header) {
        if header.op == Some(Op::Reset) {
            return;
        }
        let mut answer = Header::to_guest(self.guest_cid, header.ports_from_guest(), Op::Reset);
        answer.kind = header.kind;
        self.answers.push_back(answer);
    }

    /// The guest asks for a connection to a port of the host.
    fn dial(&mut self, ports: Ports, request: &Header) {
        let connected = (ports.host != u32::MAX && ports.guest != u32::MAX)
            .then(|| self.table.vacancy())
            .flatten()
            .ok_or(rustix::io::Errno::MFILE)
            .and_then(|id| {
                let socket = dial(self.upcall_dir.as_fd(), ports.host)?;
                let socket = HostSocket::register(socket, self.epoll.as_fd(), id.token())?;
                Ok((id, socket))
            });
        match connected {
            Ok((id, socket)) => {
                let connection = Connection::from_guest(request, self.table.window());
                self.table
                    .insert(id, socket, Stage::Stream(ports, Box::new(connection)));
                self.settle(id);
            }
            Err(error) => {
                debug!(port = ports.host, %error, "a connection of the guest is refused");
                self.refuse(request);
            }
        }
    }

    fn violated(&mut self, id: SlotId, what: &'static str) {
        if let Some(slot) = self.table.get(id)
            && let Stage::Stream(ports, connection) = &mut slot.stage
        {
            debug!(
                host = ports.host,
                guest = ports.guest,
                what,
                "the guest broke the protocol"
            );
            connection.violated(what);
            self.settle(id);
        }
    }

    fn connection_packet(&mut self, id: SlotId, header: &Header, data: &Pieces<'_>) {
        let Some(slot) = self.table.get(id) else {
            return;
        };
        let Stage::Stream(ports, connection) = &mut slot.stage else {
            return;
        };
        match connection.packet(header) {
            Ok(true) => {
                if let Some(socket) = &mut slot.socket {
                    write_packet(connection, socket, data, self.epoll.as_fd());
                }
            }
            Ok(false) => {}
            Err(violation) => {
                let what = violation.0;
                debug!(
                    host = ports.host,
                    guest = ports.guest,
                    what,
                    "the guest broke the protocol"
                );
            }
        }
        self.settle(id);
    }

    // ---- both ----

    /// Whether data of the guest waits for a host program to read.
    pub(crate) fn holds_data(&mut self) -> bool {
        self.table.ids().into_iter().any(|id| {
            self.table.get(id).is_some_and(|slot| match &slot.stage {
                Stage::Stream(_, connection) => connection.holds_data(),
                Stage::Handshake(_) => false,
            })
        })
    }

    /// Does what a connection's state asks for after something has changed.
    pub(crate) fn settle(&mut self, id: SlotId) {
        let Some(slot) = self.table.get(id) else {
            return;
        };
        let Stage::Stream(ports, connection) = &mut slot.stage else {
            return;
        };
        let ports = *ports;
        while let Some(step) = connection.next_for_host() {
            let Some(socket) = &slot.socket else { break };
            match step {
                ForHost::Welcome => {
                    let line = format!("OK {}\n", ports.host);
                    // The socket is fresh, so that it takes the line whole or not at all.
                    if socket.write(line.as_bytes()) != Ok(line.len()) {
                        connection.host_deaf();
                    }
                }
                ForHost::EndWrites => socket.end_writes(),
                ForHost::EndReads => socket.end_reads(),
                ForHost::Close => {
                    if let Some(socket) = slot.socket.take() {
                        socket.close();
                    }
                }
            }
        }
        let (gone, over) = (connection.is_gone(), connection.is_over());
        if !over && !slot.queued && connection.next_for_guest().is_some() {
            slot.queued = true;
            self.work.push_back(id);
        }
        if over {
            self.remove(id);
        } else if gone {
            self.table.release_ports(id, ports);
        }
    }

    fn remove(&mut self, id: SlotId) {
        let slot = self.table.remove(id);
        if let Some(socket) = slot.and_then(|slot| slot.socket) {
            socket.close();
        }
        if self.accept_stalled {
            self.accept_all();
        }
    }
}

/// Writes what was held for a host program, as far as its socket takes it.
fn write_held(connection: &mut Connection, socket: &mut HostSocket, epoll: BorrowedFd<'_>) {
    while connection.holds_data() {
        match socket.write(connection.held()) {
            Ok(0) => break,
            Ok(count) => connection.wrote_held(count),
            Err(_) => connection.host_deaf(),
        }
    }
    socket.want_room(epoll, connection.holds_data());
}

/// Writes the data of a packet, and holds what the socket does not take.
fn write_packet(
    connection: &mut Connection,
    socket: &mut HostSocket,
    data: &Pieces<'_>,
    epoll: BorrowedFd<'_>,
) {
    let mut written = 0;
    if !connection.holds_data() {
        match data.send(socket.as_fd()) {
            Ok(count) => written = count,
            Err(error) if is_passing(&error) => {}
            Err(_) => {
                connection.host_deaf();
                return;
            }
        }
        connection.forwarded(u32::try_from(written).unwrap_or(u32::MAX));
    }
    if written < data.len() {
        data.copy_from(written, |part| connection.hold(part));
        socket.want_room(epoll, true);
    }
}

/// Whether a call on a socket is worth a second try.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
