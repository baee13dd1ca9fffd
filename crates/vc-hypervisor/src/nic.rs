use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use vc_types::PciAddress;

use crate::{Capabilities, Error, Result};

/// Bytes of a network device's id.
pub(crate) const ID_BYTES_MAX: usize = 32;

/// A network device of the guest, virtio but where the back end says otherwise.
#[derive(Debug)]
pub struct Nic {
    /// By which the VMM knows it: letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// The MAC that the guest sees: one of a single device, so its first byte is even.
    pub mac: [u8; 6],
    /// Pairs of queues; more than one only where the back end has as many.
    pub queues: u16,
    /// Where its frames go.
    pub backend: NicBackend,
}

/// Where a network device's frames go.
#[derive(Debug)]
pub enum NicBackend {
    /// A tap interface of the host, or a character device of a macvtap one.
    Tap {
        /// One descriptor for each pair of queues, with `IFF_VNET_HDR`.
        fds: Vec<OwnedFd>,
        /// `/dev/vhost-net`, opened once for each of them; none where the VMM moves the frames.
        vhost_fds: Vec<OwnedFd>,
    },
    /// Another process, by a connected stream socket: each frame comes after its length, four bytes
    /// in network order.
    Stream {
        /// The VMM's end.
        socket: OwnedFd,
    },
    /// Another process by vhost-user, which maps the guest's memory and moves the frames: **it reads
    /// and writes all of it**.
    VhostUser {
        /// The socket at which it listens, opened as a path alone (`O_PATH`). The VMM's user
        /// connects there, and so must be allowed to write to it.
        socket: OwnedFd,
    },
    /// A device of the host that the guest drives itself. The host's driver for it is `vfio-pci`, and
    /// the VMM's user can open its group. The guest's memory is held while it is there.
    Passed {
        /// Where it is on the host. The MAC is its own.
        host: PciAddress,
    },
    /// The VMM's own network stack: outgoing connections are made by its process.
    ///
    /// The process is in the caller's network namespace then, and without a filter **the guest
    /// reaches whatever listens there, loopback included**: 10.0.2.2 is the host for it.
    User {
        /// Ports of the host that lead to ports of the guest.
        forwards: Vec<PortForward>,
        /// Whether the guest has IPv6 too, which the stack offers by itself.
        ipv6: bool,
        /// Who looks at the guest's frames before the stack does.
        filter: Option<NicFilter>,
    },
}

/// By which the frames between a guest and the VMM's own network stack go through another process.
#[derive(Debug)]
pub struct NicFilter {
    /// The way of those that the guest sends.
    pub from_guest: Detour,
    /// The way of those that it receives.
    pub to_guest: Detour,
}

