use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vc_cgroups::CgroupDriver;
use vc_config::{Config, Demand, HostFacts};
use vc_types::{ByteSize, ContainerId, SandboxId, VmSize};

use super::host_cgroup::HostCgroup;
use super::network::{EndpointConfig, NetworkConfig};
use crate::container::{Bundle, ContainerConfig, Neighbours, demand_of};
use crate::error::Result;
use crate::runtime::accelerator_choice;

/// A sandbox as it is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Its name, unique under the runtime's root.
    pub id: SandboxId,
    /// The name that its guest has; the id where there is none.
    pub hostname: Option<String>,
    /// The virtual machine.
    pub vm: VmConfig,
    /// Where changes of private roots and volumes go.
    pub scratch: Scratch,
    /// The containers that are made with it, in this order.
    pub containers: Vec<ContainerConfig>,
    /// Whether its containers share one pid namespace, whose first process is the agent's. A
    /// signal that nobody handles then ends a container's process, as on a host; the first process
    /// of a namespace of its own would ignore it.
    pub shared_pids: bool,
    /// Whether it is of the throw-away kind, for those who list it.
    pub throw_away: bool,
    /// Whether a container that comes later may have the host's system as its root. Those that are made with it say so
    /// themselves.
    #[serde(default)]
    pub host_system_later: bool,
    /// What is noted about it, for those who ask; it is kept with its state.
    pub annotations: BTreeMap<String, String>,
    /// Its network.
    #[serde(default)]
    pub network: NetworkConfig,
    /// How the links of its network namespace become interfaces.
    #[serde(default)]
    pub endpoints: EndpointConfig,
    /// Which cgroup its VMM and device processes are in on the host.
    #[serde(deserialize_with = "HostCgroup::or_flag")]
    pub cgroup: HostCgroup,
}

impl SandboxConfig {
    /// A sandbox without a container, with the machine that the configuration gives to sandboxes,
    /// or to those of the throw-away kind.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Config`] when the host cannot be looked at.
    ///
    /// ```
    /// use vc_config::Config;
    /// use virtcontainers::SandboxConfig;
    ///
    /// let config = SandboxConfig::empty("web-1".parse()?, &Config::default(), false)?;
    /// assert!(config.containers.is_empty() && config.vm.vcpus > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn empty(id: SandboxId, config: &Config, throw_away: bool) -> Result<Self> {
        Ok(Self {
            id,
            hostname: None,
            vm: VmConfig::of(config, &HostFacts::read()?, throw_away),
            scratch: Scratch::Memory { size: None },
            annotations: BTreeMap::new(),
            cgroup: HostCgroup::Inherited,
            network: NetworkConfig::None,
            endpoints: EndpointConfig::of(&config.network)?,
            containers: Vec::new(),
            shared_pids: false,
            throw_away,
            host_system_later: throw_away,
        })
    }

    /// The same with a machine in which so much can be used, as far as the host has it: one that grows
    /// to that where it can, so that few sizes begin.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Config`] when the host cannot be looked at.
    pub fn sized_for(mut self, demand: Demand) -> Result<Self> {
        if demand == Demand::default() {
            return Ok(self);
        }
        let wanted = demand.raise(self.vm.wanted(), &HostFacts::read()?);
        self.vm.ask_for(wanted);
        Ok(self)
    }

    /// A sandbox with the container of an OCI bundle, which has its name, as the configuration wants
    /// it, and large enough for the limits of the container or its pod. It has no network yet.
    ///
    /// # Errors
    ///
    /// Those of [`Bundle::container`], and [`crate::Error::Config`] when the host cannot be looked
    /// at.
    pub fn of_bundle(
        bundle: Bundle,
        container: &ContainerId,
        config: &Config,
        driver: CgroupDriver,
    ) -> Result<Self> {
        let id = SandboxId::new(container.as_str())?;
        let pod = bundle.pod_cgroup(driver)?;
        let empty = Self::empty(id, config, false)?.sized_for(demand_of(bundle.spec()))?;
        Ok(Self {
            hostname: bundle.hostname(),
            annotations: bundle.annotations(),
            cgroup: HostCgroup::chosen(config.runtime.sandbox_cgroup, pod),
            containers: vec![bundle.container(
                container.clone(),
                &Neighbours::default(),
                driver,
                &config.runtime.root,
            )?],
            ..empty
        })
    }
}

