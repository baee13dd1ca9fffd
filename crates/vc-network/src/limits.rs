//! The numbers that bound what is waited for and kept.

use std::time::Duration;

/// How long the kernel's answer to one netlink request is waited for. It comes at once, unless the
/// lock of all network settings is held by somebody who takes a network apart.
pub const NETLINK_LIMIT: Duration = Duration::from_secs(10);

/// Queues of one tap: the kernel's own limit.
pub const QUEUES_MAX: u16 = 256;

/// Bytes of one packet of netlink messages. The kernel makes none larger than 32 KiB, but for a
/// single link with many virtual functions.
pub(crate) const NETLINK_PACKET_BYTES: usize = 256 << 10;

/// Messages of one list, far more than a container's namespace has links, routes or neighbours.
pub(crate) const NETLINK_MESSAGES_MAX: usize = 64 << 10;

/// How often a list is asked for that changed while it was read.
pub(crate) const DUMP_TRIES: usize = 8;

/// Packets of messages that a watch takes at once. Whoever changes the namespace without end does
/// not keep its caller from other work.
pub(crate) const WATCH_PACKETS_MAX: usize = 1024;

/// Bytes of an interface's name: `IFNAMSIZ` less the ending zero.
pub(crate) const NAME_BYTES_MAX: usize = 15;

/// Bytes of a wrong value that an error repeats.
pub(crate) const QUOTED_BYTES_MAX: usize = 128;
