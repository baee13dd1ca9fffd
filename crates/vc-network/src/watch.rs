use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::NeighbourState;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use crate::error::{Result, io};
use crate::limits::{NETLINK_PACKET_BYTES, WATCH_PACKETS_MAX};
use crate::namespace::Namespace;
use crate::netlink::messages;
use crate::{route, tap};

/// What of a namespace the kernel is asked to tell about.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// A watch on the links, addresses, routes and neighbours of a namespace, without polling.
///
/// It says that something has changed and not what: the kernel drops messages when many come, and
/// what was changed and changed back needs no work. Whoever is told looks again, and compares
/// ([`Scan::difference`](crate::Scan::difference)). Start to watch *before* the first scan, so that
/// nothing falls between the two.
///
/// Its descriptor becomes readable when something has happened; it is non-blocking, so that an
/// asynchronous caller can wait for it. Links that this crate has made are no change, nor are
/// neighbours that the kernel only learns.
///
/// ```no_run
/// use vc_network::{Namespace, Scan, Watch};
///
/// let namespace = Namespace::open("/run/netns/web")?;
/// let mut watch = Watch::on(&namespace)?;
/// let mut known = Scan::of(&namespace)?;
/// // Whenever the descriptor of `watch` is readable:
/// if watch.has_changed()? {
///     let now = Scan::of(&namespace)?;
///     let difference = known.difference(&now);
///     known = now;
/// }
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    buffer: Vec<u8>,
    object: String,
}

impl Watch {
    /// Begins to watch. The namespace lives at least as long as the watch.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when the kernel refuses.
    pub fn on(namespace: &Namespace) -> Result<Self> {
        let object = namespace.path().display().to_string();
        let socket = namespace.run_io(open).map_err(io("watch", &object))?;
        Ok(Self {
            socket,
            buffer: vec![0; NETLINK_PACKET_BYTES],
            object,
        })
    }

    /// Takes what has come, and says whether a new scan may differ from one before. Does not block.
    ///
    /// It takes a bounded number of messages: after more, the descriptor is still readable.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when the socket fails. Messages that were lost, because there were too
    /// many, are a change and no error.
    pub fn has_changed(&mut self) -> Result<bool> {
        let mut changed = false;
        for _ in 0..WATCH_PACKETS_MAX {
            let received = self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC);
            match received {
                Ok(length) => {
                    changed |= self.buffer.get(..length).is_none_or(is_change);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) => return Err(io("read what has changed in", &self.object)(error)),
            }
        }
        Ok(changed)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// What is not understood may be anything.
fn is_change(packet: &[u8]) -> bool {
    messages(packet).any(|message| match message {
        Ok(message) => match message.payload {
            NetlinkPayload::InnerMessage(inner) => matters(&inner),
            _ => true,
        },
        Err(_) => true,
    })
}

fn matters(message: &RouteNetlinkMessage) -> bool {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => !is_ours(link),
        // The kernel tells each step of learning a neighbour, and no scan has those. One that is
        // deleted may have been permanent.
        RouteNetlinkMessage::NewNeighbour(neighbour) => {
            neighbour.header.state == NeighbourState::Permanent
        }
        // The kernel's own ones come and go with links and addresses, which it tells too.
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            route::is_set_by_somebody(route)
        }
        _ => true,
    }
}

fn is_ours(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::IfName(name) => tap::is_name_of_ours(name),
        _ => false,
    })
}
