//! Decides where everything of a container stands in the guest: which entries the shares get,
//! what the agent mounts, and how the specification reads there. Plain data in, plain data out.

use std::path::{Component, Path, PathBuf};

use agent_protocol::agent::Storage;
use oci_spec::runtime::{Mount, MountBuilder, Spec};
use vc_storage::{Access as ShareAccess, Slave, Source};
use vc_types::{ContainerId, guest};

use super::config::{Access, ContainerConfig, Propagation, RootDisk, RootSource, Volume};
use crate::error::{Error, Result};

/// Room for POSIX shared memory, as engines give it by default.
const SHARED_MEMORY_SIZE: &str = "size=65536k";

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

impl ShareEntry {
    /// Opens what of the host it is.
    pub(crate) fn open(&self) -> Result<(Source, ShareAccess)> {
        let access = match self.read_only {
            true => ShareAccess::ReadOnly,
            false => ShareAccess::ReadWrite,
        };
        Ok((Source::open(&self.source)?, access))
    }
}

/// What the serial number of a root's disk begins with; the container's number follows.
pub(crate) const ROOT_DISK_PREFIX: &str = "root-";

/// The serial number of the disk that is the root of a container with this number.
pub(crate) fn root_disk_serial(number: u64) -> String {
    format!("{ROOT_DISK_PREFIX}{number}")
}

/// A disk of the host that the machine gets for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacedDisk {
    /// On the host.
    pub(crate) path: PathBuf,
    /// By which the guest finds it.
    pub(crate) serial: String,
    /// Whether the host refuses writes.
    pub(crate) read_only: bool,
}

/// A container as the guest sees it.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// What the share with the invoker's rights holds for it.
    pub(crate) entries: Vec<ShareEntry>,
    /// The disks that it has for itself.
    pub(crate) disks: Vec<PlacedDisk>,
    /// Whether it needs the share of the host's system.
    pub(crate) host_system: bool,
    /// What the agent mounts for it, in order.
    pub(crate) storages: Vec<Storage>,
    /// Its specification, with the guest's paths.
    pub(crate) spec: Spec,
    /// Files that the agent writes before it makes the container.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Whether somebody attaches to its streams.
    pub(crate) attach: bool,
}

impl Placement {
    /// The placement of the container that is the `number`th of its sandbox: names on the share and
    /// on the scratch space are never used twice.
    pub(crate) fn of(config: &ContainerConfig, number: u64) -> Result<Self> {
        let tag = format!("{number}-{}", config.id);
        let mut placement = Self {
            entries: Vec::new(),
            disks: Vec::new(),
            host_system: false,
            storages: Vec::new(),
            spec: config.spec.clone(),
            files: Vec::new(),
            attach: config.attach,
        };
        placement.place_root(config, &tag, number);
        placement.place_mounts(config, &tag)?;
        Ok(placement)
    }

    /// The same for a guest that gets at no file of the host.
    pub(crate) fn without_host_files(mut self) -> Self {
        self.entries.clear();
        self.disks.clear();
        self.host_system = false;
        self
    }

    /// Whether its process has a terminal.
    pub(crate) fn has_terminal(&self) -> bool {
        let process = self.spec.process().as_ref();
        process.and_then(|process| process.terminal()) == Some(true)
    }

