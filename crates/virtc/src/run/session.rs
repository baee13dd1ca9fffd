//! One run from the first process to the last byte: start, join, wait, end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as Sig;
use tokio::sync::oneshot;
use vc_types::{ClockPoint, ContainerId, ExitStatus, Signal, Timeline};
use virtcontainers::stream::{Incoming, Outgoing, Stream};
use virtcontainers::{Error, ProcessExit, Runtime, Sandbox};

use super::not_found::hidden_command;
use super::plan::{Caller, Plan};
use super::progress::Progress;
use super::pump::{self, Output};
use super::signals::{Action, SignalPolicy, Signals};
use super::terminal::{self, RawTerminal};
use crate::cli::RunArgs;
use crate::error::{Failure, NOT_EXECUTABLE, NOT_FOUND, RUN_FAILED, TIMED_OUT};
use crate::output;

/// How a command's run ended.
enum End {
    /// The command ended.
    Exited(ProcessExit),
    /// Its time was over.
    TimedOut,
    /// The user ended the machine, by this signal or the escape.
    Ended(Option<Sig>),
}

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
    let policy = SignalPolicy::new(
        limits.second_signal_ms.duration(),
        limits.hangup_ms.duration(),
    );
    let container = plan.container.clone();
    let (terminal, timeout, shown) = (plan.terminal, plan.timeout, plan.shown.clone());
    let memory = plan.sandbox.vm.memory;

    let progress = Progress::new(args.quiet);
    let started = tokio::select! {
        started = start(runtime, plan) => started,
        sig = ended_before_the_command(&mut signals) => {
            return Ok(128u8.saturating_add(u8::try_from(sig as i32).unwrap_or_default()));
        }
        () = progress.show_when_slow(output::progress_is_wanted(args.quiet)) => return Ok(RUN_FAILED),
    };
    drop(progress);
    let (sandbox, streams) = started.map_err(|error| start_failure(&error))?;

    let first = Arc::new(AtomicU64::new(0));
    let mut joined = Joined {
        signals,
        policy,
        raw: None,
        outputs: Vec::new(),
        first,
        escape: None,
    };
    let result = joined
        .command(&sandbox, &container, streams, terminal, timeout, limits)
        .await;
    drop(joined.raw.take());
    let first = joined.first.load(Ordering::Relaxed);

    let ended = finish(sandbox, args, &container, &result).await;
    let code = match result {
        Ok(End::Exited(exit)) => {
            explain(&exit, args, caller, &shown, memory);
            exit_code(&exit)
        }
        Ok(End::TimedOut) => {
            output::notice("the command's time is over (--timeout)");
            TIMED_OUT
        }
        Ok(End::Ended(signal)) => {
            let number = signal.map_or(Signal::KILL.number(), |s| {
                u8::try_from(s as i32).unwrap_or(9)
            });
            128u8.saturating_add(number)
        }
        Err(error) => return Err(Failure::from_error(RUN_FAILED, &error)),
    };
    let mut timeline = ended.map_err(|error| Failure::from_error(RUN_FAILED, &error))?;
    if args.timeline {
        timeline.mark_at(ClockPoint::Exec, entered);
        if first > 0 {
            timeline.mark_at(ClockPoint::Output, first);
        }
        print_timeline(&timeline);
    }
    Ok(code)
}

/// The streams of the command, attached.
struct Streams {
    stdin: Outgoing,
    stdout: Incoming,
    stderr: Option<Incoming>,
}

async fn start(runtime: &Runtime, plan: Plan) -> Result<(Sandbox, Streams), Error> {
    let container = plan.container;
    let sandbox = runtime.create_sandbox(plan.sandbox).await?;
    let stderr = async {
        match plan.terminal {
            true => Ok(None),
            false => sandbox
                .attach_output(&container, None, Stream::Stderr)
                .await
                .map(Some),
        }
    };
    let attached = tokio::try_join!(
        sandbox.attach_stdin(&container, None),
        sandbox.attach_output(&container, None, Stream::Stdout),
        stderr,
    );
    match attached {
        Ok((stdin, stdout, stderr)) => Ok((
            sandbox,
            Streams {
                stdin,
                stdout,
                stderr,
            },
        )),
        Err(error) => {
            // The first error is the one that matters.
            let _ = sandbox.delete().await;
            Err(error)
        }
    }
}

