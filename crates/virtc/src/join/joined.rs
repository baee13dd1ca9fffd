//! The host's side of a running command: streams, signals, terminal and clock, until it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as Sig;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use vc_types::Signal;
use virtcontainers::{Error, ProcessExit};

use super::job::Job;
use super::pump::{self, Output};
use super::signals::{Action, SignalPolicy, Signals, ends_programs};
use super::terminal::{self, RawTerminal};
use crate::error::{NOT_EXECUTABLE, NOT_FOUND};

/// Calls to the guest that wait for the one before. More than a person types in a second.
const CALLS_MAX: usize = 32;

/// How a command's run ended.
pub(crate) enum End {
    /// The command ended.
    Exited(ProcessExit),
    /// Its time was over.
    TimedOut,
    /// The user gave it up, by this signal or the escape.
    Ended(Option<Sig>),
}

/// What the guest is told while the command runs.
enum Call {
    Signal(Signal),
    Resize,
}

/// A command, joined with what virtc has of the host.
pub(crate) struct Joined<'a, J> {
    job: J,
    limits: &'a vc_config::Limits,
    signals: Signals,
    policy: SignalPolicy,
    terminal: bool,
    first: Arc<AtomicU64>,
    raw: Option<RawTerminal>,
    /// Whether the keys of a terminal can end it.
    has_escape: bool,
}

impl<'a, J: Job> Joined<'a, J> {
    /// A job that is about to be joined. `first` gets the time of its first byte.
    pub(crate) fn new(
        job: J,
        limits: &'a vc_config::Limits,
        signals: Signals,
        terminal: bool,
        first: Arc<AtomicU64>,
    ) -> Self {
        let policy = SignalPolicy::new(
            limits.second_signal_ms.duration(),
            limits.hangup_ms.duration(),
            terminal,
        );
        Self {
            job,
            limits,
            signals,
            policy,
            terminal,
            first,
            raw: None,
            has_escape: terminal,
        }
    }

    /// A job whose virtc stands for it: every signal is the job's, and no key is for virtc.
    pub(crate) fn forwarding(
        job: J,
        limits: &'a vc_config::Limits,
        signals: Signals,
        terminal: bool,
    ) -> Self {
        Self {
            policy: SignalPolicy::forwarding(terminal),
            has_escape: false,
            ..Self::new(job, limits, signals, terminal, Arc::default())
        }
    }

    /// Starts the command and stays with it until every byte is where it belongs.
    pub(crate) async fn command(&mut self, timeout: Option<Duration>) -> Result<End, Error> {
        let system = |attempt: &str| {
            let attempt = attempt.to_owned();
            move |source| Error::System { attempt, source }
        };
        if self.terminal {
            self.raw = Some(RawTerminal::enter().map_err(system("make the terminal raw"))?);
            resize(&self.job).await;
        }
        tokio::select! {
            started = self.job.start() => started?,
            sig = ending_signal(&mut self.signals) => return Ok(End::Ended(Some(sig))),
        }
        let started = "start the threads of the streams";
        let (outputs, escape) = self.pump().map_err(system(started))?;
        let (end, exited) = self.wait(escape, timeout).await?;
        // Without its end, what the command still writes is nobody's.
        if !exited {
            return Ok(end);
        }
        match self.drain(outputs).await {
            Ok(None) => Ok(end),
            Ok(sig) => Ok(End::Ended(sig)),
            // Others end that machine, and with it whoever still holds an output. But a success whose
            // output may be cut off is none.
            Err(error) if !J::HAS_MACHINE && has_failed(&end) && is_broken(&error) => {
                tracing::warn!(%error, "the command has ended, and its output broke off");
                Ok(end)
            }
            Err(error) => Err(error),
        }
    }

    /// Kills the job, for those who gave it up.
    pub(crate) async fn kill(&self) -> Result<(), Error> {
        self.job.signal(Signal::KILL).await
    }

    fn pump(&self) -> io::Result<(Vec<Output>, oneshot::Receiver<()>)> {
        let streams = self.job.take_streams().ok_or(io::ErrorKind::NotConnected)?;
        let first = || Arc::clone(&self.first);
        let mut outputs = vec![pump::output(
            "stdout",
            streams.stdout,
            io::stdout(),
            first(),
        )?];
        if let Some(stderr) = streams.stderr {
            outputs.push(pump::output("stderr", stderr, io::stderr(), first())?);
        }
        Ok((outputs, pump::input(streams.stdin, self.has_escape)?))
    }

