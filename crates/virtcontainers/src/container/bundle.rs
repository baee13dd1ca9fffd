//! OCI bundles: what their `config.json` asks for, as a container of a sandbox.
//!
//! What is the guest's stays in the specification. What names something of the host is taken out
//! of it: the root and bind mounts become shares. What a machine of its own makes meaningless is
//! left out, and what is not there yet is refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hooks, LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use vc_cgroups::{CgroupDriver, CgroupPath};
use vc_types::ContainerId;
use vc_types::guest::CONTAINER_NAMESPACE_PREFIX;

use super::bundle_mounts::{SharedMemory, split_mounts};
use super::config::{Access, ContainerConfig, Root, RootSource};
use super::config_json;
use super::pod::{Neighbours, PodRole, pid_of};
use crate::error::{Error, Result};
use crate::sandbox::container_name;

/// An OCI bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
    spec: Spec,
}

impl Bundle {
    /// Reads the bundle in `directory`.
    ///
    /// # Errors
    ///
    /// [`Error::Bundle`] when its `config.json` cannot be read, or says what the specification of
    /// the runtime forbids.
    pub fn open(directory: &Path) -> Result<Self> {
        let failed = |source| Error::Bundle {
            bundle: directory.to_owned(),
            source,
        };
        let path = std::fs::canonicalize(directory)
            .map_err(|error| failed(oci_spec::OciSpecError::Io(error)))?;
        let spec = config_json::read(&path.join("config.json")).map_err(failed)?;
        if let Some(root) = spec.root()
            && !path.join(root.path()).is_dir()
        {
            let what = format!("root.path {} is no directory", root.path().display());
            return Err(failed(oci_spec::OciSpecError::Other(what)));
        }
        Ok(Self { path, spec })
    }

    /// Its specification, as it was read.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The host name that it asks for.
    pub fn hostname(&self) -> Option<String> {
        self.spec.hostname().clone()
    }

    /// What whoever made it noted.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let annotations = self.spec.annotations().clone().unwrap_or_default();
        annotations.into_iter().collect()
    }

    /// The cgroup of the pod whose first container it describes: what is directly above the one that it
    /// names. Nothing where it names none, or one directly below the root or the caller's own.
    ///
    /// # Errors
    ///
    /// [`Error::Cgroup`] for a path that cannot be one.
    pub(crate) fn pod_cgroup(&self, driver: CgroupDriver) -> Result<Option<CgroupPath>> {
        let Some(path) = self.cgroups_path() else {
            return Ok(None);
        };
        Ok(CgroupPath::of_container(Some(path), driver, "")?.parent())
    }

    /// The cgroup that it names for its container.
    fn cgroups_path(&self) -> Option<&str> {
        let linux = self.spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
        path.and_then(Path::to_str).filter(|path| !path.is_empty())
    }

    /// Which sandbox its container belongs to.
    ///
    /// # Errors
    ///
    /// Those of [`PodRole::of`].
    pub fn pod_role(&self) -> Result<PodRole> {
        PodRole::of(&self.spec)
    }

    /// Refuses namespaces of the host that are of no neighbour, before one of them is joined.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with the namespace.
    pub fn check_namespaces(&self, neighbours: &Neighbours) -> Result<()> {
        prepare_namespaces(&mut self.spec.clone(), neighbours)
    }

    /// The container that it describes, which may share namespaces with its neighbours. Where it
    /// names no cgroup, that is one of the container's own among those of all state roots.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with the key of `config.json` that cannot be honoured.
    pub fn container(
        self,
        id: ContainerId,
        neighbours: &Neighbours,
        driver: CgroupDriver,
        state_root: &Path,
    ) -> Result<ContainerConfig> {
        let own = container_name(state_root, &id);
        let cgroup = CgroupPath::of_container(self.cgroups_path(), driver, &own)?;
        let Self { path, mut spec } = self;
        let unsupported = |what: &str| {
            Err(Error::Unsupported {
                what: what.to_owned(),
            })
        };
        if spec.process().is_none() {
            return unsupported("a bundle without `process`");
        }
        let hooks = spec.hooks().clone();
        spec.set_hooks(hooks.as_ref().and_then(of_the_guest));
        let root = spec.root().clone().unwrap_or_default();
        let access = match root.readonly() {
            Some(true) => Access::ReadOnly,
            _ => Access::ReadWrite,
        };
        let root = path.join(root.path());
        let memory = SharedMemory::of(&spec, &id, neighbours);
        let all = spec.mounts().as_deref().unwrap_or_default();
        let (volumes, mounts) = split_mounts(all, &path, &root, &memory);
        let source = RootSource::Directory(root);
        spec.set_mounts(Some(mounts));
        add_dev(&mut spec);
        prepare_namespaces(&mut spec, neighbours)?;
        name_propagation(&mut spec);
        leave_out_placement(&mut spec);
        Ok(ContainerConfig {
            id,
            spec,
            root: Root { source, access },
            volumes,
            mounts: Vec::new(),
            files: Vec::new(),
            empty_dirs: Vec::new(),
            attach: true,
            bundle: Some(path),
            stand_in: true,
            cgroup: Some(cgroup),
            hooks,
        })
    }
}