/// Before there is a command, a signal that ends programs ends this one.
async fn ended_before_the_command(signals: &mut Signals) -> Sig {
    loop {
        let sig = signals.next().await;
        match sig {
            Sig::SIGINT | Sig::SIGTERM | Sig::SIGHUP | Sig::SIGQUIT => return sig,
            Sig::SIGTSTP => stop_self(),
            _ => {}
        }
    }
}

/// Stops this process as Ctrl-Z would have.
fn stop_self() {
    // It cannot fail: the signal exists, and it is our own process.
    let _ = nix::sys::signal::raise(Sig::SIGSTOP);
}

/// The host's side of a running command.
struct Joined {
    signals: Signals,
    policy: SignalPolicy,
    raw: Option<RawTerminal>,
    outputs: Vec<Output>,
    first: Arc<AtomicU64>,
    escape: Option<oneshot::Receiver<()>>,
}

impl Joined {
    async fn command(
        &mut self,
        sandbox: &Sandbox,
        container: &ContainerId,
        streams: Streams,
        terminal: bool,
        timeout: Option<Duration>,
        limits: &vc_config::Limits,
    ) -> Result<End, Error> {
        let system = |attempt: &str| {
            let attempt = attempt.to_owned();
            move |source| Error::System { attempt, source }
        };
        if terminal {
            self.raw = Some(RawTerminal::enter().map_err(system("make the terminal raw"))?);
            self.resize(sandbox, container).await;
        }
        sandbox.start_container(container).await?;
        self.pump(streams, terminal)
            .map_err(system("start the threads of the streams"))?;
        let end = self.wait(sandbox, container, timeout, limits).await?;
        if matches!(end, End::Exited(_)) {
            self.drain(sandbox, limits.drain_ms.duration()).await?;
        }
        Ok(end)
    }

    fn pump(&mut self, streams: Streams, terminal: bool) -> io::Result<()> {
        let first = Arc::clone(&self.first);
        self.outputs
            .push(pump::output("stdout", streams.stdout, io::stdout(), first)?);
        if let Some(stderr) = streams.stderr {
            let first = Arc::clone(&self.first);
            self.outputs
                .push(pump::output("stderr", stderr, io::stderr(), first)?);
        }
        self.escape = Some(pump::input(streams.stdin, terminal)?);
        Ok(())
    }

    /// Waits for the command, and does what signals and the clock ask for meanwhile.
    async fn wait(
        &mut self,
        sandbox: &Sandbox,
        container: &ContainerId,
        timeout: Option<Duration>,
        limits: &vc_config::Limits,
    ) -> Result<End, Error> {
        let timed_out = timeout.map(|timeout| Instant::now() + timeout);
        let mut deadline = timed_out;
        let mut hangup: Option<Instant> = None;
        let mut term_sent = false;
        let exited = sandbox.wait_process(container, None);
        tokio::pin!(exited);
        loop {
            let until = [deadline, hangup].into_iter().flatten().min();
            tokio::select! {
                exit = &mut exited => {
                    let exit = exit?;
                    return Ok(if term_sent { End::TimedOut } else { End::Exited(exit) });
                }
                sig = self.signals.next() => {
                    match self.policy.decide(sig, Instant::now()) {
                        Action::Forward(signal) => self.forward(sandbox, container, signal).await,
                        Action::ForwardAndEndAfter(signal, after) => {
                            hangup.get_or_insert(Instant::now() + after);
                            self.forward(sandbox, container, signal).await;
                        }
                        Action::EndVm => return Ok(End::Ended(Some(sig))),
                        Action::Resize => self.resize(sandbox, container).await,
                        Action::Suspend => self.suspend(sandbox).await?,
                        Action::Continue => {}
                    }
                }
                () = sleep_until(until) => {
                    let now = Instant::now();
                    if hangup.is_some_and(|at| at <= now) {
                        return Ok(End::Ended(Some(Sig::SIGHUP)));
                    }
                    if term_sent {
                        return Ok(End::TimedOut);
                    }
                    term_sent = true;
                    deadline = Some(now + limits.kill_after_timeout_ms.duration());
                    self.forward(sandbox, container, Signal::TERM).await;
                }
                Some(()) = escaped(&mut self.escape) => return Ok(End::Ended(None)),
            }
        }
    }

