//! Decides where everything of a container stands in the guest: which entries the shares get,
//! what the agent mounts, and how the specification reads there. Plain data in, plain data out.

use std::path::{Component, Path, PathBuf};

use agent_protocol::agent::Storage;
use oci_spec::runtime::{MountBuilder, Spec};
use vc_types::{ContainerId, guest};

use super::config::{Access, ContainerConfig, RootSource};
use crate::error::{Error, Result};

/// One thing of the host in the share with the invoker's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareEntry {
    /// Its name at the top of the share.
    pub(crate) name: String,
    /// On the host.
    pub(crate) source: PathBuf,
    /// Whether the host refuses writes.
    pub(crate) read_only: bool,
}

/// A container as the guest sees it.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// What the share with the invoker's rights holds for it.
    pub(crate) entries: Vec<ShareEntry>,
    /// Whether it needs the share of the host's system.
    pub(crate) host_system: bool,
    /// What the agent mounts for it, in order.
    pub(crate) storages: Vec<Storage>,
    /// Its specification, with the guest's paths.
    pub(crate) spec: Spec,
    /// Files that the agent writes before it makes the container.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Placement {
    pub(crate) fn of(config: &ContainerConfig) -> Result<Self> {
        let mut placement = Self {
            entries: Vec::new(),
            host_system: false,
            storages: Vec::new(),
            spec: config.spec.clone(),
            files: Vec::new(),
        };
        placement.place_root(config);
        placement.place_mounts(config)?;
        Ok(placement)
    }

    fn place_root(&mut self, config: &ContainerConfig) {
        let id = &config.id;
        let lower = match &config.root.source {
            RootSource::HostSystem => {
                self.host_system = true;
                share_path(guest::SYSTEM_SHARE_TAG, "")
            }
            RootSource::Directory(source) => {
                let name = format!("root-{id}");
                self.entries.push(ShareEntry {
                    name: name.clone(),
                    source: source.clone(),
                    read_only: config.root.access != Access::ReadWrite,
                });
                share_path(guest::USER_SHARE_TAG, &name)
            }
        };
        let root = format!("{}/rootfs", container_dir(id));
        match config.root.access {
            Access::ReadWrite => self.storages.push(bind(&lower, &root)),
            // A read-only root is private too: places for mounts have to be made in it.
            Access::Private | Access::ReadOnly => {
                let upper = format!("{}/{id}/root", guest::SCRATCH_DIR);
                self.storages.push(overlay(&lower, &upper, &root));
            }
        }
        let mut oci_root = self.spec.root().clone().unwrap_or_default();
        oci_root.set_path(PathBuf::from(root));
        if config.root.access == Access::ReadOnly {
            oci_root.set_readonly(Some(true));
        }
        self.spec.set_root(Some(oci_root));
    }

    fn place_mounts(&mut self, config: &ContainerConfig) -> Result<()> {
        let id = &config.id;
        // Destination, source in the guest, read-only.
        let mut binds: Vec<(PathBuf, String, bool)> = Vec::new();
        for (number, directory) in config.empty_dirs.iter().enumerate() {
            let source = format!("{}/{id}/empty-{number}", guest::SCRATCH_DIR);
            self.storages.push(directory_of(&source));
            binds.push((directory.clone(), source, false));
        }
        for (number, volume) in config.volumes.iter().enumerate() {
            let name = format!("vol-{id}-{number}");
            let shared = share_path(guest::USER_SHARE_TAG, &name);
            self.entries.push(ShareEntry {
                name,
                source: volume.source.clone(),
                read_only: volume.access != Access::ReadWrite,
            });
            let source = if volume.access == Access::Private {
                let merged = format!("{}/volume-{number}", container_dir(id));
                let upper = format!("{}/{id}/volume-{number}", guest::SCRATCH_DIR);
                self.storages.push(overlay(&shared, &upper, &merged));
                merged
            } else {
                shared
            };
            binds.push((
                volume.destination.clone(),
                source,
                volume.access == Access::ReadOnly,
            ));
        }
        for (number, file) in config.files.iter().enumerate() {
            let source = format!("{}/files/{number}", container_dir(id));
            self.files.push((source.clone(), file.contents.clone()));
            binds.push((file.destination.clone(), source, false));
        }
        check_destinations(&binds)?;
        // What lies deeper comes later, or it would be covered.
        binds.sort_by_key(|(destination, ..)| destination.components().count());
        let mut mounts = self.spec.mounts().clone().unwrap_or_default();
        for (destination, source, read_only) in binds {
            let access = if read_only { "ro" } else { "rw" };
            let mount = MountBuilder::default()
                .destination(destination)
                .typ("bind")
                .source(source)
                .options(["rbind", "rprivate", access].map(str::to_owned).to_vec())
                .build()
                .map_err(|source| Error::Specification {
                    container: id.clone(),
                    source,
                })?;
            mounts.push(mount);
        }
        self.spec.set_mounts(Some(mounts));
        Ok(())
    }
}

