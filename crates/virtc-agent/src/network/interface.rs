//! One interface as the host wants it.

use std::fs;
use std::path::Path;

use super::addresses;
use super::link::{self, Link};
use super::mac::Mac;
use super::netlink::Netlink;
use super::pci::{self, PciPath};
use super::prefix::Prefix;
use crate::error::{Attempt as _, Error, Result};

/// Bytes of an interface's name, as the kernel has it.
const NAME_BYTES_MAX: usize = 15;

/// What an interface is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) place: Place,
    pub(super) name: Name,
    /// Which it must have, when the host says.
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
    pub(super) addresses: Vec<Prefix>,
    /// Of them: those to whose network nothing leads by itself.
    pub(super) without_route: Vec<Prefix>,
    pub(super) no_arp: bool,
}

/// How an interface is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Pci(PciPath),
    Mac(Mac),
}

impl Place {
    /// By its place on the bus when the host names that, else by its MAC.
    pub(super) fn new(pci_path: &str, mac: Option<Mac>, name: &Name) -> Result<Self> {
        match mac {
            _ if !pci_path.is_empty() => Ok(Self::Pci(pci_path.parse()?)),
            Some(mac) => Ok(Self::Mac(mac)),
            None => Err(Error::Invalid {
                field: "interface",
                value: name.0.clone(),
                reason: "has neither a PCI path nor a MAC",
            }),
        }
    }
}

/// A name that the kernel takes for an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn parse(name: &str) -> Result<Self> {
        let reason = if name.is_empty() {
            "is empty"
        } else if name.len() > NAME_BYTES_MAX {
            "is longer than 15 bytes"
        } else if name == "lo" {
            "is the loopback's"
        } else if matches!(name, "." | "..")
            || !name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
        {
            "is no name of an interface"
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(Error::Invalid {
            field: "interface name",
            value: name.to_owned(),
            reason,
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Interface {
    /// Finds its link, and checks that it is the one which the host means.
    pub(super) fn find(&self, netlink: &mut Netlink) -> Result<Link> {
        let (links, found) = match &self.place {
            Place::Pci(path) => {
                let index = pci::wait_for_interface(path)?;
                let links = link::list(netlink)?;
                let found = links.iter().position(|link| link.index == index);
                (links, found)
            }
            Place::Mac(mac) => {
                let links = link::list(netlink)?;
                let found = links.iter().position(|link| link.mac == Some(*mac));
                (links, found)
            }
        };
        let link = found
            .and_then(|position| links.into_iter().nth(position))
            .ok_or_else(|| match &self.place {
                Place::Pci(path) => Error::NoInterface(format!("at {:?}", path.as_str())),
                Place::Mac(mac) => Error::NoInterface(format!("with the MAC {mac}")),
            })?;
        match (self.mac, link.mac) {
            (Some(wanted), found) if found != Some(wanted) => Err(Error::Invalid {
                field: "MAC",
                value: wanted.to_string(),
                reason: "is not that of the interface at its PCI path",
            }),
            _ => Ok(link),
        }
    }

    /// Makes the link, which has its name already, what it is to be.
    pub(super) fn apply(&self, netlink: &mut Netlink, link: &Link) -> Result<()> {
        if let Some(mtu) = self.mtu
            && link.mtu != mtu
        {
            link.set_mtu(netlink, mtu)?;
        }
        if link.has_no_arp() != self.no_arp {
            link.set_no_arp(netlink, self.no_arp)?;
        }
        if !link.is_up() {
            trust_own_addresses(&link.name)?;
            link.set_up(netlink, true)?;
        }
        addresses::replace(netlink, link, &self.addresses, &self.without_route)
    }
}

/// Turns off the wait for another owner of an IPv6 address, which takes a second or two: the host
/// says which are ours.
fn trust_own_addresses(interface: &str) -> Result<()> {
    let switch = Path::new("/proc/sys/net/ipv6/conf")
        .join(interface)
        .join("accept_dad");
    match fs::write(&switch, "0") {
        // A kernel without IPv6 does not wait.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.attempt(|| format!("write {}", switch.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_the_kernel_takes() {
        for name in ["eth0", "net1", "veth-a.1", "123456789012345"] {
            assert_eq!(Name::parse(name).unwrap().as_str(), name);
        }
        for (name, reason) in [
            ("", "is empty"),
            ("1234567890123456", "is longer than 15 bytes"),
            ("lo", "is the loopback's"),
            (".", "is no name"),
            ("..", "is no name"),
            ("a/b", "is no name"),
            ("a b", "is no name"),
            ("a:1", "is no name"),
            ("eth%d", "is no name"),
            ("\u{e4}", "is no name"),
        ] {
            let error = Name::parse(name).unwrap_err().to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }

    #[test]
    fn an_interface_that_cannot_be_found_is_refused() {
        let name = Name::parse("eth0").unwrap();
        assert!(Place::new("", None, &name).is_err());
        assert!(Place::new("x", None, &name).is_err());
        assert!(matches!(Place::new("13", None, &name), Ok(Place::Pci(_))));
    }
}
