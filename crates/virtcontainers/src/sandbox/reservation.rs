//! A sandbox's place on disk while it comes up. Dropping it removes the place.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use vc_hypervisor::log::last_lines;
use vc_store::{
    DeviceProcess, FailureRecord, OperationGuard, SandboxDir, SandboxRecord, UnixMillis, Verb,
};
use vc_types::limits::CONSOLE_QUOTED_LINES;
use vc_types::{ProcessIdentity, SandboxId, SandboxState, Timeline};

use super::machine::Machine;
use super::{CONSOLE_LOG, VMM_LOG};
use crate::error::{Error, Result, Stage};
use crate::runtime::{Shared, blocking};

/// The operation that makes a sandbox, and its directory.
pub(crate) struct Reservation {
    runtime: Arc<Shared>,
    directory: SandboxDir,
    guard: Option<OperationGuard>,
    committed: bool,
}

impl Reservation {
    /// Takes the id: from here on, nobody else gets it.
    pub(crate) async fn make(
        runtime: &Arc<Shared>,
        mut record: SandboxRecord,
        verb: Verb,
    ) -> Result<Self> {
        record.keeper = Some(ProcessIdentity::current()?);
        let shared = Arc::clone(runtime);
        let guard = blocking(move || Ok(shared.store.create(record, verb)?)).await?;
        Ok(Self {
            runtime: Arc::clone(runtime),
            directory: guard.sandbox().clone(),
            guard: Some(guard),
            committed: false,
        })
    }

    pub(crate) fn id(&self) -> &SandboxId {
        self.directory.id()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Notes the machine's processes, so that whoever comes after a kill can end them.
    pub(crate) async fn describe_machine(&mut self, machine: &Machine) -> Result<()> {
        let Some(guard) = self.guard.take() else {
            return Ok(());
        };
        let vmm = machine.vm().processes().into_iter().next();
        let state = machine.vm().state();
        let devices: Vec<DeviceProcess> = machine
            .devices()
            .iter()
            .map(|(name, identity)| DeviceProcess {
                name: (*name).to_owned(),
                identity: identity.clone(),
            })
            .collect();
        let (guard, stored) = blocking(move || {
            let stored = guard.update(|record| {
                record.vmm_process = vmm;
                record.processes = devices;
                record.set_driver_state(Some(&state))
            });
            Ok((guard, stored))
        })
        .await?;
        self.guard = Some(guard);
        stored?.map_err(|source| Error::System {
            attempt: format!("store the machine of sandbox {}", self.id()),
            source: source.into(),
        })
    }

    /// The sandbox is there: its directory stays.
    pub(crate) async fn commit(mut self) -> Result<SandboxDir> {
        if let Some(guard) = self.guard.take() {
            let committed =
                blocking(move || Ok(guard.commit(|record| record.state = SandboxState::Ready)?));
            committed.await?;
        }
        self.committed = true;
        Ok(self.directory.clone())
    }

    /// The last lines of one of the sandbox's logs.
    pub(crate) fn last_lines(&self, log: &str) -> Vec<String> {
        let read = File::open(self.path().join(log))
            .and_then(|file| last_lines(&file, CONSOLE_QUOTED_LINES));
        // A log that was not begun has no lines.
        read.unwrap_or_default()
    }

    /// Keeps everything that is known of a start that failed, where the configuration says.
    pub(crate) fn keep_failure(
        &self,
        runtime: &Shared,
        stage: Stage,
        error: &Error,
        timeline: &Timeline,
    ) -> Option<std::path::PathBuf> {
        let read = |name: &str| std::fs::read(self.path().join(name)).unwrap_or_default();
        let mut message = format!("{stage} failed\n");
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            message.push_str(&format!("{error}\n"));
            cause = error.source();
        }
        let record = FailureRecord {
            id: self.id().clone(),
            at: UnixMillis::now(),
            message,
            timeline: timeline.clone(),
            console: read(CONSOLE_LOG),
            logs: super::PROCESS_LOGS
                .iter()
                .map(|name| (name.trim_end_matches(".log").to_owned(), read(name)))
                .chain([("vmm".to_owned(), read(VMM_LOG))])
                .collect(),
        };
        match runtime.failures.write(&record) {
            Ok(path) => Some(path),
            Err(error) => {
                tracing::warn!(sandbox = %self.id(), %error, "the record of the failure is lost");
                None
            }
        }
    }

    fn remove(&self) {
        if let Err(error) = self.runtime.store.remove(self.id()) {
            tracing::warn!(sandbox = %self.id(), %error, "its directory stays; virtc gc removes it");
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.committed {
            // The guard goes after it: until the directory is gone, the operation says what
            // happens.
            self.remove();
        }
    }
}