fn check_destinations(binds: &[(PathBuf, String, bool)]) -> Result<()> {
    let invalid = |destination: &Path, reason| {
        Err(Error::Destination {
            destination: destination.to_owned(),
            reason,
        })
    };
    for (number, (destination, ..)) in binds.iter().enumerate() {
        if !destination.is_absolute() {
            return invalid(destination, "it is not absolute");
        }
        if destination.components().any(|c| c == Component::ParentDir) {
            return invalid(destination, "it has `..` in it");
        }
        if destination.components().count() == 1 {
            return invalid(destination, "it is the root itself");
        }
        if binds[..number]
            .iter()
            .any(|(earlier, ..)| earlier == destination)
        {
            return invalid(destination, "two things are to be mounted there");
        }
    }
    Ok(())
}

pub(crate) fn container_dir(id: &ContainerId) -> String {
    format!("{}/{id}", guest::CONTAINERS_DIR)
}

fn share_path(tag: &str, name: &str) -> String {
    let separator = if name.is_empty() { "" } else { "/" };
    format!("{}/{tag}{separator}{name}", guest::SHARES_DIR)
}

fn overlay(lower: &str, upper: &str, mount_point: &str) -> Storage {
    Storage {
        driver: "overlayfs".into(),
        driver_options: vec!["create-dirs".into()],
        source: "overlay".into(),
        fstype: "overlay".into(),
        options: vec![
            format!("lowerdir={lower}"),
            format!("upperdir={upper}/upper"),
            format!("workdir={upper}/work"),
        ],
        mount_point: mount_point.into(),
        ..Storage::default()
    }
}

fn bind(source: &str, mount_point: &str) -> Storage {
    Storage {
        driver: "bind".into(),
        driver_options: vec!["create-dirs".into()],
        source: source.into(),
        fstype: "bind".into(),
        options: vec!["rbind".into()],
        mount_point: mount_point.into(),
        ..Storage::default()
    }
}

/// A directory on the scratch space: bound onto itself, which makes it.
fn directory_of(path: &str) -> Storage {
    bind(path, path)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::super::config::{GeneratedFile, Root, Volume};
    use super::*;

    fn config(source: RootSource, access: Access) -> ContainerConfig {
        ContainerConfig {
            id: ContainerId::new("c1").unwrap(),
            spec: Spec::default(),
            root: Root { source, access },
            volumes: vec![],
            files: vec![],
            empty_dirs: vec![],
        }
    }

    fn volume(source: &str, destination: &str, access: Access) -> Volume {
        Volume {
            source: source.into(),
            destination: destination.into(),
            access,
        }
    }

    #[test]
    fn the_host_refuses_writes_wherever_changes_do_not_reach_it() {
        for (access, read_only) in [
            (Access::Private, true),
            (Access::ReadOnly, true),
            (Access::ReadWrite, false),
        ] {
            let mut config = config(RootSource::Directory("/srv/root".into()), access);
            config.volumes.push(volume("/data", "/data", access));
            let placement = Placement::of(&config).unwrap();
            assert!(
                placement.entries.iter().all(|e| e.read_only == read_only),
                "{access:?}"
            );
            assert_eq!(placement.entries.len(), 2);
        }
    }

    #[test]
    fn the_hosts_system_brings_no_entry_of_the_invoker() {
        let placement = Placement::of(&config(RootSource::HostSystem, Access::Private)).unwrap();
        assert!(placement.host_system && placement.entries.is_empty());
        let options = &placement.storages[0].options;
        assert_eq!(options[0], "lowerdir=/run/virtc/shares/virtc-system");
    }

    #[test]
    fn deeper_destinations_are_mounted_later() {
        let mut config = config(RootSource::HostSystem, Access::Private);
        config
            .volumes
            .push(volume("/a", "/x/y/z", Access::ReadOnly));
        config.volumes.push(volume("/b", "/x", Access::ReadWrite));
        config.files.push(GeneratedFile {
            destination: "/etc/hosts".into(),
            contents: vec![],
        });
        let placement = Placement::of(&config).unwrap();
        let mounts = placement.spec.mounts().clone().unwrap();
        let binds: Vec<_> = mounts
            .iter()
            .filter(|m| m.typ().as_deref() == Some("bind"))
            .map(|m| m.destination().to_str().unwrap())
            .collect();
        assert_eq!(binds, ["/x", "/etc/hosts", "/x/y/z"]);
    }

    #[test]
    fn destinations_that_cannot_be_are_refused() {
        for bad in ["relative", "/a/../b", "/", "/twice"] {
            let mut config = config(RootSource::HostSystem, Access::Private);
            config
                .volumes
                .push(volume("/a", "/twice", Access::ReadOnly));
            config.volumes.push(volume("/b", bad, Access::ReadOnly));
            assert!(
                matches!(Placement::of(&config), Err(Error::Destination { .. })),
                "{bad}"
            );
        }
    }
}