    async fn forward(&self, sandbox: &Sandbox, container: &ContainerId, signal: Signal) {
        if let Err(error) = sandbox.signal_process(container, None, signal).await {
            // The command may just have ended.
            tracing::debug!(%signal, %error, "not forwarded");
        }
    }

    async fn resize(&self, sandbox: &Sandbox, container: &ContainerId) {
        let Some((rows, columns)) = terminal::size(io::stdin()) else {
            return;
        };
        if let Err(error) = sandbox
            .winsize_process(container, None, rows, columns)
            .await
        {
            tracing::debug!(%error, "the terminal's size is not passed on");
        }
    }

    /// Stops the machine and this process, until it is continued.
    async fn suspend(&self, sandbox: &Sandbox) -> Result<(), Error> {
        sandbox.pause().await?;
        stop_self();
        if let Some(raw) = &self.raw
            && let Err(error) = raw.raw()
        {
            tracing::debug!(%error, "the terminal is gone");
        }
        sandbox.resume().await
    }

    /// Waits until every byte of the outputs is where it belongs, however slow its reader is, but
    /// not longer than `limit` for a guest that holds them open. A second signal ends it.
    async fn drain(&mut self, sandbox: &Sandbox, limit: Duration) -> Result<(), Error> {
        for mut output in std::mem::take(&mut self.outputs) {
            loop {
                tokio::select! {
                    ended = &mut output.end => match ended {
                        Ok(Ok(_)) => break,
                        Ok(Err(error)) => return Err(error.into()),
                        Err(_) => {
                            tracing::error!("a thread of the streams panicked");
                            break;
                        }
                    },
                    reason = sandbox.ended() => {
                        return Err(Error::Ended { sandbox: sandbox.id().clone(), reason });
                    }
                    _ = self.signals.next() => return Ok(()),
                    () = tokio::time::sleep(limit) => {
                        if output.wait.elapsed() >= limit {
                            tracing::warn!("the guest did not end an output (limits.drain_ms)");
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

async fn escaped(escape: &mut Option<oneshot::Receiver<()>>) -> Option<()> {
    match escape {
        Some(receiver) => receiver.await.ok(),
        None => std::future::pending().await,
    }
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
            reason: vc_types::EndReason::TimedOut,
        },
        Ok(End::Ended(_)) => ExitStatus::Lost {
            reason: vc_types::EndReason::Requested,
        },
        Err(Error::Ended { reason, .. }) => ExitStatus::Lost {
            reason: reason.clone(),
        },
        Err(error) => {
            let detail = error.to_string();
            ExitStatus::Lost {
                reason: vc_types::EndReason::VmCrashed { detail },
            }
        }
    };
    sandbox.keep(container, exit).await
}

fn exit_code(exit: &ProcessExit) -> u8 {
    match (&exit.start_error, &exit.status) {
        (Some(_), ExitStatus::Code(code @ (NOT_FOUND | NOT_EXECUTABLE))) => *code,
        (Some(_), _) => NOT_EXECUTABLE,
        (None, status) => status.shell_code(),
    }
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

/// A start that failed, with the last words of the machine.
fn start_failure(error: &Error) -> Failure {
    let mut failure = Failure::from_error(RUN_FAILED, error);
    if let Error::Start { record, .. } = error {
        for (what, lines) in [("QEMU", &record.vmm), ("console", &record.console)] {
            for line in lines {
                failure = failure.note(format!("{what}: {line}"));
            }
        }
        if let Some(path) = &record.kept {
            failure = failure.note(format!(
                "the full record of this start is in {}",
                path.display()
            ));
        }
    }
    failure
}

fn print_timeline(timeline: &Timeline) {
    for line in timeline.to_string().lines() {
        output::stderr_line(line);
    }
}
