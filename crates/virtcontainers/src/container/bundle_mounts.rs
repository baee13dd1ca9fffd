//! The mounts of a bundle: what of them is the host's, and what the guest makes of itself.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use vc_types::ContainerId;

use super::config::{Access, Propagation, Volume};
use super::placement::shared_memory_dir;
use super::pod::Neighbours;

/// Where engines bind a tmpfs of the host for POSIX shared memory. The guest's own serves as well,
/// and is memory that its processes can share.
const SHARED_MEMORY: &str = "/dev/shm";

/// An option of a tmpfs that no kernel knows: it is to begin with what the root has at its place.
const COPY_UP: &str = "tmpcopyup";

/// Options of mount(8) that the kernel takes for all file systems and that change nothing of those
/// that a container can have here: how much is said of errors, and a count that is kept anyway.
const WITHOUT_EFFECT: [&str; 4] = ["silent", "loud", "iversion", "noiversion"];

/// Options that say what becomes of mounts below a mount.
const PROPAGATION: [&str; 8] = [
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

/// Bind mounts become volumes, and hold their place in the order. The rest stays.
pub(super) fn split_mounts(
    all: &[Mount],
    bundle: &Path,
    root: &Path,
    memory: &SharedMemory,
) -> (Vec<Volume>, Vec<Mount>) {
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    for mount in all {
        let options = mount.options().as_deref().unwrap_or_default();
        let has = |name: &str| options.iter().any(|option| option == name);
        let is_bind = mount.typ().as_deref() == Some("bind") || has("bind") || has("rbind");
        let destination = mount.destination();
        if is_bind && destination == Path::new(SHARED_MEMORY) {
            mounts.push(memory.mount());
        } else if is_bind {
            let source = bundle.join(mount.source().clone().unwrap_or_default());
            mounts.push(bind_at(destination, &source, options));
            volumes.push(Volume {
                source,
                destination: destination.clone(),
                access: if has("ro") {
                    Access::ReadOnly
                } else {
                    Access::ReadWrite
                },
                propagation: propagation(options),
            });
        } else if has(COPY_UP)
            && let Some(source) = filled_directory(root, destination)
        {
            mounts.push(bind_at(destination, &source, &["rbind".to_owned()]));
            volumes.push(Volume {
                source,
                destination: destination.clone(),
                access: Access::Private,
                propagation: Propagation::Private,
            });
        } else {
            let mut mount = mount.clone();
            mount.set_options(mount.options().is_some().then(|| known(options)));
            mounts.push(mount);
        }
    }
    (volumes, mounts)
}

/// The last option decides, as with mount(8).
fn propagation(options: &[String]) -> Propagation {
    let mut options = options.iter().rev();
    let last = options.find(|option| PROPAGATION.contains(&option.as_str()));
    match last.map(String::as_str) {
        Some("slave" | "rslave") => Propagation::Slave,
        _ => Propagation::Private,
    }
}

/// The options that the guest's kernel is to see.
fn known(options: &[String]) -> Vec<String> {
    let is_known = |option: &str| option != COPY_UP && !WITHOUT_EFFECT.contains(&option);
    let known = options.iter().filter(|option| is_known(option));
    known.cloned().collect()
}

/// The place of a volume among the mounts, and how it is mounted there.
fn bind_at(destination: &Path, source: &Path, options: &[String]) -> Mount {
    let mut options = known(options);
    if !options
        .iter()
        .any(|option| PROPAGATION.contains(&option.as_str()))
    {
        options.push("rprivate".into());
    }
    let mut mount = Mount::default();
    mount
        .set_destination(destination.to_owned())
        .set_typ(Some("bind".into()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options));
    mount
}

/// The directory of the root at a place of the container, when there is something in it. Whoever
/// made the root may have made links: a path with one is none.
fn filled_directory(root: &Path, destination: &Path) -> Option<PathBuf> {
    let root = std::fs::canonicalize(root).ok()?;
    let place = root.join(destination.strip_prefix("/").ok()?);
    let filled = std::fs::canonicalize(&place).ok()? == place
        && std::fs::read_dir(&place).ok()?.next().is_some();
    filled.then_some(place)
}

/// The directory of the guest that containers have at `/dev/shm`: those that share their IPC
/// namespace have the same one.
pub(super) struct SharedMemory {
    source: String,
}

impl SharedMemory {
    pub(super) fn of(spec: &Spec, id: &ContainerId, neighbours: &Neighbours) -> Self {
        let linux = spec.linux().as_ref();
        let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
        let joined = namespaces
            .unwrap_or_default()
            .iter()
            .find(|namespace| namespace.typ() == LinuxNamespaceType::Ipc)
            .and_then(|namespace| neighbours.at(namespace.path().as_deref()?));
        Self {
            source: shared_memory_dir(joined.unwrap_or(id)),
        }
    }

    fn mount(&self) -> Mount {
        let mut mount = Mount::default();
        let options = ["rbind", "rprivate", "rw", "nosuid", "noexec", "nodev"];
        mount
            .set_destination(SHARED_MEMORY.into())
            .set_typ(Some("bind".into()))
            .set_source(Some(self.source.clone().into()))
            .set_options(Some(options.map(str::to_owned).to_vec()));
        mount
    }
}
