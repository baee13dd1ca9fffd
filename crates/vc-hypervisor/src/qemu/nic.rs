//! The arguments of network devices.

use std::os::fd::OwnedFd;

use super::args::{CommandLine, behind, on_off, place, port_id, port_pci_path, slot};
use super::device::Device;
use crate::{Nic, NicBackend, NicFilter};

/// Where a network device is that a machine has from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicPlace {
    /// Behind this root port, where it can be taken out again.
    Port(u8),
    /// So many places behind the first one of those that stay.
    Fixed(usize),
}

impl NicPlace {
    /// Where the guest finds it, as the agent's calls have it.
    ///
    /// ```
    /// use vc_hypervisor::qemu::NicPlace;
    ///
    /// assert_eq!(NicPlace::Fixed(9).pci_path(), "14.1");
    /// assert_eq!(NicPlace::Port(0).pci_path(), "1b.0/00");
    /// ```
    pub fn pci_path(self) -> String {
        match self {
            Self::Port(port) => port_pci_path(port.into()),
            Self::Fixed(index) => {
                let (slot, function) = place(slot::FIRST_NIC, index);
                format!("{slot:02x}.{function}")
            }
        }
    }
}

/// Where each network device is, of which it is given whether it can be taken out of a running
/// machine: whether it is a tap. Those are behind root ports for as long as a port stays free for
/// what is to come.
///
/// ```
/// use vc_hypervisor::qemu::{NicPlace, nic_places};
///
/// let places = nic_places([true, false, true, true], 3);
/// let (port, fixed) = (NicPlace::Port, NicPlace::Fixed);
/// assert_eq!(places, [port(0), fixed(0), port(1), fixed(1)]);
/// ```
pub fn nic_places(movable: impl IntoIterator<Item = bool>, root_ports: u8) -> Vec<NicPlace> {
    let (mut ports, mut fixed) = (0..root_ports.saturating_sub(1), 0..);
    let place = |movable: bool| {
        let port = movable.then(|| ports.next()).flatten();
        port.map_or_else(
            || NicPlace::Fixed(fixed.next().unwrap_or(usize::MAX)),
            NicPlace::Port,
        )
    };
    movable.into_iter().map(place).collect()
}

impl CommandLine {
    pub(super) fn nic(&mut self, at: NicPlace, nic: Nic) {
        let Nic {
            id,
            mac,
            queues,
            backend,
        } = nic;
        let (id, at, port) = match at {
            // By the port's number alone, whoever takes it out finds it.
            NicPlace::Port(port) => {
                let (id, bus) = (behind(port), port_id(port.into()));
                let at = format!("id={id},bus={bus},addr=0x00");
                (id, at, Some(port))
            }
            NicPlace::Fixed(index) => {
                let (slot, function) = place(slot::FIRST_NIC, index);
                let at = format!("multifunction=on,bus=pcie.0,addr={slot:#04x}.{function}");
                (id, at, None)
            }
        };
        let mut filter = None;
        let netdev = match backend {
            NicBackend::Tap { fds, vhost_fds } => {
                let vhost = on_off(!vhost_fds.is_empty());
                let mut netdev = format!("tap,id={id},fds={},vhost={vhost}", self.pass_all(fds));
                if !vhost_fds.is_empty() {
                    netdev += &format!(",vhostfds={}", self.pass_all(vhost_fds));
                }
                netdev
            }
            NicBackend::Stream { socket } => {
                let socket = self.pass_all(vec![socket]);
                format!("stream,id={id},server=off,addr.type=fd,addr.str={socket}")
            }
            NicBackend::VhostUser { socket } => {
                // By its number: QEMU passes descriptors on sockets alone that have a path.
                let socket = self.pass(socket);
                let chardev = format!("socket,id={id}-chardev,path=/proc/self/fd/{socket}");
                self.option("-chardev", chardev);
                format!("vhost-user,id={id},chardev={id}-chardev,queues={queues}")
            }
            NicBackend::Passed { host } => {
                // Nothing boots from it either.
                return self.device(format!("vfio-pci,host={host},romfile=,{at}"));
            }
            NicBackend::User {
                forwards,
                ipv6,
                filter: through,
            } => {
                filter = through;
                let mut netdev = format!("user,id={id},ipv6={}", on_off(ipv6));
                for forward in forwards {
                    let (protocol, host) = (forward.protocol.as_str(), forward.host);
                    let port = forward.guest_port;
                    netdev += &format!(",hostfwd={protocol}:{host}-:{port}");
                }
                netdev
            }
        };
        self.option("-netdev", netdev);
        if let Some(filter) = filter {
            self.nic_filter(&id, filter);
        }
        let device = Device::nic(&id, mac, queues);
        match (port, &mut self.late) {
            (Some(port), Some(late)) => late.nics.push((port, device)),
            _ => self.device(device.argument(&at)),
        }
    }

