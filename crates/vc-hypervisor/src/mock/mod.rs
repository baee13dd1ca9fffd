//! A driver without a machine, for the tests of those who use this library.
//!
//! A mock VM has no process. Its end, and failures at each step, come from a [`Script`]. Its
//! agent's address is the one of the [`VmSpec`], so that a test can listen there and play the
//! agent.

mod script;
mod vm;

pub use script::{Script, Step};

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use vc_types::{ByteSize, SandboxId};

use crate::{
    Accelerator, AgentAddress, Capabilities, DriverState, Error, HotPlugRecord, Hypervisor, Result,
    Vm, VmSpec, Vsock,
};
use vm::MockVm;

/// What the mock can do: as much as the QEMU driver, and its VMs need no device process.
pub const CAPABILITIES: Capabilities = Capabilities {
    own_vsock: true,
    ..crate::qemu::CAPABILITIES
};

/// The mock driver.
///
/// ```
/// use vc_hypervisor::mock::{self, MockHypervisor, Step};
/// use vc_hypervisor::{Hypervisor, StopLimits, Vm, VmEnd};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (hypervisor, script) = MockHypervisor::new();
/// script.fail(Step::Pause, "not today");
/// let vm = hypervisor.launch(mock::spec("web1")?).await?;
/// assert!(vm.pause().await.is_err());
/// assert!(vm.pause().await.is_ok());
/// assert_eq!(vm.stop(StopLimits::AT_ONCE).await?, VmEnd::Stopped { killed: true });
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MockHypervisor {
    script: Script,
}

/// What is stored of a mock VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MockState {
    /// Where a test plays the agent.
    pub agent: AgentAddress,
    /// Its root ports and what is behind them.
    #[serde(default)]
    pub hot_plug: HotPlugRecord,
}

impl MockHypervisor {
    /// A mock, and the script that its VMs follow.
    pub fn new() -> (Self, Script) {
        let script = Script::default();
        let mock = Self {
            script: script.clone(),
        };
        (mock, script)
    }
}

#[async_trait]
impl Hypervisor for MockHypervisor {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn launch(&self, spec: VmSpec) -> Result<Box<dyn Vm>> {
        spec.check(&CAPABILITIES)?;
        self.script.follow(Step::Launch).await?;
        let machine = self.script.begin(spec.vsock.agent_address());
        let hot_plug = HotPlugRecord::of(&spec);
        Ok(Box::new(MockVm::new(
            machine,
            self.script.clone(),
            hot_plug,
            true,
        )))
    }

    async fn attach(&self, state: &DriverState) -> Result<Box<dyn Vm>> {
        match state {
            DriverState::Mock(state) => Ok(Box::new(MockVm::new(
                self.script.machine_at(&state.agent),
                self.script.clone(),
                state.hot_plug.clone(),
                false,
            ))),
            other => Err(Error::OtherDriver {
                wanted: "mock",
                found: other.driver(),
            }),
        }
    }
}

/// A small VM's spec whose descriptors are all `/dev/null` and whose agent is nowhere.
///
/// # Errors
///
/// [`Error::Types`] for an id that is none, [`Error::Host`] when `/dev/null` cannot be opened.
pub fn spec(sandbox: &str) -> Result<VmSpec> {
    let sandbox = SandboxId::new(sandbox)?;
    let open = || {
        null().map_err(|source| Error::Host {
            attempt: "open /dev/null",
            sandbox: sandbox.clone(),
            source,
        })
    };
    Ok(VmSpec {
        directory: PathBuf::from("/nonexistent"),
        vcpus: 1,
        memory: ByteSize::from_mib(512),
        largest: None,
        accelerator: Accelerator::Tcg,
        kernel: open()?,
        initrd: open()?,
        kernel_params: Vec::new(),
        shares: Vec::new(),
        vsock: Vsock::VhostUser {
            socket: open()?,
            host_socket: PathBuf::from("/nonexistent/vsock.sock"),
        },
        disks: Vec::new(),
        served_types: crate::ServedTypes::ByNumber,
        scratch_of_template: false,
        nics: Vec::new(),
        root_ports: 0,
        console_log: open()?.into(),
        vmm_log: open()?.into(),
        template: None,
        sandbox,
    })
}

