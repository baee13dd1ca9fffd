//! What the state file holds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vc_types::{
    BootId, ContainerId, ContainerState, EndReason, ExitStatus, ProcessIdentity, SandboxId,
    SandboxState,
};

use crate::document::Document;
use crate::error::{Error, Result};
use crate::time::UnixMillis;
use crate::version::STATE_VERSION;

/// The state of one sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SandboxRecord {
    /// The version of this form, always [`STATE_VERSION`] in memory.
    pub(crate) version: u32,
    /// Grows with every operation that begins.
    pub(crate) generation: u64,
    /// The sandbox.
    pub(crate) id: SandboxId,
    /// When it was made.
    pub created: UnixMillis,
    /// The boot of the host that it belongs to.
    pub boot_id: BootId,
    /// Where it stands.
    pub state: SandboxState,
    /// What is done with it, and by whom.
    pub(crate) operation: Option<Operation>,
    /// The process that watches over its VM.
    pub keeper: Option<ProcessIdentity>,
    /// The VMM's process.
    pub vmm_process: Option<ProcessIdentity>,
    /// What the hypervisor's driver keeps, see [`SandboxRecord::driver_state`].
    pub(crate) vmm: Option<Document>,
    /// The device processes of the VM.
    pub processes: Vec<DeviceProcess>,
    /// Its containers.
    pub containers: BTreeMap<ContainerId, ContainerRecord>,
    /// Why it ended, once it has.
    pub end_reason: Option<EndReason>,
    /// The digests of the guest assets that it runs, by their names.
    pub assets: BTreeMap<String, String>,
    /// Whether it is a throw-away VM.
    pub throwaway: bool,
    /// Whether it is kept after its end until somebody deletes it.
    pub keep: bool,
    /// What whoever made it noted about it; nothing here reads it.
    pub annotations: BTreeMap<String, String>,
    /// How many containers were made in it so far: the next one's number.
    pub containers_made: u64,
    /// The cgroup on the host that its processes are in, as whoever makes it writes it.
    pub cgroup: Option<Document>,
    /// What was added to the network of the host for it, as whoever adds it writes it.
    pub network: Option<Document>,
}

/// Something that is done with a sandbox and takes more than one change of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Operation {
    /// What is done.
    pub verb: Verb,
    /// Who does it.
    pub owner: ProcessIdentity,
    /// The step that it is in; a roll-back undoes it and those before it.
    pub step: String,
    /// When it began.
    pub started: UnixMillis,
    /// Whether somebody waits to take over: its owner rolls back.
    pub cancelled: bool,
}

/// A device process of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceProcess {
    /// What it serves, such as `share of the host's system`.
    pub name: String,
    /// The process.
    pub identity: ProcessIdentity,
}

/// The state of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ContainerRecord {
    /// Where it stands.
    pub state: ContainerState,
    /// How its process ended, once it has.
    pub exit: Option<ExitStatus>,
    /// Why its start was refused: a hook failed, and its program was never executed.
    pub start_refused: Option<String>,
    /// When it was made.
    pub created: UnixMillis,
    /// When its process started.
    pub started: Option<UnixMillis>,
    /// When its process ended.
    pub ended: Option<UnixMillis>,
    /// The process on the host that stands for the container until that is removed: after the end it
    /// may still carry the last output.
    pub stand_in: Option<ProcessIdentity>,
    /// Its OCI bundle, where it has one.
    pub bundle: Option<PathBuf>,
    /// What it runs.
    pub command: Vec<String>,
    /// Its number among all that were made in its sandbox: names made of it are never used twice.
    pub number: u64,
    /// Whether it is still being made. When nobody does it any more, what there is of it goes with
    /// the next operation on the sandbox.
    pub creating: bool,
    /// What the share with the invoker's files holds for it, to be taken out with it.
    pub shared: Vec<String>,
    /// What whoever made it noted about it; nothing here reads it.
    pub annotations: BTreeMap<String, String>,
    /// The cgroup on the host that its stand-in is in, as whoever makes it writes it.
    pub cgroup: Option<Document>,
}

/// What can be done with a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verb {
    /// Make it and its VM.
    Create,
    /// Start its containers.
    Start,
    /// Make and start it.
    Run,
    /// Make a container in it.
    CreateContainer,
    /// Remove a container of it.
    DeleteContainer,
    /// Change it while it runs.
    Update,
    /// Make its processors stand still.
    Pause,
    /// Let them go on.
    Resume,
    /// End its VM.
    Stop,
    /// Signal what runs in it, to its end.
    Kill,
    /// Remove it.
    Delete,
    /// Remove what is left of it.
    Gc,
}

impl Verb {
    /// The verb as users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Run => "run",
            Self::CreateContainer => "create-container",
            Self::DeleteContainer => "delete-container",
            Self::Update => "update",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Delete => "delete",
            Self::Gc => "gc",
        }
    }

    /// Whether it removes something of the sandbox, or all of it.
    pub const fn removes(self) -> bool {
        matches!(self, Self::DeleteContainer | Self::Delete | Self::Gc)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl SandboxRecord {
    /// The record of a sandbox that has no VM yet.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when the host's boot id cannot be read.
    ///
    /// ```
    /// use vc_store::SandboxRecord;
    ///
    /// let record = SandboxRecord::new("web-1".parse()?)?;
    /// assert!(record.keeper.is_none() && record.containers.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(id: SandboxId) -> Result<Self> {
        Ok(Self {
            version: STATE_VERSION,
            generation: 0,
            id,
            created: UnixMillis::now(),
            boot_id: BootId::current().map_err(Error::Identity)?,
            state: SandboxState::Stopped,
            operation: None,
            keeper: None,
            vmm_process: None,
            vmm: None,
            processes: Vec::new(),
            containers: BTreeMap::new(),
            end_reason: None,
            assets: BTreeMap::new(),
            throwaway: false,
            keep: false,
            annotations: BTreeMap::new(),
            containers_made: 0,
            cgroup: None,
            network: None,
        })
    }

    /// The number of the next container, which is taken with it.
    pub fn next_container(&mut self) -> u64 {
        let number = self.containers_made;
        self.containers_made += 1;
        number
    }

    /// The sandbox.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// Grows with every operation that begins.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What is done with it, and by whom; changed through an operation only.
    pub fn operation(&self) -> Option<&Operation> {
        self.operation.as_ref()
    }

    /// What the hypervisor's driver keeps, as the type that it is.
    ///
    /// # Errors
    ///
    /// The error of serde when it is of another type.
    pub fn driver_state<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        self.vmm.as_ref().map(Document::read).transpose()
    }

    /// Keeps what the hypervisor's driver gave; nothing removes it.
    ///
    /// # Errors
    ///
    /// The error of serde when it cannot be written as JSON.
    pub fn set_driver_state<T: Serialize>(
        &mut self,
        state: Option<&T>,
    ) -> Result<(), serde_json::Error> {
        self.vmm = state.map(Document::of).transpose()?;
        Ok(())
    }
}

impl ContainerRecord {
    /// The record of a container that waits for its start.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            state: ContainerState::Ready,
            exit: None,
            start_refused: None,
            created: UnixMillis::now(),
            started: None,
            ended: None,
            stand_in: None,
            bundle: None,
            command,
            number: 0,
            creating: false,
            shared: Vec::new(),
            annotations: BTreeMap::new(),
            cgroup: None,
        }
    }
}