    /// Leads the frames of a network device out of QEMU, and back to where they go.
    fn nic_filter(&mut self, netdev: &str, filter: NicFilter) {
        // Queues are named as the device sees them: it receives what the guest sends.
        for (queue, detour) in [("rx", filter.from_guest), ("tx", filter.to_guest)] {
            let way = format!("{netdev}-{queue}");
            for (end, fd) in [("out", detour.out), ("back", detour.back)] {
                let fd = self.pass(fd);
                self.option("-chardev", format!("socket,id={way}-{end},fd={fd}"));
            }
            let ends = format!("outdev={way}-out,indev={way}-back");
            self.option(
                "-object",
                format!("filter-redirector,id={way},netdev={netdev},queue={queue},{ends}"),
            );
        }
    }

    /// Passes descriptors; the result is their numbers in QEMU.
    fn pass_all(&mut self, fds: Vec<OwnedFd>) -> String {
        let numbers: Vec<_> = fds
            .into_iter()
            .map(|fd| self.pass(fd).to_string())
            .collect();
        numbers.join(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::args::tests::line;
    use crate::{Detour, ForwardProtocol, PortForward, mock};

    fn nics_of(nics: Vec<Nic>) -> String {
        let line = line(|spec| spec.nics = nics);
        let nics: Vec<_> = line.lines().filter(|line| line.contains("net")).collect();
        nics.join("\n")
    }

    #[test]
    fn taps_with_and_without_vhost() {
        let tap = |id: &str, last, queues: u16, vhost: usize| Nic {
            id: id.into(),
            mac: [2, 0, 0, 0xfe, 0, last],
            queues,
            backend: NicBackend::Tap {
                fds: (0..queues).map(|_| mock::null().unwrap()).collect(),
                vhost_fds: (0..vhost).map(|_| mock::null().unwrap()).collect(),
            },
        };
        insta::assert_snapshot!(nics_of(vec![
            tap("net0", 1, 1, 0),
            tap("net1", 2, 1, 1),
            tap("net2", 3, 4, 4),
        ]));
    }

    #[test]
    fn the_vmms_own_network_stack_with_forwarded_ports() {
        let forward = |protocol, host: &str, guest_port| PortForward {
            protocol,
            host: host.parse().unwrap(),
            guest_port,
        };
        let detour = || Detour {
            out: mock::null().unwrap(),
            back: mock::null().unwrap(),
        };
        insta::assert_snapshot!(nics_of(vec![Nic {
            id: "net0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            queues: 1,
            backend: NicBackend::User {
                forwards: vec![
                    forward(ForwardProtocol::Tcp, "127.0.0.1:8080", 80),
                    forward(ForwardProtocol::Udp, "0.0.0.0:5353", 53),
                ],
                ipv6: false,
                filter: Some(NicFilter {
                    from_guest: detour(),
                    to_guest: detour(),
                }),
            },
        }]));
    }

    #[test]
    fn a_vhost_user_back_end_and_a_device_of_the_host() {
        let nic = |id: &str, last, queues, backend| Nic {
            id: id.into(),
            mac: [2, 0, 0, 0xfe, 0, last],
            queues,
            backend,
        };
        let host = "0000:03:00.1".parse().unwrap();
        let line = line(|spec| {
            spec.root_ports = 2;
            spec.nics = vec![
                nic("net0", 1, 1, NicBackend::Passed { host }),
                nic(
                    "net1",
                    2,
                    2,
                    NicBackend::VhostUser {
                        socket: mock::null().unwrap(),
                    },
                ),
            ];
        });
        let mine = ["net1", "vfio"];
        let lines: Vec<_> = line
            .lines()
            .filter(|line| mine.iter().any(|word| line.contains(word)))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_tap_is_behind_a_root_port_while_another_one_stays_free() {
        let line = line(|spec| {
            spec.root_ports = 2;
            spec.nics = (0..2)
                .map(|number| Nic {
                    id: format!("net{number}"),
                    mac: [2, 0, 0, 0xfe, 0, number],
                    queues: 1,
                    backend: NicBackend::Tap {
                        fds: vec![mock::null().unwrap()],
                        vhost_fds: Vec::new(),
                    },
                })
                .collect();
        });
        let lines: Vec<_> = line
            .lines()
            .filter(|line| line.contains("net") || line.contains("root-port"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_ninth_network_device_is_in_the_next_slot() {
        let nics = (0..9).map(|n| Nic {
            id: format!("net{n}"),
            mac: [2, 0, 0, 0, 0, n],
            queues: 1,
            backend: NicBackend::User {
                forwards: Vec::new(),
                ipv6: true,
                filter: None,
            },
        });
        let line = nics_of(nics.collect());
        assert!(line.contains("addr=0x13.7\n"), "{line}");
        assert!(line.ends_with("addr=0x14.0"), "{line}");
    }
}
