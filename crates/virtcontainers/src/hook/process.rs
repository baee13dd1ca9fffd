//! One hook as a process of the host.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use oci_spec::runtime::{Hook, State};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::failure::HookFailure;
use super::output::Output;

/// Characters of a wrong entry that its error repeats.
const QUOTED_CHARS_MAX: usize = 200;

/// Runs one hook to its end. Where it has no `timeout`, `limit` is it.
pub(super) async fn run(hook: &Hook, state: &State, limit: Duration) -> Result<(), HookFailure> {
    let own = own_timeout(hook)?;
    let state_text = serde_json::to_vec(state).map_err(HookFailure::State)?;
    let mut command = command(hook, state)?;
    let child = command.spawn().map_err(HookFailure::Start)?;
    let mut group = Group(child);
    let mut out = Output::new(group.0.stdout.take());
    let mut err = Output::new(group.0.stderr.take());
    let stdin = group.0.stdin.take();
    let ended = timeout(own.unwrap_or(limit), async {
        // Biased: once it has ended nothing else matters.
        tokio::select! {
            biased;
            status = group.0.wait() => status,
            never = give(stdin, &state_text) => match never {},
            never = out.follow() => match never {},
            never = err.follow() => match never {},
        }
    })
    .await;
    if ended.is_err() {
        group.kill();
        // It is on its way to its end, for which nobody needs to wait: the executor reaps it.
    }
    out.finish();
    err.finish();
    let output = || err.last_line().or_else(|| out.last_line());
    let output = || output().unwrap_or_default();
    match ended {
        Err(_) => Err(HookFailure::TimedOut {
            limit: own.unwrap_or(limit),
            own: own.is_some(),
            output: output(),
        }),
        Ok(Err(error)) => Err(HookFailure::Wait(error)),
        Ok(Ok(status)) => judge(status, output),
    }
}

fn judge(status: ExitStatus, output: impl FnOnce() -> String) -> Result<(), HookFailure> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(HookFailure::ExitCode {
            code,
            output: output(),
        }),
        (None, signal) => Err(HookFailure::Signal {
            signal: signal.unwrap_or_default(),
            output: output(),
        }),
    }
}

fn own_timeout(hook: &Hook) -> Result<Option<Duration>, HookFailure> {
    let Some(seconds) = hook.timeout() else {
        return Ok(None);
    };
    match u64::try_from(seconds) {
        Ok(positive @ 1..) => Ok(Some(Duration::from_secs(positive))),
        _ => Err(HookFailure::Timeout { seconds }),
    }
}

fn command(hook: &Hook, state: &State) -> Result<Command, HookFailure> {
    if !hook.path().is_absolute() {
        return Err(HookFailure::RelativePath);
    }
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_deref().and_then(<[_]>::split_first) {
        command.arg0(name).args(args);
    }
    command.env_clear();
    for entry in hook.env().iter().flatten() {
        let variable = entry.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = variable.ok_or_else(|| HookFailure::Environment {
            entry: entry.chars().take(QUOTED_CHARS_MAX).collect(),
        })?;
        command.env(name, value);
    }
    command
        .current_dir(state.bundle())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// Writes the state, shows its end, and then waits for ever. A hook does not have to read it.
async fn give(stdin: Option<ChildStdin>, state: &[u8]) -> std::convert::Infallible {
    if let Some(mut stdin) = stdin
        && let Err(error) = stdin.write_all(state).await
    {
        tracing::debug!(%error, "a hook does not read the container's state");
    }
    std::future::pending().await
}

/// A hook with all processes that it started and that are still of its group.
struct Group(Child);

impl Group {
    /// Kills them, unless the hook has ended and was waited for: until then nobody else can have
    /// its pid, and so its group.
    fn kill(&self) {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.filter(|&pid| pid > 1).and_then(Pid::from_raw)
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            tracing::debug!(%error, "a hook's processes cannot be killed");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
