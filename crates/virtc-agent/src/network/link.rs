//! The kernel's links: what there is, and the changes of one.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::mac::Mac;
use super::netlink::Netlink;
use crate::error::{Attempt as _, Error, Result};

/// Links that are looked at. A virtual machine has some ten; a container that makes more of them
/// does not make the agent grow.
const LINKS_MAX: usize = 1024;

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// None for links without MACs of six bytes.
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) flags: LinkFlags,
}

impl Link {
    fn read(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            flags: message.header.flags,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = Mac::from_slice(&bytes),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        link
    }

    pub(super) fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }

    pub(super) fn has_no_arp(&self) -> bool {
        self.flags.contains(LinkFlags::Noarp)
    }

    /// Switches it on or off. Off takes its routes and most of its IPv6 addresses.
    pub(super) fn set_up(&self, netlink: &mut Netlink, up: bool) -> Result<()> {
        let mut message = self.message();
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        let word = if up { "up" } else { "down" };
        set(netlink, message).attempt(|| format!("set interface {:?} {word}", self.name))
    }

    /// Renames it, which has to be down.
    pub(super) fn rename(&self, netlink: &mut Netlink, name: &str) -> Result<()> {
        let mut message = self.message();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        set(netlink, message).attempt(|| format!("rename interface {:?} to {name:?}", self.name))
    }

    pub(super) fn set_mtu(&self, netlink: &mut Netlink, mtu: u32) -> Result<()> {
        let mut message = self.message();
        message.attributes.push(LinkAttribute::Mtu(mtu));
        set(netlink, message)
            .attempt(|| format!("set the MTU of interface {:?} to {mtu}", self.name))
    }

    pub(super) fn set_no_arp(&self, netlink: &mut Netlink, no_arp: bool) -> Result<()> {
        let mut message = self.message();
        message.header.change_mask = LinkFlags::Noarp;
        if no_arp {
            message.header.flags = LinkFlags::Noarp;
        }
        set(netlink, message).attempt(|| format!("set the flags of interface {:?}", self.name))
    }

    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.index;
        message
    }
}

fn set(netlink: &mut Netlink, message: LinkMessage) -> std::io::Result<()> {
    netlink.change(RouteNetlinkMessage::SetLink(message), 0)
}

/// All links, the loopback included.
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let dumped = netlink.dump(all, |entry| {
        if let RouteNetlinkMessage::NewLink(message) = entry
            && links.len() < LINKS_MAX
        {
            links.push(Link::read(message));
        }
    });
    dumped.attempt(|| "list the network interfaces".into())?;
    Ok(links)
}

/// The link of this name.
pub(super) fn by_name<'a>(links: &'a [Link], name: &str) -> Result<&'a Link> {
    links
        .iter()
        .find(|link| link.name == name)
        .ok_or_else(|| Error::NoInterface(format!("{name:?}")))
}
