use std::io;
use std::path::PathBuf;
use std::time::Duration;

use vc_types::{Hint, ProcessIdentity, SandboxId};

use crate::VmEnd;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a VM could not be launched, asked or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The VM that was asked for is more than the driver can make.
    #[error("the VM cannot have these {what}: {reason}")]
    Spec {
        /// Which part of it.
        what: &'static str,
        /// Which rule it breaks.
        reason: String,
    },
    /// The accelerator that was asked for cannot be used.
    #[error("accelerator {wanted} cannot be used: {reason}")]
    Accelerator {
        /// The one that was asked for.
        wanted: crate::Accelerator,
        /// Why not.
        reason: String,
    },
    /// A program or firmware of the VMM is not there.
    #[error("{what} is not there (looked for {})", list(tried))]
    Missing {
        /// What it is.
        what: &'static str,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program that does not say its version as QEMU does.
    #[error("{path} does not say its version: {reason}")]
    VersionUnknown {
        /// The program.
        path: PathBuf,
        /// What it did instead.
        reason: String,
    },
    /// Something of the host could not be opened or made.
    #[error("cannot {attempt} for sandbox {sandbox:?}", sandbox = sandbox.as_str())]
    Host {
        /// What was tried.
        attempt: &'static str,
        /// For whom.
        sandbox: SandboxId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The VMM's process could not be started.
    #[error("cannot start the VMM of sandbox {sandbox:?}", sandbox = sandbox.as_str())]
    Launch {
        /// Whose.
        sandbox: SandboxId,
        /// Why.
        #[source]
        source: vc_launch::Error,
    },
    /// The VMM ended before the VM ran.
    #[error("the VMM of sandbox {sandbox:?} did not come up: {end}", sandbox = sandbox.as_str())]
    EndedAtStart {
        /// Whose.
        sandbox: SandboxId,
        /// How it ended.
        end: VmEnd,
    },
    /// The VMM did not answer.
    #[error("the VMM did not answer {command:?} within {limit:?}")]
    NoAnswer {
        /// What was asked.
        command: &'static str,
        /// The limit that passed.
        limit: Duration,
    },
    /// The VMM refused a command.
    #[error("the VMM refused {command:?}: {reason}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// What it said.
        reason: String,
    },
    /// Every root port has a device.
    #[error("there is no place for {id:?}: all {ports} root ports of the VM are taken")]
    NoFreePort {
        /// The device.
        id: String,
        /// How many there are.
        ports: u8,
    },
    /// Another device of the VM has a name of this one.
    #[error("the VM cannot have {id:?}: it has a device with {name:?}")]
    DeviceKnown {
        /// The device.
        id: String,
        /// Its id, serial number or MAC.
        name: String,
    },
    /// A device that stays until the VM's end.
    #[error("{id:?} stays in the VM until its end: no VMM takes it out")]
    Stays {
        /// The device.
        id: String,
    },
    /// No such device was plugged in.
    #[error("no device {id:?} was plugged into the VM")]
    NoDevice {
        /// The id.
        id: String,
    },
    /// The guest did not let go of a device. It is known as leaving, and keeps its place.
    #[error("the guest did not let go of {id:?} within {limit:?}")]
    GuestKeeps {
        /// The device.
        id: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// The VMM's answer was not QMP, or larger than any answer is.
    #[error("the VMM broke its protocol at {command:?}: {reason}")]
    Protocol {
        /// What was asked.
        command: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// The connection to the VMM failed.
    #[error("the connection to the VMM failed at {command:?}")]
    Connection {
        /// What was asked.
        command: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The VMM lives although it was killed.
    #[error("the VMM (process {process}) did not end within {limit:?} of being killed")]
    Unkillable {
        /// The process.
        process: ProcessIdentity,
        /// The limit that passed.
        limit: Duration,
    },
    /// A template could not be made or loaded.
    #[error("the template cannot be used: {reason}")]
    Template {
        /// Why.
        reason: String,
    },
    /// A VM did not get its copy of a template's memory. It says nothing of the template.
    #[error("the template's memory cannot be copied: {reason}")]
    MemoryCopy {
        /// Why.
        reason: String,
    },
    /// A VM of another driver.
    #[error("a VM of driver {found} is not one of driver {wanted}")]
    OtherDriver {
        /// The driver that was asked.
        wanted: &'static str,
        /// The VM's driver.
        found: &'static str,
    },
    /// A failure that a test's script asked for.
    #[error("scripted failure: {reason}")]
    Scripted {
        /// The script's words.
        reason: String,
    },
    /// A process or a value of the ground floor.
    #[error(transparent)]
    Types(#[from] vc_types::Error),
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Accelerator { .. } => Some(
                "set accelerator = \"auto\" or \"tcg\"; `virtc check` says what this host has"
                    .into(),
            ),
            Self::Missing { package, .. } => Some(format!(
                "install it (Debian: `apt-get install {package}`) or set its path in the configuration"
            )),
            Self::VersionUnknown { .. } => {
                Some("set the path of qemu-system-x86_64 in the configuration".into())
            }
            Self::NoAnswer { .. } => Some(
                "the host may be overloaded: try again, or raise the limit in the configuration"
                    .into(),
            ),
            Self::NoFreePort { .. } => {
                Some("unplug a device, or give the VM more root ports when it is made".into())
            }
            Self::GuestKeeps { .. } => Some(
                "unplug it again once the guest does not use it; stopping the VM needs no guest"
                    .into(),
            ),
            Self::Launch { source, .. } => source.hint(),
            Self::Unkillable { .. } => {
                Some("the kernel holds it, often for a disk that does not answer".into())
            }
            _ => None,
        }
    }
}