/// The VMM's ends of two connected stream sockets. Each frame comes after its length, four bytes in
/// network order.
#[derive(Debug)]
pub struct Detour {
    /// Here frames leave the VMM.
    pub out: OwnedFd,
    /// Here those come back that may pass.
    pub back: OwnedFd,
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortForward {
    /// What is forwarded.
    pub protocol: ForwardProtocol,
    /// Where the host listens.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
}

/// What a port forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardProtocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl ForwardProtocol {
    /// As command lines have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A MAC as people and command lines have it.
pub(crate) fn mac_text([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

impl NicBackend {
    /// Whether a device that has it can be taken out of a running VM.
    pub(crate) fn can_be_unplugged(&self) -> bool {
        matches!(self, Self::Tap { .. })
    }

    fn descriptors(&self) -> usize {
        match self {
            Self::Tap { fds, vhost_fds } => fds.len() + vhost_fds.len(),
            Self::Stream { .. } | Self::VhostUser { .. } => 1,
            Self::Passed { .. } => 0,
            Self::User { filter, .. } => filter.as_ref().map_or(0, |_| 4),
        }
    }
}

impl Nic {
    /// What cannot be about it.
    fn fault(&self, capabilities: &Capabilities) -> Option<String> {
        let queues = usize::from(self.queues);
        if self.queues == 0 || self.queues > capabilities.nic_queues_max {
            let max = capabilities.nic_queues_max;
            return Some(format!("{queues} queues are not from 1 to {max}"));
        }
        if self.mac[0] & 1 != 0 || self.mac == [0; 6] {
            return Some("its MAC is not that of one device".into());
        }
        match &self.backend {
            NicBackend::Tap { fds, .. } if fds.len() != queues => Some(format!(
                "there are {} tap descriptors for {queues} queues",
                fds.len()
            )),
            NicBackend::Tap { vhost_fds, .. }
                if !vhost_fds.is_empty() && vhost_fds.len() != queues =>
            {
                Some(format!(
                    "there are {} vhost descriptors for {queues} queues",
                    vhost_fds.len()
                ))
            }
            NicBackend::Tap { .. } => None,
            NicBackend::Stream { .. } if queues != 1 => Some("a stream has one queue".into()),
            NicBackend::Stream { .. } | NicBackend::VhostUser { .. } => None,
            NicBackend::Passed { .. } if !capabilities.passed_nics => {
                Some("the VMM gives no device of the host to a guest".into())
            }
            NicBackend::Passed { .. } if queues != 1 => {
                Some("a device of the host brings its own queues".into())
            }
            NicBackend::Passed { .. } => None,
            NicBackend::User { .. } if !capabilities.user_network => {
                Some("the VMM has no network stack of its own".into())
            }
            NicBackend::User { .. } if queues != 1 => {
                Some("the VMM's own network stack has one queue".into())
            }
            NicBackend::User { forwards, .. } => forwards.iter().find_map(|forward| {
                let host = forward.host;
                // QEMU has no syntax for the others.
                if host.is_ipv6() {
                    Some(format!("{host} cannot be forwarded: it is IPv6"))
                } else if host.port() == 0 || forward.guest_port == 0 {
                    Some(format!("{host} cannot be forwarded: port 0 is none"))
                } else {
                    None
                }
            }),
        }
    }
}

/// Compares the devices, whose ids were looked at, with what a driver can do.
pub(crate) fn check(nics: &[Nic], capabilities: &Capabilities) -> Result<()> {
    let cannot = |reason| {
        Err(Error::Spec {
            what: "nics",
            reason,
        })
    };
    for (index, nic) in nics.iter().enumerate() {
        if let Some(fault) = nic.fault(capabilities) {
            return cannot(format!("{}: {fault}", nic.id));
        }
        let others = || nics.iter().take(index);
        if let Some(other) = others().find(|other| other.mac == nic.mac) {
            return cannot(format!("{} and {} have one MAC", other.id, nic.id));
        }
    }
    let mut taken = Vec::new();
    for forward in nics.iter().flat_map(forwards) {
        let place = (forward.protocol, forward.host);
        if taken.contains(&place) {
            let (protocol, host) = (forward.protocol.as_str(), forward.host);
            return cannot(format!("{host}/{protocol} is forwarded twice"));
        }
        taken.push(place);
    }
    let descriptors: usize = nics.iter().map(|nic| nic.backend.descriptors()).sum();
    let max = capabilities.nic_descriptors_max;
    if descriptors > max {
        return cannot(format!(
            "they have {descriptors} descriptors, and {max} are possible"
        ));
    }
    Ok(())
}

fn forwards(nic: &Nic) -> &[PortForward] {
    match &nic.backend {
        NicBackend::User { forwards, .. } => forwards,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock;

    fn user(id: &str, last: u8, forwards: Vec<PortForward>) -> Nic {
        Nic {
            id: id.into(),
            mac: [2, 0, 0, 0, 0, last],
            queues: 1,
            backend: NicBackend::User {
                forwards,
                ipv6: true,
                filter: None,
            },
        }
    }

    fn tap(queues: u16, fds: usize, vhost_fds: usize) -> Nic {
        let open = |count| (0..count).map(|_| mock::null().unwrap()).collect();
        Nic {
            backend: NicBackend::Tap {
                fds: open(fds),
                vhost_fds: open(vhost_fds),
            },
            queues,
            ..user("net0", 1, Vec::new())
        }
    }

    fn forward(host: &str, guest_port: u16) -> PortForward {
        PortForward {
            protocol: ForwardProtocol::Tcp,
            host: host.parse().unwrap(),
            guest_port,
        }
    }

    fn refused(nics: Vec<Nic>) -> String {
        let mut spec = mock::spec("web1").unwrap();
        spec.nics = nics;
        spec.check(&mock::CAPABILITIES).unwrap_err().to_string()
    }

    #[test]
    fn queues_have_a_descriptor_each() {
        let check = |nic| check(&[nic], &mock::CAPABILITIES);
        assert!(check(tap(2, 2, 2)).is_ok() && check(tap(1, 1, 0)).is_ok());
        assert!(refused(vec![tap(2, 1, 0)]).contains("1 tap descriptors for 2 queues"));
        assert!(refused(vec![tap(2, 2, 1)]).contains("1 vhost descriptors"));
        assert!(refused(vec![tap(0, 0, 0)]).contains("0 queues"));
        let stream = Nic {
            backend: NicBackend::Stream {
                socket: mock::null().unwrap(),
            },
            ..tap(2, 2, 0)
        };
        assert!(refused(vec![stream]).contains("one queue"));
        let max = mock::CAPABILITIES.nic_queues_max;
        assert!(refused(vec![tap(max + 1, max.into(), 0)]).contains("queues are not"));
    }

    #[test]
    fn a_device_of_the_host_is_whole_and_only_where_the_vmm_can() {
        let passed = |queues| Nic {
            queues,
            backend: NicBackend::Passed {
                host: "0000:03:00.0".parse().unwrap(),
            },
            ..user("net0", 1, Vec::new())
        };
        assert!(check(&[passed(1)], &mock::CAPABILITIES).is_ok());
        assert!(refused(vec![passed(2)]).contains("its own queues"));
        let unable = Capabilities {
            passed_nics: false,
            ..mock::CAPABILITIES
        };
        let error = check(&[passed(1)], &unable).unwrap_err().to_string();
        assert!(error.contains("gives no device of the host"), "{error}");
    }

    #[test]
    fn what_would_be_ambiguous_is_refused_by_name() {
        let none = Vec::new;
        let same_mac = vec![user("a", 1, none()), user("b", 1, none())];
        assert!(refused(same_mac).contains("a and b have one MAC"));
        let same_id = vec![user("a", 1, none()), user("a", 2, none())];
        assert!(refused(same_id).contains("twice"));
        assert!(refused(vec![user("a,b", 1, none())]).contains("a,b"));
        let mut multicast = user("a", 1, none());
        multicast.mac[0] = 1;
        assert!(refused(vec![multicast]).contains("MAC"));
        let twice = vec![
            user("a", 1, vec![forward("127.0.0.1:80", 80)]),
            user("b", 2, vec![forward("127.0.0.1:80", 81)]),
        ];
        assert!(refused(twice).contains("127.0.0.1:80/tcp is forwarded twice"));
        assert!(refused(vec![user("a", 1, vec![forward("[::1]:80", 80)])]).contains("IPv6"));
        assert!(refused(vec![user("a", 1, vec![forward("1.2.3.4:80", 0)])]).contains("port 0"));
    }

    #[test]
    fn more_than_there_is_room_for_are_refused() {
        let max = mock::CAPABILITIES.nics_max;
        let many = (0..=max).map(|n| user(&format!("n{n}"), n as u8, Vec::new()));
        let error = refused(many.collect());
        assert!(error.contains(&format!("{max} are possible")), "{error}");
        let wide = (0..max).map(|n| Nic {
            id: format!("n{n}"),
            mac: [2, 0, 0, 0, 1, n as u8],
            ..tap(8, 8, 8)
        });
        assert!(refused(wide.collect()).contains("descriptors"));
    }
}