    fn place_root(&mut self, config: &ContainerConfig, tag: &str, number: u64) {
        let id = &config.id;
        let root = format!("{}/rootfs", container_dir(id));
        let lower = match &config.root.source {
            RootSource::HostSystem => {
                self.host_system = true;
                share_path(guest::SYSTEM_SHARE_TAG, "")
            }
            RootSource::Directory(source) => {
                let name = format!("{tag}-root");
                self.entries.push(ShareEntry {
                    name: name.clone(),
                    source: source.clone(),
                    read_only: config.root.access != Access::ReadWrite,
                });
                user_share_path(&name)
            }
            RootSource::Disk(disk) => {
                let serial = root_disk_serial(number);
                let read_only = config.root.access != Access::ReadWrite;
                let mount_point = match read_only {
                    true => format!("{}/disk", container_dir(id)),
                    false => root.clone(),
                };
                self.storages
                    .push(mounted_disk(disk, &serial, read_only, &mount_point));
                self.disks.push(PlacedDisk {
                    path: disk.path.clone(),
                    serial,
                    read_only,
                });
                mount_point
            }
        };
        match config.root.access {
            // It is mounted where it belongs.
            Access::ReadWrite if lower == root => {}
            Access::ReadWrite => self.storages.push(bind(&lower, &root)),
            // A read-only root is private too: places for mounts have to be made in it.
            Access::Private | Access::ReadOnly => {
                let upper = format!("{}/{tag}/root", guest::SCRATCH_DIR);
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

    fn place_mounts(&mut self, config: &ContainerConfig, tag: &str) -> Result<()> {
        let id = &config.id;
        let bind_mount = |destination: &Path, source: &str, read_only: bool| {
            let access = if read_only { "ro" } else { "rw" };
            MountBuilder::default()
                .destination(destination)
                .typ("bind")
                .source(source)
                .options(["rbind", "rprivate", access].map(str::to_owned).to_vec())
                .build()
                .map_err(|source| Error::Specification {
                    container: id.clone(),
                    source,
                })
        };
        let mut mounts = self.spec.mounts().clone().unwrap_or_default();
        let mut placed = config.mounts.clone();
        let process = config.spec.process().as_ref();
        let owner = process.map_or((0, 0), |p| (p.user().uid(), p.user().gid()));
        for (number, directory) in config.empty_dirs.iter().enumerate() {
            let source = format!("{}/{tag}/empty-{number}", guest::SCRATCH_DIR);
            self.storages.push(directory_of(&source, owner));
            placed.push(bind_mount(directory, &source, false)?);
        }
        for (number, volume) in config.volumes.iter().enumerate() {
            let read_only = volume.access != Access::ReadWrite;
            let mut name = format!("{tag}-volume-{number}");
            // Layers do not bear what changes below them.
            if volume.propagation == Propagation::Slave && volume.access != Access::Private {
                name = Slave { read_only }.name(&name);
            }
            let shared = user_share_path(&name);
            self.entries.push(ShareEntry {
                name,
                source: volume.source.clone(),
                read_only,
            });
            let source = if volume.access == Access::Private {
                let merged = format!("{}/volume-{number}", container_dir(id));
                let upper = format!("{}/{tag}/volume-{number}", guest::SCRATCH_DIR);
                self.storages.push(overlay(&shared, &upper, &merged));
                merged
            } else {
                shared
            };
            match mounts.iter_mut().find(|mount| is_place_of(mount, volume)) {
                Some(mount) => {
                    check_destination(mount.destination())?;
                    mount.set_source(Some(source.into()));
                }
                None => {
                    let read_only = volume.access == Access::ReadOnly;
                    placed.push(bind_mount(&volume.destination, &source, read_only)?);
                }
            }
        }
        for (number, file) in config.files.iter().enumerate() {
            let source = format!("{}/{}/{number}", container_dir(id), guest::CONTAINER_FILES);
            self.files.push((source.clone(), file.contents.clone()));
            placed.push(bind_mount(&file.destination, &source, false)?);
        }
        check_destinations(&placed)?;
        // What lies deeper comes later, or it would be covered.
        placed.sort_by_key(|mount| mount.destination().components().count());
        let memory = shared_memory_dir(id);
        let own = |mount: &Mount| mount.source().as_deref() == Some(Path::new(&memory));
        if mounts.iter().any(own) {
            self.storages.push(shared_memory(&memory));
        }
        mounts.append(&mut placed);
        self.spec.set_mounts(Some(mounts));
        Ok(())
    }
}

/// Whether a mount of the specification is where this volume comes in the order.
fn is_place_of(mount: &Mount, volume: &Volume) -> bool {
    mount.typ().as_deref() == Some("bind")
        && mount.destination() == &volume.destination
        && mount.source().as_ref() == Some(&volume.source)
}

fn check_destinations(mounts: &[Mount]) -> Result<()> {
    for (number, destination) in mounts.iter().map(Mount::destination).enumerate() {
        check_destination(destination)?;
        let mut earlier = mounts[..number].iter().map(Mount::destination);
        if earlier.any(|earlier| earlier == destination) {
            return refused(destination, "two things are to be mounted there");
        }
    }
    Ok(())
}

fn check_destination(destination: &Path) -> Result<()> {
    if !destination.is_absolute() {
        return refused(destination, "it is not absolute");
    }
    if destination.components().any(|c| c == Component::ParentDir) {
        return refused(destination, "it has `..` in it");
    }
    if destination.components().count() == 1 {
        return refused(destination, "it is the root itself");
    }
    Ok(())
}

fn refused(destination: &Path, reason: &'static str) -> Result<()> {
    Err(Error::Destination {
        destination: destination.to_owned(),
        reason,
    })
}

pub(crate) fn container_dir(id: &ContainerId) -> String {
    format!("{}/{id}", guest::CONTAINERS_DIR)
}

/// Where the guest has the POSIX shared memory of a container, and of those that share it.
pub(crate) fn shared_memory_dir(id: &ContainerId) -> String {
    format!("{}/shm", container_dir(id))
}

fn shared_memory(mount_point: &str) -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "shm".into(),
        fstype: "tmpfs".into(),
        options: ["nosuid", "noexec", "nodev", "mode=1777", SHARED_MEMORY_SIZE]
            .map(str::to_owned)
            .to_vec(),
        mount_point: mount_point.into(),
        ..Storage::default()
    }
}

/// Where the guest has a name of the share with the invoker's rights.
pub(crate) fn user_share_path(name: &str) -> String {
    share_path(guest::USER_SHARE_TAG, name)
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

fn mounted_disk(disk: &RootDisk, serial: &str, read_only: bool, mount_point: &str) -> Storage {
    let access = if read_only { "ro" } else { "rw" };
    let mut options = disk.options.clone();
    options.push(access.into());
    Storage {
        driver: "blk".into(),
        source: format!("serial={serial}"),
        fstype: disk.file_system.clone(),
        options,
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

/// A directory on the scratch space: bound onto itself, which makes it, for its owner.
fn directory_of(path: &str, (uid, gid): (u32, u32)) -> Storage {
    let mut storage = bind(path, path);
    let owner = [format!("uid={uid}"), format!("gid={gid}")];
    storage.driver_options.extend(owner);
    storage
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Spec, UserBuilder};

    use super::super::config::{GeneratedFile, Root};
    use super::*;

    fn config(source: RootSource, access: Access) -> ContainerConfig {
        ContainerConfig {
            attach: false,
            bundle: None,
            stand_in: false,
            cgroup: None,
            hooks: None,
            id: ContainerId::new("c1").unwrap(),
            spec: Spec::default(),
            root: Root { source, access },
            volumes: vec![],
            mounts: vec![],
            files: vec![],
            empty_dirs: vec![],
        }
    }

    fn volume(source: &str, destination: &str, access: Access) -> Volume {
        Volume {
            source: source.into(),
            destination: destination.into(),
            access,
            propagation: Propagation::Private,
        }
    }

    #[test]
    fn a_disk_is_mounted_where_the_root_is_or_below_a_layer() {
        let disk = RootDisk {
            path: "/dev/loop0".into(),
            file_system: "ext4".into(),
            options: vec!["discard".into()],
        };
        for (access, read_only) in [(Access::ReadWrite, false), (Access::ReadOnly, true)] {
            let config = config(RootSource::Disk(disk.clone()), access);
            let placement = Placement::of(&config, 7).unwrap();
            assert!(placement.entries.is_empty(), "nothing of it is shared");
            let expected = PlacedDisk {
                path: "/dev/loop0".into(),
                serial: "root-7".into(),
                read_only,
            };
            assert_eq!(placement.disks, [expected]);
            let drivers: Vec<_> = placement.storages.iter().map(|s| &*s.driver).collect();
            let storage = &placement.storages[0];
            assert_eq!(storage.source, "serial=root-7");
            let root = "/run/virtc/containers/c1/rootfs";
            match read_only {
                false => {
                    assert_eq!(drivers, ["blk"]);
                    assert_eq!(storage.options, ["discard", "rw"]);
                    assert_eq!(storage.mount_point, root);
                }
                true => {
                    assert_eq!(drivers, ["blk", "overlayfs"]);
                    assert_eq!(storage.options, ["discard", "ro"]);
                    assert_eq!(placement.storages[1].mount_point, root);
                }
            }
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
            let placement = Placement::of(&config, 0).unwrap();
            assert!(
                placement.entries.iter().all(|e| e.read_only == read_only),
                "{access:?}"
            );
            assert_eq!(placement.entries.len(), 2);
        }
    }

    #[test]
    fn a_slaves_name_says_so_and_whether_it_is_written() {
        for (access, read_only) in [(Access::ReadOnly, true), (Access::ReadWrite, false)] {
            let mut config = config(RootSource::HostSystem, Access::Private);
            config.volumes.push(volume("/a", "/a", access));
            config.volumes.push(Volume {
                propagation: Propagation::Slave,
                ..volume("/b", "/b", access)
            });
            let placement = Placement::of(&config, 0).unwrap();
            let names = placement.entries.iter().map(|entry| &*entry.name);
            let slaves: Vec<_> = names.clone().map(Slave::of_name).collect();
            assert_eq!(slaves, [None, Some(Slave { read_only })]);
            let mounts = placement.spec.mounts().clone().unwrap();
            let sources: Vec<_> = mounts.iter().filter_map(|m| m.source().clone()).collect();
            for name in names {
                assert!(sources.contains(&user_share_path(name).into()), "{name}");
            }
        }
    }

    #[test]
    fn the_hosts_system_brings_no_entry_of_the_invoker() {
        let placement = Placement::of(&config(RootSource::HostSystem, Access::Private), 0).unwrap();
        assert!(placement.host_system && placement.entries.is_empty());
        let options = &placement.storages[0].options;
        assert_eq!(options[0], "lowerdir=/run/virtc/shares/virtc-system");
    }

    fn tmpfs(destination: &str) -> Mount {
        let mount = MountBuilder::default()
            .destination(destination)
            .typ("tmpfs");
        mount.build().unwrap()
    }

    #[test]
    fn deeper_destinations_are_mounted_later() {
        let mut config = config(RootSource::HostSystem, Access::Private);
        config.spec.set_mounts(Some(vec![tmpfs("/dev/usual")]));
        config.mounts = vec![tmpfs("/x/y"), tmpfs("/t")];
        config
            .volumes
            .push(volume("/a", "/x/y/z", Access::ReadOnly));
        config.volumes.push(volume("/b", "/x", Access::ReadWrite));
        config.files.push(GeneratedFile {
            destination: "/etc/hosts".into(),
            contents: vec![],
        });
        let placement = Placement::of(&config, 0).unwrap();
        let mounts = placement.spec.mounts().clone().unwrap();
        let destinations: Vec<_> = mounts
            .iter()
            .map(|m| m.destination().to_str().unwrap())
            .collect();
        let expected = ["/dev/usual", "/t", "/x", "/x/y", "/etc/hosts", "/x/y/z"];
        assert_eq!(destinations, expected);
    }

    #[test]
    fn a_volume_of_the_specifications_mounts_keeps_its_place_there_and_its_options() {
        let bind = |source: &str, destination: &str| {
            let options = ["bind", "nosuid"].map(str::to_owned).to_vec();
            let mount = MountBuilder::default().typ("bind").source(source);
            mount.destination(destination).options(options).build()
        };
        let mut config = config(RootSource::HostSystem, Access::Private);
        let mounts = vec![
            bind("/a", "/x").unwrap(),
            tmpfs("/x/t"),
            bind("/a", "/x").unwrap(),
        ];
        config.spec.set_mounts(Some(mounts));
        for _ in 0..2 {
            config.volumes.push(volume("/a", "/x", Access::ReadWrite));
        }
        let placement = Placement::of(&config, 0).unwrap();
        let mounts = placement.spec.mounts().clone().unwrap();
        let sources: Vec<_> = mounts.iter().map(|m| m.source().as_deref()).collect();
        let shared = |number: u32| format!("/run/virtc/shares/virtc-user/0-c1-volume-{number}");
        let (first, second) = (shared(0), shared(1));
        // None of them names a place of the host any more.
        let expected = [Some(Path::new(&first)), None, Some(Path::new(&second))];
        assert_eq!(sources, expected);
        assert_eq!(mounts[2].options().as_ref().unwrap(), &["bind", "nosuid"]);
    }

    #[test]
    fn an_empty_directory_is_its_processs_own() {
        let mut config = config(RootSource::HostSystem, Access::Private);
        let mut process = config.spec.process().clone().unwrap();
        let user = UserBuilder::default().uid(1000_u32).gid(100_u32);
        process.set_user(user.build().unwrap());
        config.spec.set_process(Some(process));
        config.empty_dirs.push("/home/ann".into());
        let placement = Placement::of(&config, 0).unwrap();
        let made = &placement.storages[1];
        assert_eq!(made.driver_options, ["create-dirs", "uid=1000", "gid=100"]);
    }

    #[test]
    fn destinations_that_cannot_be_are_refused() {
        for bad in ["relative", "/a/../b", "/", "/twice", "/tmpfs"] {
            let mut config = config(RootSource::HostSystem, Access::Private);
            config.mounts.push(tmpfs("/tmpfs"));
            config
                .volumes
                .push(volume("/a", "/twice", Access::ReadOnly));
            config.volumes.push(volume("/b", bad, Access::ReadOnly));
            assert!(
                matches!(Placement::of(&config, 0), Err(Error::Destination { .. })),
                "{bad}"
            );
        }
    }
}
