use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::error::Error;

const FORM: &str = "[IP:]HOST:GUEST[/tcp|/udp]";

/// A port of the host that leads to one of a throw-away VM: `--publish [IP:]HOST:GUEST[/udp]`. An
/// address of IPv6 is in brackets: `[::1]:8080:80`.
///
/// ```
/// use std::net::Ipv4Addr;
/// use vc_config::syntax::PublishSpec;
///
/// let port: PublishSpec = "8053:53/udp".parse()?;
/// assert!(port.udp);
/// assert_eq!(port.address, Ipv4Addr::LOCALHOST);
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishSpec {
    /// Where the host listens: its loopback address where none is given.
    pub address: IpAddr,
    /// The host's port.
    pub host: NonZeroU16,
    /// The guest's port.
    pub guest: NonZeroU16,
    /// Whether it is one of UDP, and not of TCP.
    pub udp: bool,
}

impl FromStr for PublishSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| invalid("published port", FORM, text, reason);
        let (ports, udp) = match text.rsplit_once('/') {
            None => (text, false),
            Some((ports, "tcp")) => (ports, false),
            Some((ports, "udp")) => (ports, true),
            Some((_, other)) => {
                return Err(wrong(format!("the protocol {other:?} is not tcp or udp")));
            }
        };
        let (bracketed, ports) = match ports.strip_prefix('[') {
            None => (None, ports),
            Some(rest) => {
                let (address, ports) = rest
                    .split_once("]:")
                    .ok_or_else(|| wrong("it has no ']:' behind the address".to_owned()))?;
                let address = address.parse::<Ipv6Addr>();
                let address = address.map_err(|_| {
                    wrong("what is in the brackets is not an IPv6 address".to_owned())
                })?;
                (Some(IpAddr::V6(address)), ports)
            }
        };
        let (address, host, guest) = match ports.split(':').collect::<Vec<_>>().as_slice() {
            [host, guest] => (None, *host, *guest),
            [address, host, guest] if bracketed.is_none() => (Some(*address), *host, *guest),
            [_] => return Err(wrong("it has no ':' between HOST and GUEST".to_owned())),
            _ if ports.parse::<Ipv6Addr>().is_ok() => {
                return Err(wrong(
                    "it is an IPv6 address alone, or one without brackets".to_owned(),
                ));
            }
            _ => return Err(wrong("it has more than two ':'".to_owned())),
        };
        let port = |name: &str, text: &str| match text.parse::<NonZeroU16>() {
            // What `parse` takes besides, such as `+80`, would not print as it was.
            Ok(port) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => Err(wrong(format!("{name} {text:?} is not from 1 to 65535"))),
        };
        Ok(Self {
            address: match (bracketed, address) {
                (Some(address), _) => address,
                (None, None) => Ipv4Addr::LOCALHOST.into(),
                (None, Some(text)) => text
                    .parse::<Ipv4Addr>()
                    .map_err(|_| wrong(format!("IP {text:?} is not an IPv4 address")))?
                    .into(),
            },
            host: port("HOST", host)?,
            guest: port("GUEST", guest)?,
            udp,
        })
    }
}

impl fmt::Display for PublishSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.udp { "udp" } else { "tcp" };
        let Self {
            address,
            host,
            guest,
            ..
        } = self;
        let listened = SocketAddr::new(*address, host.get());
        write!(f, "{listened}:{guest}/{protocol}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        for (bad, named) in [
            ("", "':'"),
            ("80", "':'"),
            ("0:80", "HOST"),
            ("80:", "GUEST"),
            ("+1:80", "HOST"),
            ("80:65536", "GUEST"),
            ("8000-8010:80", "HOST"),
            ("80:80/sctp", "\"sctp\""),
            (":80:80", "IP"),
            ("localhost:80:80", "\"localhost\""),
            ("::1:80:80", "brackets"),
            ("[::1]80:80", "']:'"),
            ("[::1:80:80", "']:'"),
            ("[127.0.0.1]:80:80", "not an IPv6"),
            ("[::1%lo]:80:80", "not an IPv6"),
            ("[::1]:1.2.3.4:80:80", "more than two"),
            ("1:2:3:4", "more than two"),
        ] {
            let error = bad.parse::<PublishSpec>().unwrap_err().to_string();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }

    #[test]
    fn an_address_and_a_protocol_may_be_given() {
        let port: PublishSpec = "0.0.0.0:8080:80/tcp".parse().unwrap();
        assert!(port.address.is_unspecified() && !port.udp);
        assert_eq!((port.host.get(), port.guest.get()), (8080, 80));
        let port: PublishSpec = "[::1]:8080:80/udp".parse().unwrap();
        assert_eq!(port.address, Ipv6Addr::LOCALHOST);
        assert_eq!(port.to_string(), "[::1]:8080:80/udp");
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(
            text in "([0-9]{1,3}[.:]){0,5}[0-9]{1,5}:[0-9]{1,5}(/udp|/tcp)?|\\[[0-9a-f:]{2,6}\\]:[0-9]{1,5}:80|.{0,20}"
        ) {
            if let Ok(port) = text.parse::<PublishSpec>() {
                prop_assert_eq!(port.to_string().parse::<PublishSpec>().unwrap(), port);
            }
        }
    }
}