/// `/dev/null`, open for reading and writing.
pub(crate) fn null() -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null")?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Disk, HotDevice, PlugPhase, StopLimits, VmEnd};

    #[tokio::test]
    async fn a_script_fails_each_step_once() {
        let (hypervisor, script) = MockHypervisor::new();
        script.fail(Step::Launch, "no memory");
        let error = hypervisor.launch(spec("a").unwrap()).await.err().unwrap();
        assert!(error.to_string().contains("no memory"), "{error}");

        let vm = hypervisor.launch(spec("a").unwrap()).await.unwrap();
        script.fail(Step::Pause, "p");
        script.fail(Step::Resume, "r");
        script.fail(Step::Stop, "s");
        assert!(vm.pause().await.is_err());
        assert!(vm.resume().await.is_err());
        assert!(vm.stop(StopLimits::default()).await.is_err());
        assert!(vm.pause().await.is_ok());
        assert!(vm.resume().await.is_ok());
        let end = vm.stop(StopLimits::default()).await.unwrap();
        assert_eq!(end, VmEnd::Stopped { killed: false });
        assert_eq!(vm.wait().await, end);
        assert!(vm.pause().await.is_err(), "a VM that ended cannot pause");
    }

    #[tokio::test]
    async fn a_script_makes_a_step_hang_until_it_lets_go() {
        let (hypervisor, script) = MockHypervisor::new();
        script.hang(Step::Launch);
        let launch = hypervisor.launch(spec("a").unwrap());
        let limit = Duration::from_millis(20);
        assert!(tokio::time::timeout(limit, launch).await.is_err());

        script.release(Step::Launch);
        let vm = hypervisor.launch(spec("a").unwrap()).await.unwrap();
        script.hang(Step::Wait);
        script.end(VmEnd::GuestPanicked);
        assert!(tokio::time::timeout(limit, vm.wait()).await.is_err());
        script.release(Step::Wait);
        assert_eq!(vm.wait().await, VmEnd::GuestPanicked);
    }

    #[tokio::test]
    async fn each_vm_has_an_end_of_its_own() {
        let (hypervisor, script) = MockHypervisor::new();
        let first = hypervisor.launch(spec("a").unwrap()).await.unwrap();
        let second = hypervisor.launch(spec("b").unwrap()).await.unwrap();
        first.stop(StopLimits::AT_ONCE).await.unwrap();
        assert!(second.pause().await.is_ok());
        script.end(VmEnd::GuestReset);
        assert_eq!(second.wait().await, VmEnd::GuestReset);
        assert_eq!(first.wait().await, VmEnd::Stopped { killed: true });
        let third = hypervisor.launch(spec("a").unwrap()).await.unwrap();
        assert!(third.pause().await.is_ok());
    }

    #[tokio::test]
    async fn a_stored_vm_is_found_again_and_belongs_to_its_keeper() {
        let (hypervisor, _script) = MockHypervisor::new();
        let vm = hypervisor.launch(spec("a").unwrap()).await.unwrap();
        let other = hypervisor.attach(&vm.state()).await.unwrap();
        assert_eq!(other.agent_address(), vm.agent_address());
        drop(other);
        assert!(vm.pause().await.is_ok());

        let other = hypervisor.attach(&vm.state()).await.unwrap();
        drop(vm);
        assert_eq!(other.wait().await, VmEnd::Stopped { killed: true });
    }

    #[tokio::test]
    async fn devices_come_and_go_by_the_account_of_the_host() {
        let disk = |serial: &str| {
            HotDevice::Disk(Disk {
                image: tempfile::tempfile().unwrap().into(),
                serial: serial.into(),
                read_only: false,
                scratch: false,
            })
        };
        let (hypervisor, script) = MockHypervisor::new();
        let mut asked = spec("a").unwrap();
        asked.root_ports = 1;
        let vm = hypervisor.launch(asked).await.unwrap();
        let stale = vm.state();
        script.fail(Step::Plug, "no");
        assert!(vm.plug(disk("data")).await.is_err());
        assert!(vm.plugged().is_empty());
        let plugged = vm.plug(disk("data")).await.unwrap();
        assert_eq!(vm.plugged(), [plugged]);
        let error = vm.plug(disk("more")).await.unwrap_err();
        assert!(matches!(error, Error::NoFreePort { ports: 1, .. }));

        // The machine refuses what an old account takes for free.
        let other = hypervisor.attach(&stale).await.unwrap();
        assert!(other.plug(disk("more")).await.is_err());
        let other = hypervisor.attach(&vm.state()).await.unwrap();
        script.fail(Step::Unplug, "the guest keeps it");
        assert!(other.unplug("data").await.is_err());
        assert_eq!(other.plugged()[0].phase, PlugPhase::Leaving);
        other.unplug("data").await.unwrap();
        assert!(other.plug(disk("more")).await.is_ok());
    }
}
