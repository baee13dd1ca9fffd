//! What sandboxes and containers were asked to be, kept beside the sandbox's state: for those who
//! add a process to a container, and for a machine that is booted again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use vc_types::ContainerId;

use super::config::ContainerConfig;
use crate::error::{Error, Result};
use crate::sandbox::{DeviceConfig, SandboxConfig};

/// Bytes of a description: what the kernel takes as arguments and environment, in JSON.
const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;

/// Writes what a container is to be into its sandbox's directory, once.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn save(sandbox: &Path, container: &ContainerConfig) -> Result<()> {
    write(&container_path(sandbox, &container.id), container)
}

/// Writes what a container is to be from now on, in one step.
///
/// # Errors
///
/// [`Error::System`]: it is what it was then.
pub(crate) fn replace(sandbox: &Path, container: &ContainerConfig) -> Result<()> {
    let path = container_path(sandbox, &container.id);
    let new = sandbox.join(format!("container:{}:new.json", container.id));
    // Of one who was killed.
    remove_file(&new)?;
    write(&new, container)?;
    std::fs::rename(&new, &path).map_err(|source| Error::System {
        attempt: format!("replace {}", path.display()),
        source,
    })
}

/// Reads what a container was to be.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn load(sandbox: &Path, container: &ContainerId) -> Result<ContainerConfig> {
    read(&container_path(sandbox, container))
}

/// Removes what was kept of a container; nothing is no error.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn remove(sandbox: &Path, container: &ContainerId) -> Result<()> {
    remove_file(&container_path(sandbox, container))
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::System {
            attempt: format!("remove {}", path.display()),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Writes what a device of a sandbox is on the host, once.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn save_device(sandbox: &Path, id: &str, device: &DeviceConfig) -> Result<()> {
    write(&device_path(sandbox, id), device)
}

/// Reads what a device of a sandbox is on the host.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn load_device(sandbox: &Path, id: &str) -> Result<DeviceConfig> {
    read(&device_path(sandbox, id))
}

/// Removes what was kept of a device; nothing is no error.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn remove_device(sandbox: &Path, id: &str) -> Result<()> {
    remove_file(&device_path(sandbox, id))
}

/// Writes what a sandbox is to be into its directory, once; its containers are written each by
/// itself.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn save_sandbox(directory: &Path, config: &SandboxConfig) -> Result<()> {
    let mut own = config.clone();
    own.containers.clear();
    write(&sandbox_path(directory), &own)?;
    config
        .containers
        .iter()
        .try_for_each(|container| save(directory, container))
}

/// Reads what a sandbox was to be, without its containers.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn load_sandbox(directory: &Path) -> Result<SandboxConfig> {
    read(&sandbox_path(directory))
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let written = || -> io::Result<()> {
        let text = serde_json::to_vec(value).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&text)
    };
    written().map_err(|source| Error::System {
        attempt: format!("write {}", path.display()),
        source,
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || -> io::Result<T> {
        let mut text = Vec::new();
        File::open(path)?
            .take(DESCRIPTION_BYTES_MAX)
            .read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    };
    read().map_err(|source| Error::System {
        attempt: format!("read {}", path.display()),
        source,
    })
}

/// No id has a colon, so no container can have the sandbox's name.
fn sandbox_path(directory: &Path) -> PathBuf {
    directory.join("sandbox:.json")
}

/// The ids of devices are ours: the driver takes plain names only.
fn device_path(sandbox: &Path, id: &str) -> PathBuf {
    sandbox.join(format!("device:{id}.json"))
}

fn container_path(sandbox: &Path, container: &ContainerId) -> PathBuf {
    sandbox.join(format!("container:{container}.json"))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;
    use crate::container::{Access, Root, RootSource};

    #[test]
    fn a_container_reads_back_and_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let container = ContainerConfig {
            id: ContainerId::new("c1").unwrap(),
            spec: Spec::default(),
            root: Root {
                source: RootSource::Directory("/srv".into()),
                access: Access::Private,
            },
            volumes: Vec::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            empty_dirs: Vec::new(),
            attach: true,
            bundle: None,
            stand_in: false,
            cgroup: None,
            hooks: None,
        };
        save(directory.path(), &container).unwrap();
        let read = load(directory.path(), &container.id).unwrap();
        assert_eq!(read.spec, container.spec);
        assert!(save(directory.path(), &container).is_err());
        let mut changed = container.clone();
        changed.attach = false;
        replace(directory.path(), &changed).unwrap();
        assert!(!load(directory.path(), &container.id).unwrap().attach);
        assert!(load(directory.path(), &ContainerId::new("c2").unwrap()).is_err());
        remove(directory.path(), &container.id).unwrap();
        remove(directory.path(), &container.id).unwrap();
        assert!(load(directory.path(), &container.id).is_err());
    }
}
