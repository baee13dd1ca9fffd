//! One stream between a host socket and the guest, as a state machine without I/O.
//!
//! The two directions end independently. What the guest sees of an end is a SHUTDOWN packet that
//! is sent after the last byte; what the host sees is an end of file that is given after the last
//! byte was written. A connection that the guest has closed, or reset, lives on without its ports
//! until the host program has taken all that came before.
//!
//! ```text
//!             REQUEST sent              RESPONSE                RST, either way
//! Requested ───────────────▶ Requested ──────────▶ Open ──────────────────────▶ Gone
//!                                       (guest's REQUEST: starts here,           │
//!                                        RESPONSE is owed)                       ▼
//!                                              over when the host's socket is closed too
//! ```
//!
//! The caller does what [`Connection::next_for_guest`] and [`Connection::next_for_host`] say, and
//! tells the connection what happened. Nothing here waits, and nothing grows but the buffer for
//! the host, which the [`Window`] bounds.

use crate::buffer::ByteQueue;
use crate::credit::{GuestCredit, Window};
use crate::packet::{Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// What the guest's side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A host program asked; the guest has not answered.
    Requested { sent: bool },
    /// Both sides agreed.
    Open,
    /// The guest knows nothing of the connection any more; its ports are free.
    Gone,
}

/// The next packet for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForGuest {
    /// A packet without data, with the flags of SHUTDOWN.
    Control(Op, u32),
    /// Data of the host's socket, at most this many bytes.
    Data {
        /// The guest's credit.
        max: u32,
    },
}

/// The next thing to do with the host's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForHost {
    /// Tell the host program that the connection stands.
    Welcome,
    /// No more will be written: the host program gets an end of file.
    EndWrites,
    /// No more will be read: the host program's writes fail.
    EndReads,
    /// Close the socket.
    Close,
}

/// The guest broke the protocol; the connection has been reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    phase: Phase,
    credit: GuestCredit,
    window: Window,
    /// Bytes from the guest that the host's socket did not take yet.
    to_host: ByteQueue,
    host: HostSide,
    guest_ended: u32,
    shutdown_sent: u32,
    owed: Owed,
    credit_requested: bool,
}

#[derive(Debug, Default)]
struct HostSide {
    /// The socket may have something to read.
    readable: bool,
    /// All that the host program will ever send was read.
    eof: bool,
    /// The host program reads no more.
    deaf: bool,
    welcomed: bool,
    writes_ended: bool,
    reads_ended: bool,
    closed: bool,
}

/// Packets that the guest must get, as flags: they take no memory while its queue is full.
#[derive(Debug, Default)]
struct Owed {
    reset: bool,
    response: bool,
    credit: bool,
}

impl Connection {
    /// A connection that a host program asked for.
    pub(crate) fn from_host(window: u32) -> Self {
        Self::new(Phase::Requested { sent: false }, window)
    }

    /// A connection that the guest asked for with `request`, and whose host socket stands.
    pub(crate) fn from_guest(request: &Header, window: u32) -> Self {
        let mut connection = Self::new(Phase::Open, window);
        connection.credit.update(request.buf_alloc, request.fwd_cnt);
        connection.owed.response = true;
        connection.host.welcomed = true;
        connection
    }

    fn new(phase: Phase, window: u32) -> Self {
        Self {
            phase,
            credit: GuestCredit::default(),
            window: Window::new(window),
            to_host: ByteQueue::default(),
            host: HostSide::default(),
            guest_ended: 0,
            shutdown_sent: 0,
            owed: Owed::default(),
            credit_requested: false,
        }
    }

    // ---- what the guest sends ----

