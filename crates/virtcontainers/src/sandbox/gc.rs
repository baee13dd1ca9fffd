//! Removing what sandboxes have left whose keeper is gone.

use serde::Serialize;
use vc_store::{Stale, StaleReason};
use vc_types::SandboxId;

use super::delete::end;
use super::waiting;
use crate::error::{Error, Result};
use crate::runtime::Shared;

/// What `gc` found.
#[derive(Debug, Default, Serialize)]
pub struct GcReport {
    /// What was removed, or would be.
    pub removed: Vec<Removed>,
    /// What could not be removed, and why.
    pub left: Vec<String>,
}

/// Something that `gc` removed.
#[derive(Debug, Serialize)]
pub struct Removed {
    /// The sandbox, or the name of what is left of one.
    pub name: String,
    /// Why nobody looks after it any more.
    pub reason: String,
}

/// Removes what nobody looks after; only names it when `dry_run`.
pub(crate) fn gc(runtime: &Shared, dry_run: bool) -> Result<GcReport> {
    let mut report = gc_of_root(runtime, dry_run)?;
    waiting::gc(runtime, dry_run, &mut report)?;
    Ok(report)
}

/// The same for one state root, without the machines that wait for its sandboxes.
pub(super) fn gc_of_root(runtime: &Shared, dry_run: bool) -> Result<GcReport> {
    let mut report = GcReport::default();
    for stale in runtime.store.stale()? {
        let name = name(&stale);
        let removed = if dry_run {
            Ok(Some(reason(&stale)))
        } else {
            remove(runtime, &stale, &mut report.left)
        };
        match removed {
            Ok(Some(reason)) => report.removed.push(Removed { name, reason }),
            Ok(None) => {}
            Err(error) => report.left.push(format!("{name}: {error}")),
        }
    }
    Ok(report)
}

/// Removes it and says why, unless it is somebody else's by now: that was found without a lock.
fn remove(runtime: &Shared, stale: &Stale, left: &mut Vec<String>) -> Result<Option<String>> {
    use vc_store::Error::{Busy, NotFound, TakenOver};
    let removed = match stale {
        Stale::Sandbox { record, .. } => remove_sandbox(runtime, record.id(), left),
        Stale::Leftover { name } => {
            let removed = runtime.store.remove_leftover(name);
            removed.map(|()| Some(reason(stale))).map_err(Error::from)
        }
    };
    match removed {
        Err(Error::Store(Busy { .. } | NotFound { .. } | TakenOver { .. })) => Ok(None),
        removed => removed,
    }
}

fn remove_sandbox(
    runtime: &Shared,
    id: &SandboxId,
    left: &mut Vec<String>,
) -> Result<Option<String>> {
    let Some((operation, reason)) = runtime.store.get(id)?.begin_gc()? else {
        return Ok(None);
    };
    let living = end(runtime, operation)?;
    match living.is_empty() {
        true => Ok(Some(reason_text(&reason))),
        false => {
            left.extend(living.into_iter().map(|process| format!("{id}: {process}")));
            Ok(None)
        }
    }
}

fn name(stale: &Stale) -> String {
    match stale {
        Stale::Leftover { name } => name.clone(),
        Stale::Sandbox { record, .. } => record.id().to_string(),
    }
}

fn reason(stale: &Stale) -> String {
    match stale {
        Stale::Leftover { .. } => "an interrupted creation or removal".to_owned(),
        Stale::Sandbox { reason, .. } => reason_text(reason),
    }
}

fn reason_text(reason: &StaleReason) -> String {
    match reason {
        StaleReason::Rebooted => "the host was booted again".to_owned(),
        StaleReason::KeeperEnded => "its keeper ended".to_owned(),
        StaleReason::Ended => "it has ended".to_owned(),
        StaleReason::Interrupted { verb, step } => {
            format!("its {verb} was interrupted in the step {step}")
        }
    }
}

#[cfg(test)]
mod tests {
    use vc_config::Config;
    use vc_store::{FailureRecords, SandboxRecord, Store, StoreLimits, Verb};
    use vc_types::ProcessIdentity;

    use super::*;

    fn create(runtime: &Shared, keeper: ProcessIdentity) {
        let mut record = SandboxRecord::new("ci".parse().unwrap()).unwrap();
        record.keeper = Some(keeper);
        let creation = runtime.store.create(record, Verb::Run).unwrap();
        creation.commit(|_| ()).unwrap();
    }

    #[test]
    fn a_sandbox_that_took_the_name_of_a_stale_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let runtime = Shared {
            config: Config::default(),
            program: "/nonexistent".into(),
            driver: crate::driver::Driver::default(),
            factory: std::sync::Arc::new(crate::factory::Direct),
            store: Store::open(root.path().join("state"), StoreLimits::default()),
            failures: FailureRecords::new(root.path().join("failures"), 1),
            host_network: None,
        };
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let ended = ProcessIdentity::of(child.id().try_into().unwrap()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        create(&runtime, ended.clone());

        let found = runtime.store.stale().unwrap();
        // Somebody else is faster: it removes the stale one, and makes its own.
        runtime.store.remove(&"ci".parse().unwrap()).unwrap();
        let mut left = Vec::new();
        assert_eq!(remove(&runtime, &found[0], &mut left).unwrap(), None);
        create(&runtime, ProcessIdentity::current().unwrap());
        assert_eq!(remove(&runtime, &found[0], &mut left).unwrap(), None);
        assert_eq!(runtime.store.list().unwrap().len(), 1);
        assert!(left.is_empty());

        runtime.store.remove(&"ci".parse().unwrap()).unwrap();
        create(&runtime, ended);
        assert_eq!(gc(&runtime, true).unwrap().removed.len(), 1);
        let report = gc(&runtime, false).unwrap();
        assert_eq!(report.removed[0].reason, "its keeper ended");
        assert!(runtime.store.list().unwrap().is_empty());
    }
}