/// The hooks that run in the container.
fn of_the_guest(hooks: &Hooks) -> Option<Hooks> {
    let start = hooks.start_container().clone()?;
    let mut own = Hooks::default();
    own.set_start_container(Some(start));
    Some(own)
}

/// The devices that every container has are made in a file system of the guest: the host lets
/// nobody make them in a root that it shares.
fn add_dev(spec: &mut Spec) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    if mounts
        .iter()
        .any(|mount| mount.destination() == Path::new("/dev"))
    {
        return;
    }
    let mut dev = Mount::default();
    let options = ["nosuid", "mode=755", "size=65536k"];
    dev.set_destination("/dev".into())
        .set_typ(Some("tmpfs".into()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(options.map(str::to_owned).to_vec()));
    mounts.insert(0, dev);
    spec.set_mounts(Some(mounts));
}

/// The network is the sandbox's; other namespaces are made in the guest, or are a neighbour's. A container
/// that is shown its cgroup is shown its own: on hosts with version 1 engines ask for no namespace, and the
/// mount alone would be all of the guest's.
fn prepare_namespaces(spec: &mut Spec, neighbours: &Neighbours) -> Result<()> {
    let mut mounts = spec.mounts().iter().flatten();
    let shows_cgroup = mounts.any(|mount| {
        let kind = mount.typ().as_deref();
        matches!(kind, Some("cgroup" | "cgroup2"))
    });
    let Some(linux) = spec.linux_mut() else {
        return Err(Error::Unsupported {
            what: "a bundle without `linux`".into(),
        });
    };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    for namespace in &mut namespaces {
        let (kind, path) = (namespace.typ(), namespace.path().clone());
        match (kind, path) {
            (LinuxNamespaceType::User, _) => {
                return Err(Error::Unsupported {
                    what: "a user namespace (`linux.namespaces`)".into(),
                });
            }
            // The host's cgroups mean nothing in the guest.
            (LinuxNamespaceType::Cgroup, Some(_)) => _ = namespace.set_path(None),
            (_, None) => {}
            (_, Some(path)) => match neighbours.at(&path) {
                Some(container) => {
                    let joined = format!("{CONTAINER_NAMESPACE_PREFIX}{container}");
                    namespace.set_path(Some(joined.into()));
                }
                // One of no container's is the host's, and the sandbox's.
                None if kind == LinuxNamespaceType::Network && pid_of(&path).is_none() => {}
                None => {
                    return Err(Error::Unsupported {
                        what: format!(
                            "joining the {kind} namespace {}, which is of no container of this \
                             sandbox,",
                            path.display()
                        ),
                    });
                }
            },
        }
    }
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    let has_own = namespaces
        .iter()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup);
    if shows_cgroup && !has_own {
        let mut own = LinuxNamespace::default();
        own.set_typ(LinuxNamespaceType::Cgroup);
        namespaces.push(own);
    }
    linux.set_namespaces(Some(namespaces));
    Ok(())
}

/// The library in the guest knows the propagation of a root without the letter that says that it is one of
/// all mounts below, which it always is.
fn name_propagation(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    let name = linux.rootfs_propagation().as_deref();
    let plain = match name {
        Some("rprivate") => "private",
        Some("rshared") => "shared",
        Some("rslave") => "slave",
        Some("runbindable") => "unbindable",
        _ => return,
    };
    linux.set_rootfs_propagation(Some(plain.to_owned()));
}

