//! What is kept of a sandbox that failed, before its directory goes.

use std::fs::File;
use std::io;

use vc_hypervisor::log::{last_lines, telling_lines};
use vc_store::{FailureRecord, SandboxDir, UnixMillis};
use vc_types::Timeline;
use vc_types::limits::CONSOLE_QUOTED_LINES;

use super::{CONSOLE_LOG, PROCESS_LOGS, VMM_LOG};
use crate::error::{Error, FailureReport};
use crate::runtime::Shared;

/// Keeps everything that is known where the configuration says, and gives the last lines of it.
pub(crate) fn keep(
    runtime: &Shared,
    directory: &SandboxDir,
    what: &str,
    error: &Error,
    timeline: &Timeline,
) -> FailureReport {
    let path = directory.path();
    let read = |name: &str| std::fs::read(path.join(name)).unwrap_or_default();
    let mut message = format!("{what}\n");
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        message.push_str(&format!("{error}\n"));
        cause = error.source();
    }
    let log = |name: &&str| (name.trim_end_matches(".log").to_owned(), read(name));
    let record = FailureRecord {
        id: directory.id().clone(),
        at: UnixMillis::now(),
        message,
        timeline: timeline.clone(),
        console: read(CONSOLE_LOG),
        logs: PROCESS_LOGS.iter().chain([&VMM_LOG]).map(log).collect(),
    };
    let kept = match runtime.failures.write(&record) {
        Ok(kept) => Some(kept),
        Err(error) => {
            tracing::warn!(sandbox = %directory.id(), %error, "the record of the failure is lost");
            None
        }
    };
    // A log that was not begun has no lines.
    let lines = |log: &str, which: fn(&File, usize) -> io::Result<Vec<String>>| {
        File::open(path.join(log))
            .and_then(|file| which(&file, CONSOLE_QUOTED_LINES))
            .unwrap_or_default()
    };
    FailureReport {
        console: lines(CONSOLE_LOG, telling_lines),
        vmm: lines(VMM_LOG, last_lines),
        kept,
    }
}
