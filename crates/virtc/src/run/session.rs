//! One run from the first process to the last byte: start, join, wait, end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vc_types::{ClockPoint, ContainerId, EndReason, ExitStatus, Timeline};
use virtcontainers::{Error, FailureReport, ProcessExit, Runtime, Sandbox};

use super::not_found::hidden_command;
use super::plan::{Caller, Plan};
use super::progress::Progress;
use crate::cli::RunArgs;
use crate::error::{Failure, RUN_FAILED, TIMED_OUT};
use crate::join::{End, Joined, Kept, Signals, ending_signal, exit_code, signal_code};
use crate::output;

/// Runs the plan, and gives the exit code.
pub(crate) async fn run(
    runtime: &Runtime,
    args: &RunArgs,
    plan: Plan,
    caller: &Caller,
    entered: u64,
) -> Result<u8, Failure> {
    let limits = &runtime.config().limits;
    let mut signals = Signals::take().map_err(|error| Failure::plain(RUN_FAILED, &error))?;
    let container = plan.container.clone();
    let (terminal, timeout, shown) = (plan.terminal, plan.timeout, plan.shown.clone());
    let memory = plan.sandbox.vm.memory;

    let progress = Progress::new(args.quiet);
    let started = tokio::select! {
        started = runtime.create_sandbox(plan.sandbox) => started,
        // Before there is a command, a signal that ends programs ends this one.
        sig = ending_signal(&mut signals) => return Ok(signal_code(Some(sig))),
        () = progress.show_when_slow(output::progress_is_wanted(args.quiet)) => return Ok(RUN_FAILED),
    };
    drop(progress);
    let sandbox = started.map_err(|error| match &error {
        Error::Start { record, .. } => failure(&error, record),
        _ => Failure::from_error(RUN_FAILED, &error),
    })?;

    let first = Arc::new(AtomicU64::new(0));
    let job = Kept {
        sandbox: &sandbox,
        container: &container,
        throw_away: true,
    };
    let mut joined = Joined::new(job, limits, signals, terminal, Arc::clone(&first));
    let result = joined.command(timeout).await;
    // The terminal is the user's again before anything is said.
    drop(joined);

    let failed = result
        .as_ref()
        .err()
        .map(|error| failure(error, &sandbox.keep_failure(error)));
    let ended = finish(sandbox, args, &container, &result).await;
    if let Some(failed) = failed {
        return Err(failed);
    }
    let code = match result {
        Ok(End::Exited(exit)) => {
            explain(&exit, args, caller, &shown, memory);
            exit_code(&exit)
        }
        Ok(End::TimedOut) => {
            output::notice("the command's time is over (--timeout)");
            TIMED_OUT
        }
        Ok(End::Ended(signal)) => signal_code(signal),
        Err(error) => return Err(Failure::from_error(RUN_FAILED, &error)),
    };
    let mut timeline = ended.map_err(|error| Failure::from_error(RUN_FAILED, &error))?;
    if args.timeline {
        timeline.mark_at(ClockPoint::Exec, entered);
        match first.load(Ordering::Relaxed) {
            0 => {}
            first => timeline.mark_at(ClockPoint::Output, first),
        }
        print_timeline(&timeline);
    }
    Ok(code)
}

/// Ends the machine and removes its state, or keeps it.
async fn finish(
    sandbox: Sandbox,
    args: &RunArgs,
    container: &ContainerId,
    result: &Result<End, Error>,
) -> Result<Timeline, Error> {
    sandbox.stop().await?;
    if !args.keep {
        return sandbox.delete().await;
    }
    let exit = match result {
        Ok(End::Exited(exit)) => exit.status.clone(),
        Ok(End::TimedOut) => ExitStatus::Lost {
            reason: EndReason::TimedOut,
        },
        Ok(End::Ended(_)) => ExitStatus::Lost {
            reason: EndReason::Requested,
        },
        Err(Error::Ended { reason, .. }) => ExitStatus::Lost {
            reason: reason.clone(),
        },
        Err(error) => {
            let detail = error.to_string();
            ExitStatus::Lost {
                reason: EndReason::VmCrashed { detail },
            }
        }
    };
    sandbox.keep(container, exit).await
}

/// Says what the exit code alone does not.
fn explain(
    exit: &ProcessExit,
    args: &RunArgs,
    caller: &Caller,
    shown: &[std::path::PathBuf],
    memory: vc_types::ByteSize,
) {
    if let Some(text) = &exit.start_error {
        output::error(text);
        let path = caller.env.get("PATH").map(String::as_str);
        if args.rootfs == std::path::Path::new("host")
            && let Some(command) = args.command.first()
            && let Some(hint) = hidden_command(command, path, shown, &virtcontainers::HOST_SYSTEM)
        {
            output::stderr_line(&format!("  hint: {hint}"));
        }
    }
    if matches!(exit.status, ExitStatus::Signal { oom: true, .. }) {
        output::error(&format!(
            "the machine ran out of its {memory} of memory and ended the command; `-m SIZE` gives it more"
        ));
    }
}

/// An error with the last words of the machine.
fn failure(error: &Error, record: &FailureReport) -> Failure {
    let mut failure = Failure::from_error(RUN_FAILED, error);
    for (what, lines) in [("QEMU", &record.vmm), ("console", &record.console)] {
        for line in lines {
            failure = failure.note(format!("{what}: {line}"));
        }
    }
    match &record.kept {
        Some(path) => failure.note(format!("the full record is in {}", path.display())),
        None => failure,
    }
}

fn print_timeline(timeline: &Timeline) {
    for line in timeline.to_string().lines() {
        output::stderr_line(line);
    }
}
