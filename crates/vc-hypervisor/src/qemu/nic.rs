//! The arguments of network devices.

use std::os::fd::OwnedFd;

use super::args::{CommandLine, on_off, place, slot};
use crate::nic::mac_text;
use crate::{Nic, NicBackend, NicFilter};

/// Where the guest finds the network device that is so many places behind the first one: its slot
/// and function on the root bus, as the agent's calls have it.
///
/// ```
/// assert_eq!(vc_hypervisor::qemu::nic_pci_path(0), "13.0");
/// assert_eq!(vc_hypervisor::qemu::nic_pci_path(9), "14.1");
/// ```
pub fn nic_pci_path(index: usize) -> String {
    let (slot, function) = place(slot::FIRST_NIC, index);
    format!("{slot:02x}.{function}")
}

impl CommandLine {
    pub(super) fn nic(&mut self, index: usize, nic: Nic) {
        let Nic {
            id,
            mac,
            queues,
            backend,
        } = nic;
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
        let mac = mac_text(mac);
        // A vector for each queue of a pair, one for changes and one for commands.
        let mq = match queues {
            1 => String::new(),
            pairs => format!("mq=on,vectors={},", 2 * u32::from(pairs) + 2),
        };
        let (slot, function) = place(slot::FIRST_NIC, index);
        // Nothing boots from it, so QEMU need not open a boot program for it.
        self.device(format!(
            "virtio-net-pci,netdev={id},mac={mac},{mq}disable-legacy=on,romfile=,\
             multifunction=on,bus=pcie.0,addr={slot:#04x}.{function}"
        ));
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