    /// Takes a packet of the guest, except REQUEST. Answers whether it has data that the host's
    /// socket should get; the bytes follow by [`Self::forwarded`] and [`Self::hold`].
    ///
    /// # Errors
    ///
    /// A [`Violation`], after which the guest is owed a RST and is not listened to any more.
    pub(crate) fn packet(&mut self, header: &Header) -> Result<bool, Violation> {
        if self.phase == Phase::Gone || self.owed.reset {
            return Ok(false);
        }
        let mut has_data = false;
        match header.op {
            Some(Op::Reset) => {
                self.guest_gone();
                return Ok(false);
            }
            Some(Op::Response) if self.phase == (Phase::Requested { sent: true }) => {
                self.phase = Phase::Open;
            }
            Some(Op::CreditUpdate) => {}
            Some(Op::CreditRequest) => self.owed.credit = true,
            Some(Op::Shutdown) if self.phase == Phase::Open => {
                self.guest_ended |= header.flags & SHUTDOWN_BOTH;
            }
            Some(Op::Data) if self.phase == Phase::Open => {
                if self.guest_ended & SHUTDOWN_SEND != 0 {
                    return Err(self.violated("data after the end of the data"));
                }
                if self.window.receive(header.len).is_err() {
                    return Err(self.violated("more data than the credit allows"));
                }
                if self.host.deaf {
                    self.window.forward(header.len);
                } else {
                    has_data = header.len > 0;
                }
            }
            _ => return Err(self.violated("an operation that does not fit the state")),
        }
        self.credit.update(header.buf_alloc, header.fwd_cnt);
        if self.credit.available() > 0 {
            self.credit_requested = false;
        }
        Ok(has_data)
    }

    /// Ends the connection because the guest broke the protocol. The host program still gets
    /// what came before.
    pub(crate) fn violated(&mut self, what: &'static str) -> Violation {
        self.owed = Owed {
            reset: true,
            ..Owed::default()
        };
        Violation(what)
    }

    /// The guest's driver started anew or sent a RST: it knows nothing of the connection.
    pub(crate) fn guest_gone(&mut self) {
        self.owed = Owed::default();
        self.phase = Phase::Gone;
    }

    /// Whether the request was not sent yet, so that a restarted guest can still get it.
    pub(crate) fn is_unsent(&self) -> bool {
        self.phase == Phase::Requested { sent: false }
    }

    // ---- what goes to the host ----

    /// Whether new data must wait behind older data.
    pub(crate) fn holds_data(&self) -> bool {
        !self.to_host.is_empty()
    }

    /// The bytes to write to the host's socket next.
    pub(crate) fn held(&self) -> &[u8] {
        self.to_host.front()
    }

    /// Bytes of a data packet were written to the host's socket without being held.
    pub(crate) fn forwarded(&mut self, bytes: u32) {
        self.window.forward(bytes);
    }

    /// Keeps bytes of a data packet that the host's socket did not take.
    pub(crate) fn hold(&mut self, bytes: &[u8]) {
        self.to_host.push(bytes);
        debug_assert!(self.to_host.len() <= self.window.held() as usize);
    }

