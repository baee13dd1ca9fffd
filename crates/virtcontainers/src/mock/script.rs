use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use oci_spec::runtime::{LinuxResources, Spec};
use vc_hypervisor::mock::{MockHypervisor, Script as MachineScript};
use vc_types::{ContainerId, ExitStatus, SandboxId};

use super::agent::Guest;
use super::calls::{Call, Calls};
use super::program::Program;
use super::surroundings::Played;
use crate::driver::Driver;

/// What the guests of one runtime do. Clones are the same script.
#[derive(Clone, Debug, Default)]
pub struct Script(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    programs: Programs,
    guests: Mutex<BTreeMap<SandboxId, GuestScript>>,
}

/// What programs do, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Programs(Arc<Mutex<HashMap<String, Program>>>);

impl Programs {
    pub(super) fn find(&self, args: &[String]) -> Program {
        let programs = lock(&self.0);
        let found = args.first().and_then(|name| programs.get(name));
        found.cloned().unwrap_or_default()
    }
}

impl Script {
    /// From now on, processes whose first argument is `name` do this.
    pub fn program(&self, name: impl Into<String>, program: Program) {
        lock(&self.0.programs.0).insert(name.into(), program);
    }

    /// The script of one sandbox's guest, whether it is there or will be.
    pub fn guest(&self, sandbox: &SandboxId) -> GuestScript {
        let mut guests = lock(&self.0.guests);
        guests
            .entry(sandbox.clone())
            .or_insert_with(|| GuestScript::new(self.0.programs.clone()))
            .clone()
    }

    /// The driver whose guests follow this script.
    pub fn driver(&self) -> Driver {
        Driver::with(Played(self.clone()))
    }
}

/// What the guest of one sandbox does. Clones are the same script.
#[derive(Clone)]
pub struct GuestScript(Arc<GuestInner>);

struct GuestInner {
    hypervisor: MockHypervisor,
    machine: MachineScript,
    calls: Calls,
    programs: Programs,
    guest: Mutex<Weak<Guest>>,
}

impl GuestScript {
    fn new(programs: Programs) -> Self {
        let (hypervisor, machine) = MockHypervisor::new();
        Self(Arc::new(GuestInner {
            hypervisor,
            machine,
            calls: Calls::default(),
            programs,
            guest: Mutex::default(),
        }))
    }

    /// The machine: its end, and the steps of its driver that fail or hang.
    pub fn machine(&self) -> &MachineScript {
        &self.0.machine
    }

    /// The next time that it is asked for `call`, it fails with `reason`.
    pub fn fail(&self, call: Call, reason: impl Into<String>) {
        self.0.calls.fail(call, reason.into());
    }

    /// From now on, `call` has no answer.
    pub fn hang(&self, call: Call) {
        self.0.calls.hang(call, true);
    }

    /// One of those that wait in `call`, or the next one, goes on.
    pub fn let_pass(&self, call: Call) {
        self.0.calls.let_pass(call);
    }

    /// `call` goes on.
    pub fn release(&self, call: Call) {
        self.0.calls.hang(call, false);
    }

    /// Waits until somebody is in `call`; without a limit, and only where it hangs for sure.
    pub async fn reached(&self, call: Call) {
        self.0.calls.reached(call).await;
    }

    /// Waits until it was asked for `call` so often, since the script began; without a limit.
    pub async fn asked(&self, call: Call, times: usize) {
        self.0.calls.asked(call, times).await;
    }

    /// How many are in `call` now.
    pub fn waiting(&self, call: Call) -> usize {
        self.0.calls.waiting(call)
    }

    /// How often it was asked for `call`.
    pub fn called(&self, call: Call) -> usize {
        self.0.calls.called(call)
    }

    /// Ends the first process of a container, as if by itself. Says whether there was one.
    pub fn end(&self, container: &ContainerId, exit: ExitStatus) -> bool {
        self.with_guest(|guest| guest.end(container.as_str(), exit))
            .unwrap_or(false)
    }

    /// Reports that a container ran out of memory.
    pub fn out_of_memory(&self, container: &ContainerId) {
        self.with_guest(|guest| guest.out_of_memory(container.as_str()));
    }

    /// The specification of a container as the guest got it.
    pub fn spec(&self, container: &ContainerId) -> Option<Spec> {
        self.with_guest(|guest| guest.spec(container.as_str()))?
    }

    /// The resources that a container was given last by an update.
    pub fn resources(&self, container: &ContainerId) -> Option<LinuxResources> {
        self.with_guest(|guest| guest.resources(container.as_str()))?
    }

    /// The containers in the guest; none where there is no guest.
    pub fn containers(&self) -> Vec<String> {
        self.with_guest(Guest::containers).unwrap_or_default()
    }

    pub(super) fn hypervisor(&self) -> &MockHypervisor {
        &self.0.hypervisor
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.0.calls
    }

    pub(super) fn programs(&self) -> &Programs {
        &self.0.programs
    }

    /// There is a new guest.
    pub(super) fn has(&self, guest: &Arc<Guest>) {
        *lock(&self.0.guest) = Arc::downgrade(guest);
    }

    fn with_guest<T>(&self, look: impl FnOnce(&Guest) -> T) -> Option<T> {
        let guest = lock(&self.0.guest).upgrade()?;
        Some(look(&guest))
    }
}

impl fmt::Debug for GuestScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestScript")
            .field("calls", &self.0.calls)
            .finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed with the lock held has failed already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