    /// Waits for the command, and does what signals and the clock ask for meanwhile. Says too
    /// whether the command has ended by itself.
    ///
    /// Nothing here waits for the guest but the arms of the one select: a guest that answers no
    /// call does not keep a second interrupt or a time limit from ending it.
    async fn wait(
        &mut self,
        mut escape: oneshot::Receiver<()>,
        timeout: Option<Duration>,
    ) -> Result<(End, bool), Error> {
        let mut deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut hangup: Option<Instant> = None;
        let mut term_sent = false;
        let mut escape_counts = true;
        let (tell, calls) = channel(CALLS_MAX);
        let exited = self.job.wait();
        let caller = make_calls(&self.job, calls);
        tokio::pin!(exited, caller);
        loop {
            let until = [deadline, hangup].into_iter().flatten().min();
            tokio::select! {
                exit = &mut exited => {
                    let exit = exit?;
                    return Ok((if term_sent { End::TimedOut } else { End::Exited(exit) }, true));
                }
                sig = self.signals.next() => {
                    match self.policy.decide(sig, Instant::now()) {
                        Action::Forward(signal) => forward(&tell, Call::Signal(signal)),
                        Action::ForwardAndEndAfter(signal, after) => {
                            hangup.get_or_insert(Instant::now() + after);
                            forward(&tell, Call::Signal(signal));
                        }
                        Action::EndVm => return Ok((End::Ended(Some(sig)), false)),
                        Action::Resize => forward(&tell, Call::Resize),
                        Action::Suspend => self.suspend().await?,
                        Action::Continue => {}
                    }
                }
                () = sleep_until(until) => {
                    let now = Instant::now();
                    if hangup.is_some_and(|at| at <= now) {
                        return Ok((End::Ended(Some(Sig::SIGHUP)), false));
                    }
                    if term_sent {
                        return Ok((End::TimedOut, false));
                    }
                    term_sent = true;
                    deadline = Some(now + self.limits.kill_after_timeout_ms.duration());
                    forward(&tell, Call::Signal(Signal::TERM));
                }
                typed = &mut escape, if escape_counts => {
                    if typed.is_ok() {
                        return Ok((End::Ended(None), false));
                    }
                    // Stdin is at its end.
                    escape_counts = false;
                }
                () = &mut caller => {}
            }
        }
    }

    /// Stops the job and this process, until it is continued.
    async fn suspend(&self) -> Result<(), Error> {
        self.job.suspend().await?;
        if let Some(raw) = &self.raw {
            raw.restore();
        }
        stop_self();
        if let Some(raw) = &self.raw
            && let Err(error) = raw.raw()
        {
            tracing::debug!(%error, "the terminal is gone");
        }
        match self.job.resume().await {
            // It goes on with a clock that is late.
            Err(error @ Error::Agent(_)) => tracing::warn!(%error, "the guest's clock is not set"),
            resumed => resumed?,
        }
        Ok(())
    }

    /// Waits until every byte of the outputs is where it belongs, however slow its reader is, but
    /// not longer than its limit for a guest that holds them open. A signal that ends programs
    /// ends it, and is returned.
    async fn drain(&mut self, outputs: Vec<Output>) -> Result<Option<Sig>, Error> {
        let limit = self.limits.drain_ms.duration();
        let mut drained = Ok(None);
        for mut output in outputs {
            loop {
                tokio::select! {
                    ended = &mut output.end => match ended {
                        Ok(Ok(_)) => break,
                        Ok(Err(error)) => {
                            let cause = self.job.cause_of(error.into()).await;
                            drained = drained.and(Err(cause));
                            break;
                        }
                        Err(_) => {
                            tracing::error!("a thread of the streams panicked");
                            break;
                        }
                    },
                    sig = ending_signal(&mut self.signals) => return Ok(Some(sig)),
                    () = tokio::time::sleep(limit) => {
                        if output.wait.elapsed() >= limit {
                            tracing::warn!("the guest did not end an output (limits.drain_ms)");
                            break;
                        }
                    }
                }
            }
        }
        drained
    }
}

fn has_failed(end: &End) -> bool {
    !matches!(end, End::Exited(exit) if exit_code(exit) == 0)
}

fn is_broken(error: &Error) -> bool {
    matches!(error, Error::Agent(error) if error.is_broken())
}

/// The next signal that ends programs. A stop stops this process meanwhile; others do nothing.
pub(crate) async fn ending_signal(signals: &mut Signals) -> Sig {
    loop {
        match signals.next().await {
            Sig::SIGTSTP => stop_self(),
            sig if ends_programs(sig) => return sig,
            _ => {}
        }
    }
}

/// The exit code of a process of the guest, as its parent on the host would have it.
pub(crate) fn exit_code(exit: &ProcessExit) -> u8 {
    match (&exit.start_error, exit.status.shell_code()) {
        (Some(_), code @ (NOT_FOUND | NOT_EXECUTABLE)) => code,
        (Some(_), _) => NOT_EXECUTABLE,
        (None, code) => code,
    }
}

/// 128 and the signal's number; the escape is as good as SIGKILL.
pub(crate) fn signal_code(signal: Option<Sig>) -> u8 {
    let number = signal.and_then(|signal| u8::try_from(signal as i32).ok());
    128u8.saturating_add(number.unwrap_or(Signal::KILL.number()))
}

/// Stops this process as Ctrl-Z would have.
fn stop_self() {
    // It cannot fail: the signal exists, and it is our own process.
    let _ = nix::sys::signal::raise(Sig::SIGSTOP);
}

/// Puts a call into the queue. Where it is full, the guest answers nothing anyway.
fn forward(tell: &Sender<Call>, call: Call) {
    if tell.try_send(call).is_err() {
        tracing::warn!("the guest answers no call; a signal is dropped");
    }
}

/// Makes the calls one after the other; never ends while there can be more.
async fn make_calls(job: &impl Job, mut calls: Receiver<Call>) {
    while let Some(call) = calls.recv().await {
        match call {
            Call::Resize => resize(job).await,
            Call::Signal(signal) => {
                if let Err(error) = job.signal(signal).await {
                    // The command may just have ended.
                    tracing::debug!(%signal, %error, "not forwarded");
                }
            }
        }
    }
}

async fn resize(job: &impl Job) {
    let Some((rows, columns)) = terminal::size(io::stdin()) else {
        return;
    };
    if let Err(error) = job.winsize(rows, columns).await {
        tracing::debug!(%error, "the terminal's size is not passed on");
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