    /// The first `bytes` of what is held were written to the host's socket.
    pub(crate) fn wrote_held(&mut self, bytes: usize) {
        self.to_host.drop_front(bytes);
        self.window
            .forward(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// What to do with the host's socket now; call it until it says nothing.
    pub(crate) fn next_for_host(&mut self) -> Option<ForHost> {
        if self.host.closed {
            return None;
        }
        let gone = self.phase == Phase::Gone || self.owed.reset;
        if !self.host.welcomed {
            // Never accepted: an end without the welcome is the refusal.
            if gone {
                self.host.closed = true;
                return Some(ForHost::Close);
            }
            if self.phase != Phase::Open {
                return None;
            }
            self.host.welcomed = true;
            return Some(ForHost::Welcome);
        }
        let guest_sends = !gone && self.guest_ended & SHUTDOWN_SEND == 0;
        let guest_receives = !gone && self.guest_ended & SHUTDOWN_RECEIVE == 0;
        if !guest_sends && !self.holds_data() && !self.host.deaf && !self.host.writes_ended {
            self.host.writes_ended = true;
            return Some(ForHost::EndWrites);
        }
        if !guest_receives && !self.host.eof && !self.host.reads_ended {
            self.host.reads_ended = true;
            return Some(ForHost::EndReads);
        }
        let written = self.host.writes_ended || self.host.deaf;
        let read = self.host.eof || self.host.reads_ended;
        if written && read {
            self.host.closed = true;
            return Some(ForHost::Close);
        }
        None
    }

    // ---- what the host does ----

    /// The host's socket may have something to read, an end of file included.
    pub(crate) fn host_readable(&mut self) {
        self.host.readable = true;
    }

    /// The host's socket has nothing to read now.
    pub(crate) fn host_drained(&mut self) {
        self.host.readable = false;
    }

    /// The host program will send no more, and all it sent was read.
    pub(crate) fn host_eof(&mut self) {
        self.host.readable = false;
        self.host.eof = true;
    }

    /// The host program reads no more: what is held for it, and what comes, is thrown away.
    pub(crate) fn host_deaf(&mut self) {
        self.host.deaf = true;
        self.wrote_held(self.to_host.len());
        // What was received and not held was being written when this was found out.
        self.window.forward(self.window.held());
    }

    /// The host program left before the guest answered.
    pub(crate) fn cancel(&mut self) {
        match self.phase {
            Phase::Requested { sent: true } => self.owed.reset = true,
            Phase::Requested { sent: false } => self.phase = Phase::Gone,
            Phase::Open | Phase::Gone => {}
        }
    }

    /// Whether the guest has not answered a host program's request yet.
    pub(crate) fn is_requested(&self) -> bool {
        matches!(self.phase, Phase::Requested { .. })
    }

    // ---- what goes to the guest ----

    /// The next packet for the guest, if there is one. Asking changes nothing;
    /// [`Self::sent_control`] and [`Self::sent_data`] do.
    pub(crate) fn next_for_guest(&self) -> Option<ForGuest> {
        if self.phase == Phase::Gone {
            return None;
        }
        if self.owed.reset {
            return Some(ForGuest::Control(Op::Reset, 0));
        }
        if let Phase::Requested { sent } = self.phase {
            return (!sent).then_some(ForGuest::Control(Op::Request, 0));
        }
        if self.owed.response {
            return Some(ForGuest::Control(Op::Response, 0));
        }
        if self.guest_ended == SHUTDOWN_BOTH {
            // The guest waits for this as the sign that all it sent has arrived.
            return self.host.closed.then_some(ForGuest::Control(Op::Reset, 0));
        }
        let receives = self.guest_ended & SHUTDOWN_RECEIVE == 0;
        let pending = receives && self.host.readable && !self.host.eof && !self.host.closed;
        let max = self.credit.available();
        if pending && max > 0 {
            return Some(ForGuest::Data { max });
        }
        let ends = self.host_ends();
        if ends & !self.shutdown_sent != 0 {
            return Some(ForGuest::Control(Op::Shutdown, ends));
        }
        let sends = self.guest_ended & SHUTDOWN_SEND == 0;
        if self.owed.credit || (sends && self.window.update_due()) {
            return Some(ForGuest::Control(Op::CreditUpdate, 0));
        }
        if pending && !self.credit_requested {
            return Some(ForGuest::Control(Op::CreditRequest, 0));
        }
        None
    }

    /// The ends that the guest should know of, as SHUTDOWN's flags.
    fn host_ends(&self) -> u32 {
        let mut ends = 0;
        if self.host.eof || self.host.closed {
            ends |= SHUTDOWN_SEND;
        }
        if self.host.deaf || self.host.closed {
            ends |= SHUTDOWN_RECEIVE;
        }
        ends
    }

    /// Counts a packet that is sent and fills in its credit.
    fn stamp(&mut self, header: &mut Header) {
        (header.buf_alloc, header.fwd_cnt) = self.window.tell();
        self.owed.credit = false;
    }

    /// The packet `op` with `flags` is being sent: fills in the rest of its header.
    pub(crate) fn sent_control(&mut self, op: Op, flags: u32, header: &mut Header) {
        header.op = Some(op);
        header.flags = flags;
        self.stamp(header);
        match op {
            Op::Request => self.phase = Phase::Requested { sent: true },
            Op::Response => self.owed.response = false,
            Op::Shutdown => self.shutdown_sent |= flags,
            Op::CreditRequest => self.credit_requested = true,
            Op::Reset => self.guest_gone(),
            Op::Data | Op::CreditUpdate => {}
        }
    }

    /// A packet with `len` bytes of data is being sent: fills in the rest of its header.
    pub(crate) fn sent_data(&mut self, len: u32, header: &mut Header) {
        header.op = Some(Op::Data);
        header.len = len;
        self.stamp(header);
        self.credit.spend(len);
    }

    /// Whether the guest knows nothing of the connection, so that its ports are free.
    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.is_gone() && self.host.closed
    }
}

#[cfg(test)]
mod tests;
