//! What a signal to virtc means for the command: a plain decision, and the streams that feed it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal as Sig;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use vc_types::Signal;

/// What to do about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The command gets it.
    Forward(Signal),
    /// The command gets it, and has this long to end before the machine ends.
    ForwardAndEndAfter(Signal, Duration),
    /// The machine ends now.
    EndVm,
    /// The terminal has another size.
    Resize,
    /// The machine stops, then virtc itself.
    Suspend,
    /// The machine goes on.
    Continue,
}

/// Decides about signals in the order in which they come.
#[derive(Debug)]
pub(crate) struct SignalPolicy {
    second_within: Duration,
    hangup_after: Duration,
    terminal: bool,
    first: Option<Instant>,
    /// Whether every signal is the process's, and none is for virtc.
    forwards_all: bool,
}

impl SignalPolicy {
    pub(crate) fn new(second_within: Duration, hangup_after: Duration, terminal: bool) -> Self {
        Self {
            second_within,
            hangup_after,
            terminal,
            first: None,
            forwards_all: false,
        }
    }

    /// Every signal is the process's; the size of a terminal is told it otherwise.
    pub(crate) fn forwarding(terminal: bool) -> Self {
        Self {
            forwards_all: true,
            ..Self::new(Duration::ZERO, Duration::ZERO, terminal)
        }
    }

    /// What `signal`, which came at `now`, means.
    pub(crate) fn decide(&mut self, signal: Sig, now: Instant) -> Action {
        let number = u8::try_from(signal as i32).unwrap_or(Signal::TERM.number());
        let forwarded = Signal::from_number(number).unwrap_or(Signal::TERM);
        if self.forwards_all && !(self.terminal && signal == Sig::SIGWINCH) {
            return Action::Forward(forwarded);
        }
        match signal {
            Sig::SIGINT | Sig::SIGTERM => match self.first.replace(now) {
                Some(first) if now.duration_since(first) <= self.second_within => Action::EndVm,
                _ => Action::Forward(forwarded),
            },
            Sig::SIGHUP => Action::ForwardAndEndAfter(forwarded, self.hangup_after),
            Sig::SIGWINCH if self.terminal => Action::Resize,
            Sig::SIGTSTP => Action::Suspend,
            Sig::SIGCONT => Action::Continue,
            _ => Action::Forward(forwarded),
        }
    }
}

/// Whether a signal ends programs that do not handle it, of those that virtc takes.
pub(crate) fn ends_programs(signal: Sig) -> bool {
    matches!(
        signal,
        Sig::SIGINT | Sig::SIGTERM | Sig::SIGHUP | Sig::SIGQUIT
    )
}

/// The signals that virtc takes.
const TAKEN: [Sig; 9] = [
    Sig::SIGINT,
    Sig::SIGTERM,
    Sig::SIGHUP,
    Sig::SIGQUIT,
    Sig::SIGUSR1,
    Sig::SIGUSR2,
    Sig::SIGWINCH,
    Sig::SIGTSTP,
    Sig::SIGCONT,
];

/// The streams of all signals that virtc takes.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Sig, SignalStream)>);

impl Signals {
    /// From now on, no signal of these has its default effect.
    ///
    /// # Errors
    ///
    /// When the system refuses a handler.
    pub(crate) fn take() -> std::io::Result<Self> {
        TAKEN
            .iter()
            .map(|sig| Ok((*sig, signal(SignalKind::from_raw(*sig as i32))?)))
            .collect::<std::io::Result<_>>()
            .map(Self)
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Sig {
        std::future::poll_fn(|context| {
            for (sig, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*sig);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> SignalPolicy {
        SignalPolicy::new(Duration::from_secs(2), Duration::from_secs(10), false)
    }

    #[test]
    fn a_second_interrupt_within_its_time_ends_the_machine() {
        let (mut policy, start) = (policy(), Instant::now());
        assert_eq!(
            policy.decide(Sig::SIGINT, start),
            Action::Forward(Signal::INT)
        );
        let soon = start + Duration::from_secs(2);
        assert_eq!(policy.decide(Sig::SIGTERM, soon), Action::EndVm);
    }

    #[test]
    fn a_late_second_interrupt_is_a_first_one_again() {
        let (mut policy, start) = (policy(), Instant::now());
        policy.decide(Sig::SIGINT, start);
        let late = start + Duration::from_millis(2001);
        assert_eq!(
            policy.decide(Sig::SIGINT, late),
            Action::Forward(Signal::INT)
        );
        assert_eq!(
            policy.decide(Sig::SIGINT, late + Duration::from_secs(1)),
            Action::EndVm
        );
    }

    #[test]
    fn a_hangup_sets_a_limit_and_the_rest_is_forwarded() {
        let (mut policy, now) = (policy(), Instant::now());
        assert_eq!(
            policy.decide(Sig::SIGHUP, now),
            Action::ForwardAndEndAfter(Signal::HUP, Duration::from_secs(10))
        );
        for sig in [Sig::SIGQUIT, Sig::SIGUSR1, Sig::SIGUSR2, Sig::SIGWINCH] {
            assert!(
                matches!(policy.decide(sig, now), Action::Forward(s) if i32::from(s.number()) == sig as i32)
            );
        }
    }
}