/// Processors and memory nodes of the host mean nothing in the guest.
fn leave_out_placement(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    if let Some(mut resources) = linux.resources().clone() {
        if let Some(mut cpu) = resources.cpu().clone() {
            cpu.set_cpus(None).set_mems(None);
            resources.set_cpu(Some(cpu));
        }
        linux.set_resources(Some(resources));
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{HookBuilder, HooksBuilder, LinuxNamespaceBuilder, MountBuilder};

    use super::*;

    fn bundle(change: impl FnOnce(&mut Spec)) -> Bundle {
        let mut spec = Spec::default();
        change(&mut spec);
        Bundle {
            path: "/bundle".into(),
            spec,
        }
    }

    fn container(bundle: Bundle) -> Result<ContainerConfig> {
        bundle.container(
            ContainerId::new("c1").unwrap(),
            &Neighbours::default(),
            CgroupDriver::Cgroupfs,
            Path::new("/run/a"),
        )
    }

    fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
        MountBuilder::default()
            .destination(destination)
            .typ(kind)
            .source(source)
            .options(options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
            .build()
            .unwrap()
    }

    #[test]
    fn an_annotation_of_another_runtime_changes_no_setting() {
        let annotations = [
            ("io.katacontainers.config.hypervisor.path", "/tmp/qemu"),
            (
                "io.katacontainers.config.hypervisor.kernel_params",
                "init=/bin/sh",
            ),
            (
                "io.katacontainers.config.runtime.disable_guest_seccomp",
                "true",
            ),
            ("io.katacontainers.config.agent.kernel_modules", "x"),
            ("io.katacontainers.config_path", "/tmp/config.toml"),
        ];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let plain = container(bundle(|_| {})).unwrap();
        let mut noted = container(bundle(|spec| {
            spec.set_annotations(Some(annotations.clone().into()));
        }))
        .unwrap();
        // They are there as notes, and nothing else is another.
        let notes = noted.spec.annotations().clone();
        assert_eq!(notes, Some(annotations.into()));
        noted.spec.set_annotations(plain.spec.annotations().clone());
        assert_eq!(noted.spec, plain.spec);
        let rest = |config: &ContainerConfig| {
            let ContainerConfig { root, volumes, .. } = config;
            format!(
                "{root:?} {volumes:?} {:?} {:?}",
                config.mounts, config.files
            )
        };
        assert_eq!(rest(&noted), rest(&plain));
    }

    #[test]
    fn what_names_the_host_is_taken_out_of_the_specification() {
        let config = container(bundle(|spec| {
            spec.set_mounts(Some(vec![
                mount("/proc", "proc", "proc", &[]),
                mount("/etc/hosts", "bind", "/run/hosts", &["rbind", "ro"]),
                mount("/data", "none", "data", &["bind"]),
                mount("/dev/shm", "bind", "/var/lib/shm", &["bind"]),
            ]));
            let namespace = |kind| LinuxNamespaceBuilder::default().typ(kind);
            let namespaces = vec![
                namespace(LinuxNamespaceType::Network)
                    .path("/run/netns/x")
                    .build()
                    .unwrap(),
                namespace(LinuxNamespaceType::Pid).build().unwrap(),
            ];
            let linux = spec.linux_mut().as_mut().unwrap();
            linux.set_namespaces(Some(namespaces));
        }))
        .unwrap();
        let volumes: Vec<_> = config
            .volumes
            .iter()
            .map(|v| (v.source.to_str().unwrap(), v.access))
            .collect();
        assert_eq!(
            volumes,
            [
                ("/run/hosts", Access::ReadOnly),
                ("/bundle/data", Access::ReadWrite)
            ]
        );
        let mounts = config.spec.mounts().as_ref().unwrap();
        let kinds: Vec<_> = mounts.iter().map(|m| m.typ().as_deref().unwrap()).collect();
        assert_eq!(kinds, ["tmpfs", "proc", "bind", "bind", "bind"]);
        // They hold the volumes' places, which become those of shares.
        let sources = config.volumes.iter().map(|volume| Some(&volume.source));
        let places = mounts[2..4].iter().map(|mount| mount.source().as_ref());
        assert!(sources.eq(places));
        let memory = mounts[4].source().as_deref().unwrap();
        assert_eq!(memory, Path::new("/run/virtc/containers/c1/shm"));
        let linux = config.spec.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 1);
        assert!(matches!(
            config.root.source,
            RootSource::Directory(path) if path.starts_with("/bundle")
        ));
    }

    #[test]
    fn the_last_option_of_propagation_decides() {
        use crate::container::Propagation::{Private, Slave};
        for (options, expected) in [
            (&["rbind"][..], Private),
            (&["rbind", "rslave"], Slave),
            (&["bind", "slave", "ro"], Slave),
            (&["rslave", "rprivate"], Private),
            (&["rprivate", "rslave"], Slave),
            (&["rshared"], Private),
        ] {
            let config = container(bundle(|spec| {
                spec.set_mounts(Some(vec![mount("/data", "bind", "/data", options)]));
            }));
            let volumes = config.unwrap().volumes;
            assert_eq!(volumes[0].propagation, expected, "{options:?}");
        }
    }

    #[test]
    fn a_container_that_is_shown_a_cgroup_has_a_namespace_for_it() {
        let kinds = |mounts: Vec<Mount>, named: &[LinuxNamespaceType]| {
            let config = container(bundle(|spec| {
                spec.set_mounts(Some(mounts));
                let named = named.iter().map(|&kind| {
                    let mut namespace = LinuxNamespace::default();
                    namespace.set_typ(kind);
                    namespace
                });
                let linux = spec.linux_mut().as_mut().unwrap();
                linux.set_namespaces(Some(named.collect()));
            }));
            let linux = config.unwrap().spec.linux().clone().unwrap();
            let namespaces = linux.namespaces().clone().unwrap();
            Vec::from_iter(namespaces.iter().map(LinuxNamespace::typ))
        };
        let shown = || vec![mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"])];
        use LinuxNamespaceType::{Cgroup, Pid};
        assert_eq!(kinds(shown(), &[Pid]), [Pid, Cgroup]);
        assert_eq!(kinds(shown(), &[Cgroup, Pid]), [Cgroup, Pid]);
        assert_eq!(kinds(Vec::new(), &[Pid]), [Pid]);
    }

    #[test]
    fn the_cgroup_of_a_pod_is_above_the_one_that_a_bundle_names() {
        use CgroupDriver::{Cgroupfs, Systemd};
        let pod = |named: Option<&str>, driver| {
            let bundle = bundle(|spec| {
                let linux = spec.linux_mut().as_mut().unwrap();
                linux.set_cgroups_path(named.map(PathBuf::from));
            });
            bundle.pod_cgroup(driver)
        };
        for (named, driver, expected) in [
            (None, Cgroupfs, None),
            (Some(""), Systemd, None),
            (Some("/web"), Cgroupfs, None),
            (Some("web"), Cgroupfs, None),
            (Some("/kubepods/pod1/web"), Cgroupfs, Some("/kubepods/pod1")),
            (
                Some("kubepods-pod1.slice:cri:web"),
                Systemd,
                Some("/kubepods.slice/kubepods-pod1.slice"),
            ),
        ] {
            let found = pod(named, driver).unwrap().map(String::from);
            assert_eq!(found.as_deref(), expected, "{named:?}");
        }
        pod(Some("/../web"), Cgroupfs).unwrap_err();
    }

    #[test]
    fn a_root_has_the_propagation_that_the_guest_knows() {
        let config = container(bundle(|spec| {
            let linux = spec.linux_mut().as_mut().unwrap();
            linux.set_rootfs_propagation(Some("rslave".into()));
        }));
        let linux = config.unwrap().spec.linux().clone().unwrap();
        assert_eq!(linux.rootfs_propagation().as_deref(), Some("slave"));
    }

    #[test]
    fn a_tmpfs_that_copies_up_begins_with_what_the_root_has() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["filled/below", "empty"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::os::unix::fs::symlink("filled", root.path().join("link")).unwrap();
        let config = container(bundle(|spec| {
            let places = ["/filled", "/empty", "/link", "/missing"];
            let tmpfs = |place| mount(place, "tmpfs", "tmpfs", &["size=1m", "tmpcopyup"]);
            spec.set_mounts(Some(places.map(tmpfs).to_vec()));
            let own = spec.root_mut().as_mut().unwrap();
            own.set_path(root.path().to_owned());
        }))
        .unwrap();
        let filled = config.volumes.iter().map(|volume| &volume.destination);
        assert_eq!(Vec::from_iter(filled), [Path::new("/filled")]);
        assert_eq!(config.volumes[0].access, Access::Private);
        let mounts = config.spec.mounts().as_ref().unwrap();
        for (mount, place) in mounts[2..].iter().zip(["/empty", "/link", "/missing"]) {
            assert_eq!(mount.destination(), Path::new(place));
            assert_eq!(mount.options().as_deref().unwrap(), ["size=1m"]);
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let refused = |change: fn(&mut Spec), what: &str| {
            let error = container(bundle(change)).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        };
        refused(
            |spec| {
                let joined = LinuxNamespaceBuilder::default()
                    .typ(LinuxNamespaceType::Ipc)
                    .path("/proc/7/ns/ipc")
                    .build();
                let linux = spec.linux_mut().as_mut().unwrap();
                linux.set_namespaces(Some(vec![joined.unwrap()]));
            },
            "/proc/7/ns/ipc",
        );
        refused(|spec| _ = spec.set_process(None), "process");
    }

    #[test]
    fn only_hooks_of_the_container_go_into_the_guest() {
        let config = container(bundle(|spec| {
            let hook = HookBuilder::default().path("/bin/true").build().unwrap();
            let hooks = HooksBuilder::default()
                .poststop(vec![hook.clone()])
                .start_container(vec![hook]);
            spec.set_hooks(Some(hooks.build().unwrap()));
        }))
        .unwrap();
        let guest = config.spec.hooks().as_ref().unwrap();
        assert!(guest.poststop().is_none() && guest.start_container().is_some());
        assert!(config.hooks.unwrap().poststop().is_some());
    }

    #[test]
    fn a_directory_without_a_config_is_named() {
        let error = Bundle::open(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
