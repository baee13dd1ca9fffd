//! Removing what sandboxes have left whose keeper is gone.

use serde::Serialize;
use vc_store::{Stale, StaleReason};

use super::delete::end_processes;
use crate::error::Result;
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
    let mut report = GcReport::default();
    for stale in runtime.store.stale()? {
        let (name, reason) = describe(&stale);
        let done = if dry_run {
            Ok(())
        } else {
            remove(runtime, &stale, &mut report.left)
        };
        match done {
            Ok(()) => report.removed.push(Removed { name, reason }),
            Err(error) => report.left.push(format!("{name}: {error}")),
        }
    }
    Ok(report)
}

fn remove(runtime: &Shared, stale: &Stale, left: &mut Vec<String>) -> Result<()> {
    match stale {
        Stale::Sandbox { record, .. } => {
            left.extend(end_processes(record));
            runtime.store.remove(record.id())?;
        }
        Stale::Leftover { name } => runtime.store.remove_leftover(name)?,
    }
    Ok(())
}

fn describe(stale: &Stale) -> (String, String) {
    match stale {
        Stale::Leftover { name } => (name.clone(), "an interrupted creation or removal".into()),
        Stale::Sandbox { record, reason } => {
            let reason = match reason {
                StaleReason::Rebooted => "the host was booted again".to_owned(),
                StaleReason::KeeperEnded => "its keeper ended".to_owned(),
                StaleReason::Ended => "it has ended".to_owned(),
                StaleReason::Interrupted { verb, step } => {
                    format!("its {verb} was interrupted in the step {step}")
                }
            };
            (record.id().to_string(), reason)
        }
    }
}
