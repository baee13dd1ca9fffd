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

/// What a limited endpoint may send at once after a pause, as a time at its rate.
pub(crate) const BUCKET_TIME: Duration = Duration::from_millis(10);

/// How long what is more than the rate may wait before it is dropped.
pub(crate) const QUEUE_TIME: Duration = Duration::from_millis(50);

/// How long `nft` may take. It waits for nobody but the kernel's lock of its rules.
pub(crate) const NFT_LIMIT: Duration = Duration::from_secs(20);

/// Bytes of an answer of `nft`, far more than the chains of a host with thousands of containers.
pub(crate) const NFT_OUTPUT_MAX: u64 = 16 << 20;

/// How long the lock of the leases is waited for: several others may make or take back one each.
pub(crate) const NAT_LOCK_LIMIT: Duration = Duration::from_secs(60);

/// How often the lock is tried meanwhile.
pub(crate) const NAT_LOCK_RETRY: Duration = Duration::from_millis(10);

/// Bytes of the file with the leases.
pub(crate) const NAT_STATE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of an interface's name: `IFNAMSIZ` less the ending zero.
pub(crate) const NAME_BYTES_MAX: usize = 15;

/// Bytes of a wrong value that an error repeats.
pub(crate) const QUOTED_BYTES_MAX: usize = 128;

/// Characters of what a program said that an error repeats.
pub(crate) const SAID_BYTES_MAX: usize = 1024;
