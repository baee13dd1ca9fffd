use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use vc_types::{ByteSize, ContainerId, EndReason, Hint, SandboxId, VmSize};

use crate::factory::{TemplateError, TemplateId};
use crate::hook::{HookFailure, HookKind};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something that was asked of a sandbox or a container did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest of a VM that went on from a template does not answer.
    #[error("the guest does not go on from template {template}")]
    NotCloned {
        /// The template.
        template: TemplateId,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// A template could not be looked at, made or removed.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The sandbox did not come up. Everything that was made for it is gone again.
    #[error("sandbox {sandbox} did not start: {stage} failed")]
    Start {
        /// Which sandbox.
        sandbox: SandboxId,
        /// How far it had come.
        stage: Stage,
        /// What is known of the machine at that moment.
        record: Box<FailureReport>,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The machine ended while something was under way.
    #[error("the machine of sandbox {sandbox} ended: {reason}")]
    Ended {
        /// Which sandbox.
        sandbox: SandboxId,
        /// Why it ended.
        reason: EndReason,
    },
    /// There is no such container in the sandbox.
    #[error("container {container} does not exist in sandbox {sandbox}")]
    NoContainer {
        /// Which sandbox.
        sandbox: SandboxId,
        /// Which container.
        container: ContainerId,
    },
    /// The sandbox has no machine, or none any more. The last words are those that engines look
    /// for.
    #[error("sandbox {sandbox} is not running: container not running")]
    NotRunning {
        /// Which sandbox.
        sandbox: SandboxId,
    },
    /// The container has ended. The last words are those that engines look for.
    #[error("container {container} has ended: container not running")]
    ContainerEnded {
        /// Which container.
        container: ContainerId,
    },
    /// A hook of the container's start failed, and its machine has ended since.
    #[error("container {container} was not started: {reason}")]
    StartRefused {
        /// Which container.
        container: ContainerId,
        /// What the hook said.
        reason: String,
    },
    /// No sandbox has this container.
    #[error("container {container} does not exist")]
    UnknownContainer {
        /// Which container.
        container: ContainerId,
    },
    /// The sandbox has a container of this name already.
    #[error("container {container} already exists in sandbox {sandbox}")]
    ContainerExists {
        /// Which sandbox.
        sandbox: SandboxId,
        /// Which container.
        container: ContainerId,
    },
    /// The container is still being made.
    #[error("container {container} is still being made")]
    ContainerCreating {
        /// Which container.
        container: ContainerId,
    },
    /// The container runs, and force was not asked for.
    #[error("container {container} is running")]
    ContainerRunning {
        /// Which container.
        container: ContainerId,
    },
    /// The container outlives being killed.
    #[error(
        "container {container} did not end within {limit:?} after it was killed (limits.kill_container_ms)"
    )]
    NotEnded {
        /// Which container.
        container: ContainerId,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The sandbox runs, and force was not asked for.
    #[error("sandbox {sandbox} is running")]
    Running {
        /// Which sandbox.
        sandbox: SandboxId,
    },
    /// The host has less memory than the machine is to have.
    #[error("the machine is to have {wanted} of memory, and {available} is available on the host")]
    Memory {
        /// What was asked for.
        wanted: ByteSize,
        /// What there is.
        available: ByteSize,
    },
    /// A guest does not boot with so little memory.
    #[error("the machine is to have {wanted} of memory, and it does not boot with less than {min}")]
    MemoryMin {
        /// What was asked for.
        wanted: ByteSize,
        /// What is needed.
        min: ByteSize,
    },
    /// The host has fewer processors than the machine is to have.
    #[error("the machine is to have {wanted} processors, and the host has {available}")]
    Processors {
        /// What was asked for.
        wanted: u32,
        /// What there is.
        available: u32,
    },
    /// A guest does not put the memory to use that it was offered.
    #[error("the guest of sandbox {sandbox} has {has} of memory, and does not take {wanted}")]
    NotTaken {
        /// Whose.
        sandbox: SandboxId,
        /// What it was to have.
        wanted: ByteSize,
        /// What it has.
        has: ByteSize,
    },
    /// A machine that came in a faster way did not become as large as it has to be.
    #[error("the machine of sandbox {sandbox} does not grow to {wanted}")]
    NotGrown {
        /// Whose.
        sandbox: SandboxId,
        /// What it is to have.
        wanted: VmSize,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// Only root can do this for now.
    #[error("root's rights are needed to make a sandbox")]
    NotRoot,
    /// A program that a sandbox needs is not there.
    #[error("{what} is not installed (looked for {tried})")]
    Missing {
        /// What it is.
        what: &'static str,
        /// Where it was looked for.
        tried: String,
    },
    /// A place in a container at which something is to be mounted.
    #[error("nothing can be mounted at {}: {reason}", destination.display())]
    Destination {
        /// The place.
        destination: PathBuf,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A value cannot stand in an OCI specification.
    #[error("the specification of container {container} cannot be made")]
    Specification {
        /// Which container.
        container: ContainerId,
        /// Why.
        #[source]
        source: oci_spec::OciSpecError,
    },
    /// The specification cannot be told to the agent.
    #[error("the specification of container {container} cannot be sent to the guest")]
    Protocol {
        /// Which container.
        container: ContainerId,
        /// Why.
        #[source]
        source: agent_protocol::Error,
    },
    /// There is no such filter of system calls.
    #[error("cannot make the filter of system calls (linux.seccomp) of container {container}")]
    Filter {
        /// Which container.
        container: ContainerId,
        /// Why.
        #[source]
        source: syscall_filter::Error,
    },
    /// An OCI bundle that cannot be read.
    #[error("config.json of the bundle {} cannot be used", bundle.display())]
    Bundle {
        /// The bundle.
        bundle: PathBuf,
        /// Why.
        #[source]
        source: oci_spec::OciSpecError,
    },
    /// A hook of a bundle did not do its work.
    #[error("{kind} hook {index} ({}) failed", path.display())]
    Hook {
        /// When it was run.
        kind: HookKind,
        /// Its place among those of its kind, from 0.
        index: usize,
        /// Its program.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<HookFailure>,
    },
    /// The process in the guest that copies could not, or not everything.
    #[error("cannot copy {direction} {container}:{path}: {reason}")]
    Copy {
        /// `from` or `to`.
        direction: &'static str,
        /// Which container.
        container: ContainerId,
        /// The path in it that was asked for.
        path: String,
        /// The guest's words, cleaned and bounded, with the file that they are about.
        reason: String,
    },
    /// The host's side of a copy.
    #[error("cannot copy on the host")]
    CopyOnHost(#[from] tree_archive::Error),
    /// Something that was asked for and is not there.
    #[error("{what} is not supported")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A device of the host that a sandbox cannot have.
    #[error("the device {device} cannot be given to a sandbox: {reason}")]
    Device {
        /// Its path.
        device: String,
        /// Why not.
        reason: &'static str,
    },
    /// Something of the system that should always work did not.
    #[error("cannot {attempt}")]
    System {
        /// What was tried, on which object.
        attempt: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An undo did not work: what could not be cleaned, and why.
    #[error("not everything of sandbox {sandbox} could be cleaned: {left}")]
    Left {
        /// Which sandbox.
        sandbox: SandboxId,
        /// What is left.
        left: String,
    },
    /// A test asked for this failure.
    #[error("fault point {point}")]
    Fault {
        /// The point.
        point: &'static str,
    },
    /// The state on disk.
    #[error(transparent)]
    Store(#[from] vc_store::Error),
    /// The virtual machine.
    #[error(transparent)]
    Hypervisor(#[from] vc_hypervisor::Error),
    /// A process of the sandbox.
    #[error(transparent)]
    Launch(#[from] vc_launch::Error),
    /// The cgroups of the host.
    #[error(transparent)]
    Cgroup(#[from] vc_cgroups::Error),
    /// The network namespace of a sandbox.
    #[error(transparent)]
    Network(#[from] vc_network::Error),
    /// A port that needs a right which the process that would listen has not.
    #[error("the port {port} cannot be published by QEMU: it is one of those that need a right")]
    LowPort {
        /// The port.
        port: vc_network::PublishedPort,
    },
    /// A port for datagrams on a loopback address, whose senders passt gives no answers.
    #[error("the port {port} cannot be published by passt: nobody would get an answer there")]
    NoAnswers {
        /// The port.
        port: vc_network::PublishedPort,
    },
    /// Two ports that the process which makes the connections does not tell apart.
    #[error("the ports {port} and {other} cannot be published at once: {reason}")]
    PortsAlike {
        /// The first port.
        port: vc_network::PublishedPort,
        /// The other one.
        other: vc_network::PublishedPort,
        /// What the process cannot do.
        reason: &'static str,
    },
    /// A setting of the network that cannot be.
    #[error("the setting {key} cannot be used")]
    Setting {
        /// Which one.
        key: &'static str,
        /// Why.
        #[source]
        source: vc_network::Error,
    },
    /// vhost-net must be there and is not.
    #[error("the setting network.vhost is on, and {} cannot be used", device.display())]
    VhostNet {
        /// Its device.
        device: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A namespace has more links than a machine can have network devices.
    #[error(
        "the network namespace {} has {wanted} links with addresses, and a machine can have {max} \
         network devices",
        namespace.display()
    )]
    Interfaces {
        /// Where it is.
        namespace: PathBuf,
        /// How many it has.
        wanted: usize,
        /// How many can be.
        max: usize,
    },
    /// The shares and the scratch disk.
    #[error(transparent)]
    Storage(#[from] vc_storage::Error),
    /// The guest's kernel and initrd.
    #[error(transparent)]
    Assets(#[from] guest_image::Error),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] vc_agent_client::Error),
    /// A value that cannot be.
    #[error(transparent)]
    Types(#[from] vc_types::Error),
    /// The host could not be looked at.
    #[error(transparent)]
    Config(#[from] vc_config::Error),
}

/// The stages of a start, as messages name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Looking at what is asked for and what the host has.
    Preparation,
    /// Starting the VMM and the device processes.
    Launch,
    /// The guest's boot, until its agent answers.
    Boot,
    /// Mounting the shares and the scratch space in the guest.
    GuestPreparation,
    /// Making a container.
    ContainerCreation,
    /// Starting a container's process.
    ContainerStart,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparation => "the preparation",
            Self::Launch => "starting the VMM and the device processes",
            Self::Boot => "the guest's boot",
            Self::GuestPreparation => "preparing the guest",
            Self::ContainerCreation => "making the container",
            Self::ContainerStart => "starting the container",
        })
    }
}

/// What is known of a machine that failed.
#[derive(Debug, Default)]
pub struct FailureReport {
    /// The last lines of the guest's console, escaped.
    pub console: Vec<String>,
    /// The last lines of what the VMM printed, escaped.
    pub vmm: Vec<String>,
    /// Where all of it is kept.
    pub kept: Option<PathBuf>,
}

impl Error {
    /// Whether it came because there is no such sandbox or container.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::UnknownContainer { .. } | Self::NoContainer { .. } => true,
            Self::Store(error) => error.is_not_found(),
            _ => false,
        }
    }

    /// Whether it came because there is a sandbox or container of the name already.
    pub fn is_existing(&self) -> bool {
        match self {
            Self::ContainerExists { .. } => true,
            Self::Store(error) => matches!(error, vc_store::Error::Exists { .. }),
            Self::Start { source, .. } => source.is_existing(),
            _ => false,
        }
    }

    /// Whether it came because the process or container that was asked has ended.
    pub fn is_of_an_end(&self) -> bool {
        match self {
            Self::Ended { .. } | Self::ContainerEnded { .. } | Self::NotRunning { .. } => true,
            Self::Agent(error) => matches!(
                error.code(),
                Some(vc_agent_client::Code::NotFound | vc_agent_client::Code::FailedPrecondition)
            ),
            _ => false,
        }
    }

    /// Whether the guest keeps a device that it was asked to let go of.
    pub(crate) fn is_kept_by_guest(&self) -> bool {
        matches!(
            self,
            Self::Hypervisor(vc_hypervisor::Error::GuestKeeps { .. })
        )
    }

    /// The template of a VM that did not go on from it.
    pub(crate) fn template(&self) -> Option<TemplateId> {
        match self {
            Self::NotCloned { template, .. } => Some(template.clone()),
            _ => None,
        }
    }

    /// Whether a VM went on from its template, and was only too small.
    pub(crate) fn is_not_grown(&self) -> bool {
        match self {
            Self::NotCloned { source, .. } => source.is_not_grown(),
            _ => matches!(self, Self::NotGrown { .. }),
        }
    }

    /// Whether a VM did not get its copy of a good template.
    pub(crate) fn is_not_copied(&self) -> bool {
        match self {
            Self::NotCloned { source, .. } => source.is_not_copied(),
            _ => matches!(
                self,
                Self::Hypervisor(vc_hypervisor::Error::MemoryCopy { .. })
            ),
        }
    }

    /// Whether it can have come because a machine ended or is about to end.
    pub(crate) fn is_of_a_machine(&self) -> bool {
        matches!(
            self,
            Self::Agent(_)
                | Self::Ended { .. }
                | Self::NotRunning { .. }
                | Self::Storage(_)
                | Self::Hypervisor(_)
        )
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Start { source, .. } => source.hint(),
            Self::NotRoot => Some("run it as root, for example with sudo".into()),
            Self::Running { .. } | Self::ContainerRunning { .. } => {
                Some("add --force to end it first".into())
            }
            Self::Memory { .. } => {
                Some("give the machine less memory, for example `-m 512m`".into())
            }
            Self::NotTaken { .. } => Some(
                "set limits.resize_ms higher where the host is slow, or vm.memory so that it begins with \
                 enough"
                    .to_owned(),
            ),
            Self::MemoryMin { min, .. } => {
                Some(format!("give it more, for example `-m {}m`", min.mib()))
            }
            Self::Processors { available, .. } => Some(format!("use at most `--cpus {available}`")),
            Self::Missing { .. } => {
                Some("`virtc check` shows all that is needed, and what installs it".into())
            }
            Self::VhostNet { .. } => {
                Some("load the module vhost_net, or set network.vhost to auto".into())
            }
            Self::PortsAlike { .. } => Some("publish one of them, or with --net nat".to_owned()),
            Self::NoAnswers { .. } => Some(
                "publish it with --net nat, or for others on an address of the host's own"
                    .to_owned(),
            ),
            Self::LowPort { .. } => {
                Some("install the package passt, or publish a port from 1024 on".into())
            }
            Self::Network(error) | Self::Setting { source: error, .. } => error.hint(),
            Self::Hook { source, .. } => source.hint(),
            Self::Copy {
                direction: "to", ..
            } => Some("what came before it is left there".into()),
            Self::Left { .. } => Some("`virtc gc` tries again".into()),
            Self::Store(error) => error.hint(),
            Self::Hypervisor(error) => error.hint(),
            Self::Launch(error) => error.hint(),
            Self::Cgroup(error) => error.hint(),
            Self::Storage(error) => error.hint(),
            Self::Assets(error) => error.hint(),
            Self::Agent(error) => error.hint(),
            Self::Config(error) => error.hint(),
            _ => None,
        }
    }
}
