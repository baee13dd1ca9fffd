//! What a guest says it has, checked.

use std::net::IpAddr;

use agent_protocol::agent::{Interfaces, Routes};
use agent_protocol::types;

use super::wanted::{IFF_NOARP, IpPrefix, RTNH_F_ONLINK};
use crate::error::{Error, Result};

/// Interfaces that a guest can have for us. Our own has some ten.
const INTERFACES_MAX: usize = 1024;

/// Addresses of one interface.
const ADDRESSES_MAX: usize = 1024;

/// Routes that a guest can have for us.
const ROUTES_MAX: usize = 4096;

/// Bytes of an interface's name, as the kernel has it.
const NAME_BYTES_MAX: usize = 15;

/// An interface of a guest, by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestInterface {
    /// Its name: one that can be printed.
    pub name: String,
    /// None for one that has no MAC of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Bytes.
    pub mtu: u32,
    /// Its addresses, those that the guest's kernel made included.
    pub addresses: Vec<IpPrefix>,
    /// Nobody is asked for the MACs of neighbours.
    pub no_arp: bool,
}

/// A route of a guest, by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestRoute {
    /// `None`: the default route.
    pub destination: Option<IpPrefix>,
    /// Whether it is IPv6's.
    pub ipv6: bool,
    /// The next router.
    pub gateway: Option<IpAddr>,
    /// The gateway is reached directly, whatever the addresses say.
    pub on_link: bool,
    /// Which of its own addresses the guest uses.
    pub source: Option<IpAddr>,
    /// As the kernel has it: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// `None`: the interface's.
    pub mtu: Option<u32>,
    /// The interface's name, or nothing.
    pub device: String,
}

pub(super) fn interfaces(call: &'static str, answer: Interfaces) -> Result<Vec<GuestInterface>> {
    let list = bounded(call, "interfaces", answer.Interfaces, INTERFACES_MAX)?;
    list.iter()
        .map(|message| interface(message).map_err(bad(call)))
        .collect()
}

pub(super) fn routes(call: &'static str, answer: Routes) -> Result<Vec<GuestRoute>> {
    let list = bounded(call, "routes", answer.Routes, ROUTES_MAX)?;
    list.iter()
        .map(|message| route(message).map_err(bad(call)))
        .collect()
}

pub(super) fn bad(call: &'static str) -> impl Fn(String) -> Error {
    move |reason| Error::BadAnswer { call, reason }
}

fn bounded<T>(call: &'static str, what: &str, list: Vec<T>, max: usize) -> Result<Vec<T>> {
    match list.len() <= max {
        true => Ok(list),
        false => Err(bad(call)(format!(
            "there are {} {what}, of at most {max}",
            list.len()
        ))),
    }
}

fn interface(message: &types::Interface) -> Result<GuestInterface, String> {
    if message.IPAddresses.len() > ADDRESSES_MAX {
        return Err(format!("more than {ADDRESSES_MAX} addresses"));
    }
    let addresses = message.IPAddresses.iter().map(|own| {
        let length = own.mask.as_str();
        prefix(&own.address, length)
    });
    Ok(GuestInterface {
        name: name(&message.name)?,
        mac: mac(&message.hwAddr)?,
        mtu: u32::try_from(message.mtu).map_err(|_| format!("the MTU {}", message.mtu))?,
        addresses: addresses.collect::<Result<_, _>>()?,
        no_arp: message.raw_flags & IFF_NOARP != 0,
    })
}

fn route(message: &types::Route) -> Result<GuestRoute, String> {
    let destination = match message.dest.as_str() {
        "" | "default" => None,
        text => match text.split_once('/') {
            Some((ip, length)) => Some(prefix(ip, length)?),
            None => Some(host(address(text)?)),
        },
    };
    Ok(GuestRoute {
        destination,
        ipv6: message.family.value() == types::IPFamily::v6 as i32,
        gateway: optional_address(&message.gateway)?,
        on_link: message.flags & RTNH_F_ONLINK != 0,
        source: optional_address(&message.source)?,
        scope: u8::try_from(message.scope).map_err(|_| format!("the scope {}", message.scope))?,
        mtu: (message.mtu != 0).then_some(message.mtu),
        device: match message.device.as_str() {
            "" => String::new(),
            text => name(text)?,
        },
    })
}

/// A name may have any bytes but a few in the kernel; those that speak to a terminal are refused.
fn name(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !is_plain || text.contains('/') {
        return Err(format!("{:?} is no name", vc_types::one_line(text)));
    }
    Ok(text.to_owned())
}

