use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};

use oci_spec::runtime::{LinuxResources, Spec};
use tokio::sync::{Notify, watch};
use ttrpc::Code;
use vc_types::{ExitStatus, Signal};

use super::super::calls::{Call, refusal};
use super::super::script::{GuestScript, lock};
use super::now_us;
use super::process::{Phase, Process};

/// What is in a played guest.
#[derive(Debug)]
pub(in super::super) struct Guest {
    script: GuestScript,
    containers: Mutex<BTreeMap<String, Container>>,
    /// A process more, or one less.
    changed: watch::Sender<()>,
    gone: watch::Sender<bool>,
    /// Containers that ran out of memory, until somebody asks.
    out_of_memory: Mutex<Vec<String>>,
    is_out_of_memory: Notify,
    /// What the host's clock showed when it began.
    epoch_us: u64,
}

#[derive(Debug)]
struct Container {
    spec: Spec,
    init: Arc<Process>,
    execs: BTreeMap<String, Arc<Process>>,
    paused: bool,
    /// Signals that came while it was paused.
    pending: Vec<(Arc<Process>, Signal)>,
    resources: Option<LinuxResources>,
}

impl Container {
    fn processes(&self) -> impl Iterator<Item = &Arc<Process>> {
        std::iter::once(&self.init).chain(self.execs.values())
    }

    /// A process that is frozen ends by KILL and gets everything else later.
    fn signal(&mut self, process: Arc<Process>, signal: Signal) {
        match self.paused && signal != Signal::KILL {
            true => self.pending.push((process, signal)),
            false => process.signal(signal),
        }
    }
}

impl Guest {
    pub(super) fn new(script: GuestScript) -> Self {
        Self {
            script,
            containers: Mutex::default(),
            changed: watch::Sender::new(()),
            gone: watch::Sender::new(false),
            out_of_memory: Mutex::default(),
            is_out_of_memory: Notify::new(),
            epoch_us: now_us(),
        }
    }

    pub(super) fn script(&self) -> &GuestScript {
        &self.script
    }

    pub(super) fn uptime_us(&self) -> u64 {
        // 0 would be no time at all.
        now_us().saturating_sub(self.epoch_us).max(1)
    }

    /// Its machine has ended.
    pub(super) fn gone(&self) {
        self.gone.send_replace(true);
    }

    /// Does `work` as the script says about `call`, for as long as the machine runs.
    pub(super) async fn answer<T>(
        &self,
        call: Call,
        work: impl AsyncFnOnce() -> ttrpc::Result<T>,
    ) -> ttrpc::Result<T> {
        let answered = async {
            let passed = self.script.calls().pass(call).await;
            passed.map_err(|reason| refusal(Code::INTERNAL, reason))?;
            work().await
        };
        let mut gone = self.gone.subscribe();
        tokio::select! {
            answer = answered => answer,
            _ = gone.wait_for(|gone| *gone) => Err(refusal(Code::UNAVAILABLE, "it is gone")),
        }
    }

    pub(super) fn create(&self, id: String, spec: Spec) -> ttrpc::Result<()> {
        let process = spec.process().clone().unwrap_or_default();
        let init = self.process(id.clone(), &process);
        match lock(&self.containers).entry(id) {
            Entry::Occupied(taken) => {
                let message = format!("container {:?} exists", taken.key());
                return Err(refusal(Code::ALREADY_EXISTS, message));
            }
            Entry::Vacant(place) => {
                _ = place.insert(Container {
                    spec,
                    init: Arc::new(init),
                    execs: BTreeMap::new(),
                    paused: false,
                    pending: Vec::new(),
                    resources: None,
                })
            }
        }
        self.changed.send_replace(());
        Ok(())
    }

    fn process(&self, id: String, process: &oci_spec::runtime::Process) -> Process {
        let args = process.args().clone().unwrap_or_default();
        let program = self.script.programs().find(&args);
        Process::new(id, args, process.terminal() == Some(true), program)
    }

