//! What the host and our agent agree on without asking: ports, tags and places in the guest.

/// The agent's ttrpc services (the number that Kata's agent uses).
pub const AGENT_PORT: u32 = 1024;

/// The agent's framed streams, see `agent_protocol::frame`.
pub const STREAM_PORT: u32 = 1026;

/// The *host's* port that the agent of a guest that boots dials once when it is ready to serve.
pub const READY_PORT: u32 = 1027;

/// The agent's relayed connections, see `agent_protocol::relay`.
pub const RELAY_PORT: u32 = 1028;

/// The context id of every guest. Each VM has a vsock device of its own, so they never meet.
pub const GUEST_CID: u32 = 3;

/// The context id of the host.
pub const HOST_CID: u32 = 2;

/// The tag of the share with the host's system, served without any right.
pub const SYSTEM_SHARE_TAG: &str = "virtc-system";

/// The tag of the share with the invoking user's rights.
pub const USER_SHARE_TAG: &str = "virtc-user";

/// Where the agent mounts the shares, each under its tag.
pub const SHARES_DIR: &str = "/run/virtc/shares";

/// Where the agent mounts the scratch disk or the scratch tmpfs.
pub const SCRATCH_DIR: &str = "/run/virtc/scratch";

/// Where the agent keeps its containers, each under its id: `rootfs`, `config.json`, …
pub const CONTAINERS_DIR: &str = "/run/virtc/containers";

/// Below a container's own one, the directory of the files that the host gives it.
pub const CONTAINER_FILES: &str = "files";

/// What the `path` of a namespace in a container's specification begins with when it is that of
/// another container in the same guest: `container:<container id>` is the namespace that the first
/// process of that container is in. The agent takes it for `ipc`, `uts` and `pid`, and refuses
/// every other path.
///
/// ```
/// let path = format!("{}{}", vc_types::guest::CONTAINER_NAMESPACE_PREFIX, "infra");
/// assert_eq!(path, "container:infra");
/// ```
pub const CONTAINER_NAMESPACE_PREFIX: &str = "container:";

/// The step of a clone's timeline at which it found the devices that its template had not.
pub const HANDED_OVER: &str = "handed over";

/// The feature of an agent that takes a container with its files and with a filter of system calls that is made
/// already.
pub const WHOLE_CONTAINERS: &str = "whole-containers";

/// The feature of an agent that takes the time with the sandbox.
pub const TIMED_SANDBOX: &str = "timed-sandbox";

/// The parameter of our own kernel by which a virtio device of class 0xffNN has the type NN.
pub const TYPE_BY_CLASS_PARAM: &str = "virtio_pci_modern_dev.type_by_class";

/// The serial number of the scratch disk, by which the guest finds it.
pub const SCRATCH_SERIAL: &str = "virtc-scratch";

/// The file system of the scratch disk.
pub const SCRATCH_FSTYPE: &str = "ext4";

/// The options with which it is mounted.
pub const SCRATCH_OPTIONS: [&str; 2] = ["noatime", "nodev"];
