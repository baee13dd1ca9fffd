//! The vsock device of a QEMU guest, as a process of our own: vhost-user towards the VMM, hybrid
//! vsock (a Unix socket and the line `CONNECT <port>`) towards host programs.
//!
//! It exists because the end of a stream must be right: each direction ends on its own, an end
//! comes after the last byte however slow the reader is, and a guest that closes, resets or
//! reboots takes nothing away that it had sent before.
//!
//! ```text
//!  host programs ── HostSocket ─┐              ┌─ transmit ◀── queue 1 ─┐
//!                               ├─── Muxer ────┤                        ├─ guest memory
//!  vsock.sock_P ─── HostSocket ─┘  Connection  └─ receive ───▶ queue 0 ─┘
//! ```
//!
//! - `connection`, `credit`, `buffer`, `handshake`, `packet` decide; they do no I/O.
//! - `table` and `muxer` find the connection for an event or a packet and carry out what it says.
//! - `transmit`, `receive` and `guest_buffer` handle the guest's queues and memory. The guest is
//!   the enemy: what it writes is checked, bounded, and can end no more than its connections.
//! - `device` and `run` are the vhost-user process. Data is moved between guest memory and
//!   sockets directly; nothing polls, and no timer runs.
//!
//! Left out on purpose: seqpacket and datagram sockets, and migration.
//!
//! The packet header is read and written here rather than with the crate `virtio-vsock`, because
//! that takes data in one descriptor only, while a guest may spread it, and because a connection
//! that does no I/O needs the header as a plain value.

mod buffer;
mod connection;
mod credit;
mod device;
mod error;
mod guest_buffer;
mod handshake;
mod host_socket;
mod limits;
mod muxer;
mod options;
mod packet;
mod receive;
mod run;
mod table;
mod transmit;

pub use error::{Error, Result};
pub use options::Options;
pub use run::run;