    pub(super) fn exec(
        &self,
        id: &str,
        exec: String,
        process: &oci_spec::runtime::Process,
    ) -> ttrpc::Result<()> {
        let added = Arc::new(self.process(exec.clone(), process));
        self.with(id, |container| {
            if container.init.phase() != Phase::Running || container.paused {
                return Err(not_running(id));
            }
            container.init.depends(&added);
            container.execs.insert(exec, Arc::clone(&added));
            added.start()
        })?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Kills what runs of a container, and removes it.
    pub(super) fn remove(&self, id: &str) -> ttrpc::Result<()> {
        let removed = lock(&self.containers).remove(id);
        let container = removed.ok_or_else(|| no_container(id))?;
        for process in container.processes() {
            process.signal(Signal::KILL);
        }
        Ok(())
    }

    pub(super) fn set_paused(&self, id: &str, paused: bool) -> ttrpc::Result<()> {
        self.with(id, |container| {
            if container.init.phase() != Phase::Running {
                return Err(not_running(id));
            }
            container.paused = paused;
            if !paused {
                for (process, signal) in std::mem::take(&mut container.pending) {
                    process.signal(signal);
                }
            }
            Ok(())
        })
    }

    /// Without a process, all of the container get the signal.
    pub(super) fn signal(&self, id: &str, exec: &str, signal: Signal) -> ttrpc::Result<()> {
        if exec.is_empty() {
            return self.with(id, |container| {
                let processes: Vec<_> = container.processes().cloned().collect();
                for process in processes {
                    container.signal(process, signal);
                }
                Ok(())
            });
        }
        let process = self.find(id, exec)?;
        if process.has_ended() {
            return Err(refusal(Code::FAILED_PRECONDITION, "the process has ended"));
        }
        self.with(id, |container| {
            container.signal(process, signal);
            Ok(())
        })
    }

    pub(super) fn update(&self, id: &str, resources: LinuxResources) -> ttrpc::Result<()> {
        self.with(id, |container| {
            container.resources = Some(resources);
            Ok(())
        })
    }

    /// A process; nothing, or the container's id, is the first one.
    pub(super) fn find(&self, id: &str, exec: &str) -> ttrpc::Result<Arc<Process>> {
        self.with(id, |container| {
            let found = match exec.is_empty() || exec == id {
                true => Some(&container.init),
                false => container.execs.get(exec),
            };
            found
                .cloned()
                .ok_or_else(|| refusal(Code::NOT_FOUND, format!("no process {exec:?}")))
        })
    }

    /// A process that may be made only now. Whoever waits gives up by itself.
    pub(super) async fn wait_for(&self, id: &str, exec: &str) -> Arc<Process> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Ok(process) = self.find(id, exec) {
                return process;
            }
            // The sender lives in `self`.
            let _ = changed.changed().await;
        }
    }

    /// The processes of a container that live.
    pub(super) fn living(&self, id: &str) -> ttrpc::Result<Vec<Arc<Process>>> {
        self.with(id, |container| {
            let living = container.processes().filter(|one| !one.has_ended());
            Ok(living.cloned().collect())
        })
    }

    pub(super) async fn next_out_of_memory(&self) -> String {
        loop {
            if let Some(container) = lock(&self.out_of_memory).pop() {
                return container;
            }
            self.is_out_of_memory.notified().await;
        }
    }

    pub(in super::super) fn end(&self, id: &str, exit: ExitStatus) -> bool {
        let process = self.find(id, "").ok().filter(|one| !one.has_ended());
        process.is_some_and(|process| {
            process.end(exit);
            true
        })
    }

    pub(in super::super) fn out_of_memory(&self, id: &str) {
        lock(&self.out_of_memory).push(id.to_owned());
        self.is_out_of_memory.notify_one();
    }

    pub(in super::super) fn spec(&self, id: &str) -> Option<Spec> {
        self.with(id, |container| Ok(container.spec.clone())).ok()
    }

    pub(in super::super) fn resources(&self, id: &str) -> Option<LinuxResources> {
        self.with(id, |container| Ok(container.resources.clone()))
            .ok()?
    }

    pub(in super::super) fn containers(&self) -> Vec<String> {
        lock(&self.containers).keys().cloned().collect()
    }

    fn with<T>(
        &self,
        id: &str,
        act: impl FnOnce(&mut Container) -> ttrpc::Result<T>,
    ) -> ttrpc::Result<T> {
        match lock(&self.containers).get_mut(id) {
            Some(container) => act(container),
            None => Err(no_container(id)),
        }
    }
}

fn no_container(id: &str) -> ttrpc::Error {
    refusal(Code::NOT_FOUND, format!("no container {id:?}"))
}

fn not_running(id: &str) -> ttrpc::Error {
    let message = format!("container {id:?} does not run");
    refusal(Code::FAILED_PRECONDITION, message)
}
