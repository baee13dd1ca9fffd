//! The numbers that bound the device, each with its reason.

use std::time::Duration;

/// Connections at one time, the host's unfinished handshakes and the ones that wait for the
/// guest's last word included. A sandbox uses a few for each process that runs in it.
pub(crate) const CONNECTIONS_MAX: usize = 1024;

/// Descriptors that are not connections: sockets, epoll, rings, guest memory, standard streams.
pub(crate) const DESCRIPTORS_RESERVED: usize = 96;

/// Bytes that the guest may have on their way to a host reader that does not read.
pub(crate) const WINDOW_BYTES: u32 = 256 << 10;

/// The same for a connection that is made while [`WIDE_WINDOWS_MAX`] others are open.
pub(crate) const NARROW_WINDOW_BYTES: u32 = 32 << 10;

/// Connections with the wide window. All windows together bound what a guest can make the
/// device hold: 128 wide and 896 narrow ones are 60 MiB.
pub(crate) const WIDE_WINDOWS_MAX: usize = 128;

/// Bytes of the line `CONNECT <port>\n`, whose port has ten digits at the most.
pub(crate) const CONNECT_LINE_BYTES_MAX: usize = 32;

/// Answers that belong to no connection (resets) and wait for a receive buffer of the guest.
/// When they are this many, the guest's packets wait too.
pub(crate) const ANSWERS_MAX: usize = 128;

/// Entries of a virtqueue. QEMU uses 128.
pub(crate) const QUEUE_ENTRIES_MAX: usize = 1024;

/// Descriptors of one packet. Linux uses one or two, and nineteen when it sends without a copy.
pub(crate) const PACKET_DESCRIPTORS_MAX: usize = 64;

/// Receive buffers of the guest that one read of a host socket fills. Linux gives 4 KiB each.
pub(crate) const BUFFERS_PER_READ_MAX: usize = 32;

/// Packets of one queue that are handled before the other queue and the host get their turn.
pub(crate) const PACKETS_PER_TURN_MAX: usize = 256;

/// Turns before the event loop looks for other events.
pub(crate) const TURNS_MAX: usize = 16;

/// Host events that are taken at once.
pub(crate) const HOST_EVENTS_MAX: usize = 64;

/// Reads that throw away what a host program sent to a guest that has closed.
pub(crate) const DISCARD_READS_MAX: usize = 64;

/// Time that slow host programs have to read on after the VMM has gone. The keeper gives two
/// seconds to everything that remains.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_millis(1500);

/// Seconds that the VMM has to connect.
pub(crate) const VMM_CONNECT_TIMEOUT_S: i64 = 60;
