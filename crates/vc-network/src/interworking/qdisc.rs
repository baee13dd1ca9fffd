//! The qdiscs of a link.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use crate::netlink::Netlink;

/// A qdisc.
#[derive(Debug)]
pub(super) struct Qdisc {
    pub(super) kind: String,
    pub(super) handle: TcHandle,
}

/// The link's qdisc at this place.
pub(super) fn at(netlink: &mut Netlink, index: u32, parent: TcHandle) -> io::Result<Option<Qdisc>> {
    let asked = of(index)?;
    let number = asked.header.index;
    for message in netlink.list(&RouteNetlinkMessage::GetQueueDiscipline(asked))? {
        let RouteNetlinkMessage::NewQueueDiscipline(message) = message else {
            continue;
        };
        // Older kernels list those of all links, whichever was asked for.
        if message.header.parent != parent || message.header.index != number {
            continue;
        }
        let handle = message.header.handle;
        let kind = message.attributes.into_iter().find_map(|one| match one {
            TcAttribute::Kind(kind) => Some(kind),
            _ => None,
        });
        return Ok(kind.map(|kind| Qdisc { kind, handle }));
    }
    Ok(None)
}

/// A message about this link.
pub(super) fn of(index: u32) -> io::Result<TcMessage> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    Ok(TcMessage::with_index(index))
}
