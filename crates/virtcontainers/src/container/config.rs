use std::path::PathBuf;

use oci_spec::runtime::{Hooks, Mount, Spec};
use serde::{Deserialize, Serialize};
use vc_cgroups::CgroupPath;
use vc_types::ContainerId;

/// A container as it is asked for.
///
/// What its process is and may do is the OCI specification's; where its files come from is said
/// beside it, because a path of the host means nothing in the guest. `root` and bind mounts of
/// `spec` are filled in from here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Its name, unique in the sandbox.
    pub id: ContainerId,
    /// Its process, namespaces, limits, and the mounts that come before all others, as `/dev`.
    pub spec: Spec,
    /// Its root file system.
    pub root: Root,
    /// What else of the host it sees. A bind mount of `spec` with the same source and destination is
    /// the volume's: it comes there in the order, with the options that it has there. Others come
    /// after all mounts of `spec`.
    pub volumes: Vec<Volume>,
    /// Mounts that need nothing of the host, as a tmpfs. One below a volume is mounted after it.
    pub mounts: Vec<Mount>,
    /// Files that are made for it.
    pub files: Vec<GeneratedFile>,
    /// Whether to attach to its standard streams while it is made; they are taken with
    /// [`crate::SandboxHandle::take_streams`].
    pub attach: bool,
    /// Its OCI bundle, where it has one, for those who ask.
    pub bundle: Option<PathBuf>,
    /// Whether the process that makes it stands for it on the host: its pid is the container's.
    pub stand_in: bool,
    /// The cgroup on the host that the process which stands for it joins.
    pub cgroup: Option<CgroupPath>,
    /// What is run on the host at points of its life, see [`crate::run_hooks`]. Those that run in
    /// the container are in `spec`.
    pub hooks: Option<Hooks>,
    /// Directories that it finds empty and its own, on the scratch space.
    pub empty_dirs: Vec<PathBuf>,
}

/// Where a root file system comes from, and what becomes of changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Root {
    /// Its files.
    pub source: RootSource,
    /// What becomes of changes.
    pub access: Access,
}

/// Where a root file system comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RootSource {
    /// The host's own system by the allow-list, served by a process without any right.
    HostSystem,
    /// A directory of the host, served with the invoker's rights.
    Directory(PathBuf),
    /// A disk of the host with a file system, which the guest mounts.
    Disk(RootDisk),
}

/// A disk with the root of a container. What may be written is this container's alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDisk {
    /// A block device of the host, or an image.
    pub path: PathBuf,
    /// What is on it, as the guest's kernel calls it: `ext4`, `erofs`.
    pub file_system: String,
    /// How the guest mounts it, as mount(8) has options. Whether it may be written is the root's
    /// [`Access`].
    pub options: Vec<String>,
}

/// What becomes of changes to files of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// There are none: the host refuses them.
    ReadOnly,
    /// They reach the host.
    ReadWrite,
    /// They go to the scratch space and vanish with the sandbox. The host refuses writes.
    Private,
}

/// A directory or file of the host at a place of the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// On the host. Links are resolved once; it must exist.
    pub source: PathBuf,
    /// In the container, absolute.
    pub destination: PathBuf,
    /// What becomes of changes.
    pub access: Access,
    /// What becomes of mounts of the host below it; nothing where changes are [`Access::Private`].
    #[serde(default)]
    pub propagation: Propagation,
}

/// What becomes of mounts that the host makes and removes below a directory once the container is
/// made. None of the container's ever comes to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Nothing: the container has what was mounted when it was made.
    #[default]
    Private,
    /// They come and go in the container too, as far as the directory is on a mount that the host shares.
    /// The guest keeps nothing of such a directory that nobody uses, so that the host can unmount it.
    Slave,
}

/// A file that is made for the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GeneratedFile {
    /// In the container, absolute.
    pub destination: PathBuf,
    /// Its contents.
    pub contents: Vec<u8>,
}
