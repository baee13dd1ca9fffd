//! A network whose frames another process of the host moves, which maps the guest's memory: a virtual
//! switch.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use serde::{Deserialize, Serialize};
use vc_agent_client::network::{GuestNetwork, InterfaceConfig, IpPrefix, RouteConfig};
use vc_hypervisor::qemu::NicPlace;
use vc_hypervisor::{Nic, NicBackend};
use vc_types::{SandboxId, SandboxUsers};

use super::calls::{Interface, Route};
use super::intended::MadeNetwork;
use crate::error::{Error, Result};

/// An interface of a guest at whose other end is a process that speaks vhost-user.
///
/// **The process reads and writes all of the guest's memory**, and is trusted as the VMM is.
///
/// ```
/// use virtcontainers::{Address, Interface, NetworkConfig, VhostUserConfig};
///
/// let address = Address { ip: [10, 7, 0, 2].into(), prefix: 24 };
/// let interface = Interface {
///     name: "eth0".to_owned(),
///     mac: [2, 0, 0, 0, 0, 7],
///     mtu: 1500,
///     addresses: vec![address],
/// };
/// let socket = "/run/switch/port7.sock".into();
/// let network = NetworkConfig::VhostUser(VhostUserConfig::new(socket, interface));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VhostUserConfig {
    /// The socket at which the process listens. Users without rights must be allowed to write to it:
    /// the VMM is such a one.
    pub socket: PathBuf,
    /// What the guest has of it.
    pub interface: Interface,
    /// The guest's routes.
    pub routes: Vec<Route>,
    /// Pairs of queues; the process must have as many.
    pub queues: u16,
}

impl VhostUserConfig {
    /// One pair of queues, and no routes but that of each address.
    pub fn new(socket: PathBuf, interface: Interface) -> Self {
        Self {
            socket,
            interface,
            routes: Vec::new(),
            queues: 1,
        }
    }
}

/// The socket, looked at and held.
#[derive(Debug)]
pub(crate) struct VhostUserPlan {
    socket: OwnedFd,
    config: VhostUserConfig,
}

impl VhostUserPlan {
    /// # Errors
    ///
    /// [`Error::System`] with the socket, where it is none or the VMM could not connect to it.
    pub(super) fn of(config: &VhostUserConfig, sandbox: &SandboxId) -> Result<Self> {
        let user = SandboxUsers::of(sandbox).vmm();
        let socket = socket(&config.socket, user).map_err(|source| Error::System {
            attempt: format!("use the socket {} for a network", config.socket.display()),
            source,
        })?;
        Ok(Self {
            socket,
            config: config.clone(),
        })
    }

    pub(super) fn make(self) -> MadeNetwork {
        let Interface {
            name,
            mac,
            mtu,
            addresses,
        } = self.config.interface;
        let mut interface = InterfaceConfig::new(&name);
        interface.pci_path = NicPlace::Fixed(0).pci_path();
        interface.mac = Some(mac);
        interface.mtu = Some(mtu);
        interface.addresses = addresses
            .into_iter()
            .map(|address| IpPrefix {
                address: address.ip,
                length: address.prefix,
            })
            .collect();
        MadeNetwork {
            guest: Some(GuestNetwork {
                interfaces: vec![interface],
                routes: self.config.routes.iter().map(RouteConfig::from).collect(),
                neighbours: Vec::new(),
            }),
            nics: vec![Nic {
                id: "net0".to_owned(),
                mac,
                queues: self.config.queues,
                backend: NicBackend::VhostUser {
                    socket: self.socket,
                },
            }],
            ..MadeNetwork::default()
        }
    }
}

/// Opens it as a path alone: the VMM connects to this very one, whatever has its name by then.
fn socket(path: &Path, user: u32) -> io::Result<OwnedFd> {
    let socket = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let found = fstat(&socket)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(io::Error::other("it is no socket"));
    }
    let shift = match (found.st_uid == user, found.st_gid == user) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    if (found.st_mode >> shift) & 0o2 == 0 {
        let reason = format!("the VMM, which is the user {user}, may not write to it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::sandbox::network::Address;

    fn config(socket: &Path) -> VhostUserConfig {
        let address = Address {
            ip: [10, 7, 0, 2].into(),
            prefix: 24,
        };
        let interface = Interface {
            name: "eth0".to_owned(),
            mac: [2, 0, 0, 0, 0, 7],
            mtu: 1400,
            addresses: vec![address],
        };
        VhostUserConfig::new(socket.to_owned(), interface)
    }

    #[test]
    fn a_socket_that_the_vmm_may_use_is_a_network() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let id: SandboxId = "web".parse().unwrap();
        let mode = |mode| std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        mode(0o755);
        let error = VhostUserPlan::of(&config(&path), &id).unwrap_err();
        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert!(reason.contains("may not write to it"), "{reason}");
        mode(0o777);
        let made = VhostUserPlan::of(&config(&path), &id).unwrap().make();
        let guest = made.guest.unwrap();
        let interface = &guest.interfaces[0];
        assert_eq!(
            (interface.pci_path.as_str(), interface.mtu),
            ("13.0", Some(1400))
        );
        assert_eq!(made.nics[0].mac, [2, 0, 0, 0, 0, 7]);
        assert!(matches!(made.nics[0].backend, NicBackend::VhostUser { .. }));
    }

    #[test]
    fn what_is_no_socket_is_refused_by_its_path() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let id: SandboxId = "web".parse().unwrap();
        for path in [temp.path(), Path::new("/nonexistent/socket")] {
            let error = VhostUserPlan::of(&config(path), &id)
                .unwrap_err()
                .to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
