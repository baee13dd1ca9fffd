//! Watches one process from its `execve` to its end.

use std::sync::Arc;

use super::{Ended, Pipe, Process, Start, read_pipe};
use crate::cgroup::Cgroup;
use crate::clock::uptime_us;
use crate::launch::{FailedAt, StartFailure};

/// Bytes of a start's failure.
const FAILURE_BYTES_MAX: usize = 4096;

/// What a process is to its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The container ends with it: what it left running is killed, as in a pid namespace of its
    /// own.
    First,
    /// The container goes on without it.
    Added,
}

/// Notes the start and the end of `process`. `start` is the pipe that closes with the `execve`;
/// `started_uptime_us` is when it returned, if that is known better than by the pipe.
pub(crate) async fn follow(
    process: Arc<Process>,
    start: Pipe,
    started_uptime_us: Option<u64>,
    cgroup: Arc<Cgroup>,
    role: Role,
) {
    let oom_kills_before = cgroup.oom_kills();
    let message = read_to_end(&start).await;
    drop(start);
    let outcome = match StartFailure::parse(&message) {
        Some(StartFailure { at, text }) => match at {
            FailedAt::Hook => Start::Refused { text },
            FailedAt::Program { .. } => Start::Failed { text },
        },
        None if !process.start_requested() => Start::Never,
        None => Start::Running {
            uptime_us: started_uptime_us.unwrap_or_else(uptime_us),
        },
    };
    process.start.send_replace(outcome.clone());

    let mut exit = process.exit.clone();
    // Without a sender the reaper is gone, and the agent with it.
    let Ok(exit) = exit.wait_for(Option::is_some).await.map(|exit| *exit) else {
        return;
    };
    let Some(exit) = exit else { return };
    let oom_killed = exit.signal != 0 && cgroup.oom_kills() > oom_kills_before;
    if role == Role::First
        && let Err(error) = cgroup.kill().await
    {
        tracing::warn!("{}", error.chain());
    }
    let start_refused = matches!(outcome, Start::Refused { .. });
    let (started_uptime_us, start_error) = outcome.told();
    process.ended.send_replace(Some(Ended {
        code: exit.code,
        signal: exit.signal,
        oom_killed,
        started_uptime_us,
        ended_uptime_us: exit.uptime_us,
        start_error,
        start_refused,
    }));
}

async fn read_to_end(start: &Pipe) -> Vec<u8> {
    let mut message = Vec::new();
    let mut buffer = [0; 512];
    while message.len() < FAILURE_BYTES_MAX {
        match read_pipe(start, &mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(bytes) => message.extend_from_slice(&buffer[..bytes]),
        }
    }
    message
}
