use serde::Serialize;

use crate::HotDeviceKind;

/// How a guest's agent can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The kernel's vsock, through `/dev/vhost-vsock`.
    VhostVsock,
    /// A Unix socket that takes `CONNECT <port>`, served by the VMM or a device process.
    HybridVsock,
}

/// What a driver can do. Plain data, known before a VM exists, so that a configuration is checked
/// against it and nothing is found out by failing.
///
/// ```
/// use vc_hypervisor::{Hypervisor, mock::MockHypervisor};
///
/// let (hypervisor, _script) = MockHypervisor::new();
/// assert!(hypervisor.capabilities().vcpus_max >= 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// The most virtual processors of a VM.
    pub vcpus_max: u32,
    /// The least memory of a VM that boots, in MiB.
    pub memory_mib_min: u32,
    /// The most shares of the host's files that a VM can have from its start; 0 where the VMM
    /// has no file sharing.
    pub shares_max: usize,
    /// The most disks that a VM can have from its start.
    pub disks_max: usize,
    /// The most network devices that a VM can have from its start.
    pub nics_max: usize,
    /// The most pairs of queues of one of them.
    pub nic_queues_max: u16,
    /// The most descriptors of all of them: each pair of queues has one, and another with vhost.
    pub nic_descriptors_max: usize,
    /// Whether the VMM has a network stack of its own.
    pub user_network: bool,
    /// Whether a network device can be one of the host that the guest drives itself.
    pub passed_nics: bool,
    /// What can be plugged in while a VM runs, where it has a free root port.
    pub hot_plug: &'static [HotDeviceKind],
    /// Whether a VM can get more processors and memory while it runs, and give memory back.
    pub resizes: bool,
    /// The most root ports, each of which takes one device later.
    pub root_ports_max: u8,
    /// Whether the VMM serves hybrid vsock itself. Where it does not, a device process does.
    pub own_vsock: bool,
    /// The ways to the agent.
    pub transports: &'static [Transport],
    /// Bytes of all kernel parameters that a VM can be given, with a space between two.
    pub kernel_params_bytes_max: usize,
}
