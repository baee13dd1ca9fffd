use std::collections::BTreeMap;

use default_spec::{ProcessConfig, default_spec};
use vc_hypervisor::AcceleratorChoice;
use vc_types::{ByteSize, ContainerId, SandboxId};

use crate::container::{Access, ContainerConfig, Root, RootSource};
use crate::error::{Error, Result};
use crate::sandbox::{HostCgroup, SandboxConfig, Scratch, VmConfig};

/// A sandbox of these containers; everything else is as small as can be.
///
/// # Errors
///
/// [`Error::Types`] for a name that is none.
pub fn sandbox(name: &str, containers: Vec<ContainerConfig>) -> Result<SandboxConfig> {
    Ok(SandboxConfig {
        id: SandboxId::new(name)?,
        hostname: None,
        vm: VmConfig {
            vcpus: 1,
            largest: None,
            asked: None,
            memory: ByteSize::from_mib(256),
            accelerator: AcceleratorChoice::Auto,
            kernel_params: Vec::new(),
            root_ports: 0,
        },
        scratch: Scratch::Memory { size: None },
        containers,
        shared_pids: false,
        network: crate::NetworkConfig::None,
        endpoints: crate::EndpointConfig::default(),
        throw_away: false,
        host_system_later: false,
        annotations: BTreeMap::new(),
        cgroup: HostCgroup::Inherited,
    })
}

/// A container that runs `args`, with its streams attached.
///
/// # Errors
///
/// [`Error::Types`] for a name that is none, [`Error::Specification`] for arguments that cannot
/// be.
pub fn container(name: &str, args: &[&str]) -> Result<ContainerConfig> {
    let id = ContainerId::new(name)?;
    let process = ProcessConfig {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: Vec::new(),
        cwd: "/".into(),
        user: (0, 0, Vec::new()),
        terminal: false,
        capabilities: Vec::new(),
        read_only: false,
        hostname: None,
    };
    let spec = default_spec(process).map_err(|source| Error::Specification {
        container: id.clone(),
        source,
    })?;
    Ok(ContainerConfig {
        id,
        spec,
        root: Root {
            source: RootSource::Directory("/".into()),
            access: Access::Private,
        },
        volumes: Vec::new(),
        mounts: Vec::new(),
        files: Vec::new(),
        attach: true,
        bundle: None,
        stand_in: false,
        cgroup: None,
        hooks: None,
        empty_dirs: Vec::new(),
    })
}