/// The size and kind of a virtual machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmConfig {
    /// Virtual processors, 1 or more.
    pub vcpus: u32,
    /// The guest's memory.
    pub memory: ByteSize,
    /// What it can grow to while it runs, not less than its size; nothing where it keeps that.
    #[serde(default)]
    pub largest: Option<VmSize>,
    /// What its containers may use, where that is more than its size and it can grow to it: it is so
    /// large before they are made.
    #[serde(default)]
    pub asked: Option<VmSize>,
    /// What runs its processors.
    pub accelerator: vc_hypervisor::AcceleratorChoice,
    /// Further parameters of the guest's kernel; the last one of a name wins.
    pub kernel_params: Vec<String>,
    /// How many devices can be plugged while it runs.
    pub root_ports: u8,
}

/// How many times its first memory a machine grows to at once: the kernel's account of all of it lies there.
const GROWTH_MAX: u64 = 16;

impl VmConfig {
    /// The machine that the configuration gives to sandboxes, or to those of the throw-away kind, on
    /// this host.
    ///
    /// ```
    /// use vc_config::{Config, HostFacts};
    /// use virtcontainers::VmConfig;
    ///
    /// let vm = VmConfig::of(&Config::default(), &HostFacts::read()?, true);
    /// assert_eq!(vm.wanted(), vm.size());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(config: &Config, host: &HostFacts, throw_away: bool) -> Self {
        let size = config.vm.size(host);
        let qemu = &config.hypervisor.qemu;
        let root_ports = match throw_away {
            true => qemu.root_ports_throwaway,
            false => qemu.root_ports,
        };
        let mut largest = config.vm.largest(size, host);
        if root_ports == 0 {
            // There is no place for the device that memory comes by.
            largest.memory = size.memory;
        }
        Self {
            vcpus: size.vcpus,
            memory: size.memory,
            largest: Some(largest),
            asked: None,
            accelerator: accelerator_choice(config.runtime.accelerator),
            kernel_params: config.guest.kernel_params.clone(),
            root_ports: u8::try_from(root_ports).unwrap_or(u8::MAX),
        }
    }

    /// What it begins with, unless it boots for one sandbox alone.
    pub fn size(&self) -> VmSize {
        VmSize {
            vcpus: self.vcpus,
            memory: self.memory,
        }
    }

    /// How large it is when its first containers are made.
    pub fn wanted(&self) -> VmSize {
        self.asked.unwrap_or_else(|| self.size())
    }

    /// Makes it so large at least: by growth where it can, and from its start otherwise.
    fn ask_for(&mut self, wanted: VmSize) {
        let wanted = wanted.max(self.size());
        let grows = self.largest.is_some_and(|largest| {
            let most = self.memory.bytes().saturating_mul(GROWTH_MAX);
            largest.max(wanted) == largest && wanted.memory.bytes() <= most
        });
        if grows {
            self.asked = (wanted != self.size()).then_some(wanted);
        } else {
            (self.vcpus, self.memory) = (wanted.vcpus, wanted.memory);
            self.largest = self.largest.map(|largest| largest.max(wanted));
            self.asked = None;
        }
    }

    /// The same before anybody asks for more.
    pub(crate) fn unasked(&self) -> Self {
        Self {
            asked: None,
            ..self.clone()
        }
    }
}

/// Where changes go that vanish with the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scratch {
    /// A sparse disk of this apparent size, without a name on the host.
    Disk {
        /// What the guest may write at most.
        size: ByteSize,
    },
    /// The guest's memory, up to this size; half of it where none is given.
    Memory {
        /// What the guest may write at most.
        size: Option<ByteSize>,
    },
}
