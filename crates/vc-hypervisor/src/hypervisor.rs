use std::time::Duration;

use async_trait::async_trait;
use vc_types::{AgentAddress, ByteSize, ProcessIdentity, VmSize};

use crate::{
    Capabilities, DriverState, Growth, HotDevice, Plugged, Result, TemplateFiles, VmEnd, VmSpec,
};

/// A driver: makes VMs of one kind of VMM.
///
/// ```
/// use vc_hypervisor::{Hypervisor, StopLimits, Vm, VmEnd, mock::{self, MockHypervisor}};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (hypervisor, script) = MockHypervisor::new();
/// let vm = hypervisor.launch(mock::spec("web1")?).await?;
/// script.end(VmEnd::GuestPanicked);
/// assert_eq!(vm.wait().await, VmEnd::GuestPanicked);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// What every VM of this driver can have.
    fn capabilities(&self) -> Capabilities;

    /// Starts a VM and returns when its VMM runs and answers; the guest is only beginning to boot
    /// then. A failure, or dropping the future, leaves no process and no file.
    ///
    /// The caller becomes the VM's keeper: the VM ends when the returned value is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`](crate::Error::Spec) when `spec` asks for more than [`Self::capabilities`]
    /// say, before anything is started; otherwise what kept the VMM from running.
    async fn launch(&self, spec: VmSpec) -> Result<Box<dyn Vm>>;

    /// What a template is made of from which `spec` could go on: two VMs with the same text can
    /// share one. `None` where the driver makes no templates.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be looked at.
    fn template_key(&self, _spec: &VmSpec) -> Result<Option<String>> {
        Ok(None)
    }

    /// Boots a VM from which those like `like` can go on, with nothing of that sandbox, until its
    /// guest waits, which it may take `boot_limit` for. Saves it into `files`, and ends it. The answer
    /// is for [`SavedVm::notes`](crate::SavedVm::notes). A failure, or dropping the future, leaves no
    /// process.
    ///
    /// # Errors
    ///
    /// [`Error::Template`](crate::Error::Template) when the guest does not come to wait or cannot
    /// be saved, and what kept the VMM from running.
    async fn make_template(
        &self,
        _like: &VmSpec,
        _files: TemplateFiles,
        _boot_limit: Duration,
    ) -> Result<String> {
        Err(crate::Error::Template {
            reason: "the driver makes none".into(),
        })
    }

    /// Takes hold of a VM that another process keeps. Dropping the value does nothing to the VM.
    ///
    /// # Errors
    ///
    /// [`Error::OtherDriver`](crate::Error::OtherDriver) when `state` is of another driver. A VM
    /// that has ended is no error: its [`Vm::wait`] answers at once.
    async fn attach(&self, state: &DriverState) -> Result<Box<dyn Vm>>;
}

/// A running VM.
///
/// Every method takes `&self`, so that one task may wait for the end while another stops it.
#[async_trait]
pub trait Vm: Send + Sync {
    /// The processes of the host that are this VM; none for a mock.
    fn processes(&self) -> Vec<ProcessIdentity>;

    /// Where the guest's agent is reached.
    fn agent_address(&self) -> &AgentAddress;

    /// What must be stored so that [`Hypervisor::attach`] finds this VM.
    fn state(&self) -> DriverState;

    /// Makes the virtual processors stand still. Pausing a paused VM changes nothing.
    ///
    /// # Errors
    ///
    /// When the VMM does not answer in time, refuses, or has ended.
    async fn pause(&self) -> Result<()>;

    /// Lets the virtual processors go on. Resuming a running VM changes nothing.
    ///
    /// # Errors
    ///
    /// When the VMM does not answer in time, refuses, or has ended.
    async fn resume(&self) -> Result<()>;

    /// Takes a place for a device that [`Vm::plug`] is to plug in, and changes nothing else. Whoever
    /// stores [`Vm::state`] in between can find the device when plugging it in is interrupted.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`](crate::Error::Spec) for what [`Hypervisor::capabilities`] do not have,
    /// [`Error::DeviceKnown`](crate::Error::DeviceKnown) and
    /// [`Error::NoFreePort`](crate::Error::NoFreePort).
    fn reserve(&self, device: &HotDevice) -> Result<Plugged>;

    /// Plugs a device in, at the place that [`Vm::reserve`] took for it or at one that is free. The
    /// guest may take a moment to find it.
    ///
    /// Which places are free is known from [`Vm::state`]. Where several processes hold a VM, each
    /// attaches to what the last one stored. A failure, or dropping the future, takes out what
    /// came so far; what the guest does not let go of is [`PlugPhase::Leaving`](crate::PlugPhase).
    ///
    /// # Errors
    ///
    /// Those of [`Vm::reserve`] before anything is changed, and what the VMM says.
    async fn plug(&self, device: HotDevice) -> Result<Plugged>;

    /// Takes a device out that was plugged in, or was about to be: asks the guest to let go of it,
    /// then removes what is behind it. May be done again.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`](crate::Error::NoDevice);
    /// [`Error::GuestKeeps`](crate::Error::GuestKeeps) when the guest does not let go of it, and
    /// what the VMM says: the device is [`PlugPhase::Leaving`](crate::PlugPhase) then.
    async fn unplug(&self, id: &str) -> Result<()>;

    /// The devices that were plugged in, by the account of the host.
    fn plugged(&self) -> Vec<Plugged>;

    /// What it began with, and what it can grow to. `None` for one that cannot: its driver says so,
    /// or the VM is older than the means.
    fn growth(&self) -> Option<Growth>;

    /// How large it is now.
    ///
    /// # Errors
    ///
    /// When the VMM does not answer in time, refuses, or has ended.
    async fn size(&self) -> Result<CurrentSize>;

    /// Makes it as large as `size`, within [`Vm::growth`], as far as the host's side goes: plugs in
    /// processors, which stay, and offers the guest memory or asks for some back. The guest has to
    /// put the former to use, and takes its time for the latter: [`Vm::size`] says how far it is.
    /// May be done again.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`](crate::Error::Spec) for what is not within its growth, and for memory
    /// without a [`HotDevice::Memory`]; what the VMM says.
    async fn resize(&self, size: VmSize) -> Result<()>;

    /// Ends the VM without the guest's help and waits until its processes are gone: first asks
    /// the VMM, then kills it. A VM that has ended stays as it is.
    ///
    /// # Errors
    ///
    /// Only when the VMM outlives being killed by [`StopLimits::kill`].
    async fn stop(&self, limits: StopLimits) -> Result<VmEnd>;

    /// Waits for the VM's end, without a limit of its own; every caller gets the same answer.
    async fn wait(&self) -> VmEnd;
}

/// How large a VM is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentSize {
    /// The processors that are plugged in, and the memory that the guest may have.
    pub offered: VmSize,
    /// The memory that it has: less than it may where it has not taken it yet, and more where it has
    /// not given it back.
    pub taken: ByteSize,
}

/// How long each phase of [`Vm::stop`] may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLimits {
    /// For the VMM to end when asked. Zero skips the asking.
    pub quit: Duration,
    /// For the kernel to end it when it is killed.
    pub kill: Duration,
}

impl StopLimits {
    /// Kills at once: the fastest end, right where nothing in the VM is worth keeping.
    pub const AT_ONCE: Self = Self {
        quit: Duration::ZERO,
        kill: Duration::from_secs(10),
    };
}

impl Default for StopLimits {
    /// 2 seconds to end when asked, 10 to be killed: a large VM's memory takes time to free.
    fn default() -> Self {
        Self {
            quit: Duration::from_secs(2),
            ..Self::AT_ONCE
        }
    }
}
