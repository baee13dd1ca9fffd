//! Neighbours whose MACs the host tells, so that nobody is asked for them.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;

use super::link::{self, Link};
use super::mac::Mac;
use super::netlink::Netlink;
use super::prefix::family;
use crate::error::{Attempt as _, Error, Result};

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) address: IpAddr,
    pub(super) device: String,
    pub(super) mac: Mac,
    pub(super) state: NeighbourState,
    pub(super) flags: NeighbourFlags,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} dev {}", self.address, self.mac, self.device)
    }
}

impl Neighbour {
    /// The kernel's numbers, where a state of zero is one that never ends.
    pub(super) fn state_and_flags(
        state: u32,
        flags: u32,
    ) -> Result<(NeighbourState, NeighbourFlags)> {
        let invalid = |field, value: u32| Error::Invalid {
            field,
            value: value.to_string(),
            reason: "is none that the kernel has",
        };
        let known = u16::try_from(state).map_err(|_| invalid("neighbour state", state))?;
        let state = match NeighbourState::from(known) {
            NeighbourState::None => NeighbourState::Permanent,
            NeighbourState::Other(_) => return Err(invalid("neighbour state", state)),
            state => state,
        };
        let flags = u8::try_from(flags).map_err(|_| invalid("neighbour flags", flags))?;
        Ok((state, NeighbourFlags::from_bits_retain(flags)))
    }

    fn message(&self, links: &[Link]) -> Result<NeighbourMessage> {
        let link = link::by_name(links, &self.device).map_err(|error| match error {
            Error::NoInterface(which) => {
                Error::NoInterface(format!("{which}, for neighbour {}", self.address))
            }
            error => error,
        })?;
        let mut message = NeighbourMessage::default();
        message.header.family = family(self.address);
        message.header.ifindex = link.index;
        message.header.state = self.state;
        message.header.flags = self.flags;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            NeighbourAttribute::Destination(self.address.into()),
            NeighbourAttribute::LinkLayerAddress(self.mac.bytes().to_vec()),
        ];
        Ok(message)
    }
}

/// Adds neighbours, or changes those that are known. Each is in `set` from then on.
pub(super) fn add(
    netlink: &mut Netlink,
    set: &mut Vec<Neighbour>,
    neighbours: Vec<Neighbour>,
) -> Result<()> {
    let links = link::list(netlink)?;
    let messages: Vec<_> = neighbours
        .iter()
        .map(|neighbour| neighbour.message(&links))
        .collect::<Result<_>>()?;
    for (neighbour, message) in neighbours.into_iter().zip(messages) {
        netlink
            .change(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .attempt(|| format!("set neighbour {neighbour}"))?;
        set.retain(|old| !is_same(old, &neighbour));
        set.push(neighbour);
    }
    Ok(())
}

/// Removes those of `set` that are not wanted any more, and adds the rest.
pub(super) fn replace(
    netlink: &mut Netlink,
    set: &mut Vec<Neighbour>,
    wanted: Vec<Neighbour>,
) -> Result<()> {
    let links = link::list(netlink)?;
    let gone: Vec<_> = set
        .iter()
        .filter(|old| !wanted.iter().any(|new| is_same(old, new)))
        .cloned()
        .collect();
    for old in gone {
        // With its interface the neighbour went too.
        if let Ok(message) = old.message(&links) {
            match netlink.change(RouteNetlinkMessage::DelNeighbour(message), 0) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                result => result.attempt(|| format!("remove neighbour {old}"))?,
            }
        }
        set.retain(|kept| !is_same(kept, &old));
    }
    add(netlink, set, wanted)
}

fn is_same(one: &Neighbour, other: &Neighbour) -> bool {
    one.address == other.address && one.device == other.device
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_zero_never_ends_and_strange_ones_are_refused() {
        let state = |state| Neighbour::state_and_flags(state, 0).map(|(state, _)| state);
        assert_eq!(state(0).unwrap(), NeighbourState::Permanent);
        assert_eq!(state(2).unwrap(), NeighbourState::Reachable);
        assert!(state(3).is_err() && state(1 << 20).is_err());
        assert!(Neighbour::state_and_flags(0, 256).is_err());
        let (_, flags) = Neighbour::state_and_flags(0, 128).unwrap();
        assert_eq!(flags, NeighbourFlags::Router);
    }
}