fn mac(text: &str) -> Result<Option<[u8; 6]>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts = text.split(':').map(|part| {
        let is_byte = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_byte.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    });
    // One too many is enough to know that it is none.
    let bytes: Option<Vec<u8>> = parts.take(7).collect();
    match bytes.map(<[u8; 6]>::try_from) {
        Some(Ok(mac)) => Ok(Some(mac)),
        _ => Err(format!("{:?} is no MAC", vc_types::one_line(text))),
    }
}

fn prefix(ip: &str, length: &str) -> Result<IpPrefix, String> {
    let whole = host(address(ip)?);
    match length.parse() {
        Ok(length) if length <= whole.length => Ok(IpPrefix { length, ..whole }),
        _ => Err(format!(
            "{:?} is no length of {ip}",
            vc_types::one_line(length)
        )),
    }
}

fn host(address: IpAddr) -> IpPrefix {
    let length = if address.is_ipv6() { 128 } else { 32 };
    IpPrefix { address, length }
}

fn optional_address(text: &str) -> Result<Option<IpAddr>, String> {
    match text {
        "" => Ok(None),
        text => address(text).map(Some),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{:?} is no IP address", vc_types::one_line(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut types::Interface)) -> String {
        let mut message = types::Interface {
            name: "eth0".into(),
            hwAddr: "02:00:00:00:00:01".into(),
            mtu: 1500,
            IPAddresses: vec![types::IPAddress {
                address: "10.0.0.1".into(),
                mask: "24".into(),
                ..types::IPAddress::default()
            }],
            ..types::Interface::default()
        };
        let good = interface(&message).unwrap();
        assert_eq!(good.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(good.addresses[0].length, 24);
        change(&mut message);
        let answer = Interfaces {
            Interfaces: vec![message],
            ..Interfaces::default()
        };
        interfaces("ask", answer).unwrap_err().to_string()
    }

    #[test]
    fn a_guest_that_lies_about_its_interfaces_is_an_error_that_can_be_printed() {
        assert!(refused(|m| m.name = "\u{1b}[2J".into()).contains("\\\\u{1b}[2J"));
        assert!(refused(|m| m.name = "a".repeat(16)).contains("is no name"));
        assert!(refused(|m| m.name = "../x".into()).contains("is no name"));
        assert!(refused(|m| m.hwAddr = "02:00".into()).contains("is no MAC"));
        assert!(refused(|m| m.hwAddr = "02:".repeat(1 << 20)).len() < 10_000);
        assert!(refused(|m| m.mtu = u64::MAX).contains("the MTU"));
        assert!(refused(|m| m.IPAddresses[0].mask = "33".into()).contains("is no length"));
        assert!(refused(|m| m.IPAddresses[0].address = "x".into()).contains("is no IP"));
        let many = |m: &mut types::Interface| {
            m.IPAddresses = vec![types::IPAddress::default(); ADDRESSES_MAX + 1];
        };
        assert!(refused(many).contains("more than"));
    }

    #[test]
    fn lists_without_an_end_are_refused() {
        let answer = Routes {
            Routes: vec![types::Route::default(); ROUTES_MAX + 1],
            ..Routes::default()
        };
        let error = routes("ask", answer).unwrap_err().to_string();
        assert!(error.contains("4097 routes, of at most 4096"), "{error}");
    }

    #[test]
    fn routes_are_read_with_what_they_have() {
        let message = types::Route {
            dest: "fd00::/64".into(),
            source: "fd00::2".into(),
            device: "eth0".into(),
            family: types::IPFamily::v6.into(),
            flags: RTNH_F_ONLINK,
            scope: 253,
            ..types::Route::default()
        };
        let read = route(&message).unwrap();
        assert_eq!(read.destination.unwrap().length, 64);
        assert!(read.ipv6 && read.on_link && read.gateway.is_none());
        let host = types::Route {
            dest: "10.0.0.1".into(),
            ..types::Route::default()
        };
        assert_eq!(route(&host).unwrap().destination.unwrap().length, 32);
        for change in [
            |m: &mut types::Route| m.dest = "10.0.0.0/x".into(),
            |m: &mut types::Route| m.gateway = "gw".into(),
            |m: &mut types::Route| m.scope = 256,
            |m: &mut types::Route| m.device = "a b".into(),
        ] {
            let mut bad = message.clone();
            change(&mut bad);
            assert!(route(&bad).is_err(), "{bad:?}");
        }
    }
}
