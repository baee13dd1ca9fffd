//! How the guest of a new machine is reached, and told who it is.

use agent_protocol::virtc::{HelloRequest, HelloResponse};
use vc_agent_client::{AgentClient, ReadyListener, Transport};
use vc_config::Limits;
use vc_types::{ClockPoint, Timeline, guest};

use super::super::clock::host_realtime_ns;
use super::super::config::SandboxConfig;
use super::super::guest::Guest;
use crate::error::{Error, Result};
use crate::fault;

/// Bytes of randomness that the guest gets at its start.
const SEED_BYTES: usize = 64;

/// Bytes of a host name: the kernel has room for 64, and names of DNS have one less.
const HOSTNAME_BYTES_MAX: usize = 63;

/// A guest whose agent answers.
pub(super) struct Reached {
    pub(super) agent: AgentClient,
    /// What the host's monotonic clock shows when the guest's shows 0, in microseconds.
    pub(super) guest_epoch: u64,
    pub(super) greeting: Greeting,
}

/// What a guest that can be called is still to be told of who it is, and what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// All of it; and it has not said how its start went.
    Due,
    /// The time, for which it is greeted again.
    Again,
    /// The time, which it takes with the sandbox.
    TimeWithSandbox,
}

/// Waits until a guest that boots says that it can be called, and calls it.
pub(super) async fn booted(
    ready: ReadyListener,
    transport: &Transport,
    limits: &Limits,
    timeline: &mut Timeline,
) -> Result<Reached> {
    let report = ready.wait(limits.agent_ready_ms.duration()).await?;
    let guest_epoch = Timeline::now().saturating_sub(report.uptime_us);
    timeline.step_at("guest kernel began", guest_epoch);
    fault::point("create.agent-ready")?;
    Ok(Reached {
        agent: AgentClient::connect(transport, Guest::call_limits(limits)).await?,
        guest_epoch,
        greeting: Greeting::Due,
    })
}

/// Calls the guest of a clone, which has listened since before its template was saved, so that no sign of it
/// has to be waited for. The call may wait, so it does not say what time it is.
pub(super) async fn cloned(
    transport: &Transport,
    config: &SandboxConfig,
    limits: &Limits,
    timeline: &mut Timeline,
) -> Result<Reached> {
    let request = HelloRequest {
        host_realtime_ns: 0,
        ..hello(config)?
    };
    let (calls, ready) = (Guest::call_limits(limits), limits.agent_ready_ms.duration());
    let greeted = AgentClient::connect_and_greet(transport, calls, request, ready).await;
    let (agent, answer) = greeted?;
    let guest_epoch = Timeline::now().saturating_sub(answer.uptime_us);
    fault::point("template.answered")?;
    fault::point("create.agent-ready")?;
    // What came before was its template's.
    tell(&answer, own_steps(&answer)?, guest_epoch, timeline);
    let mut features = answer.features.iter();
    let greeting = match features.any(|feature| feature == guest::TIMED_SANDBOX) {
        true => Greeting::TimeWithSandbox,
        false => Greeting::Again,
    };
    Ok(Reached {
        agent,
        guest_epoch,
        greeting,
    })
}

/// The number of the first step that is a clone's own. One that has none still has the random numbers of its
/// template: it has taken the call too early.
fn own_steps(answer: &HelloResponse) -> Result<usize, vc_agent_client::Error> {
    let mut steps = answer.boot.iter();
    let own = steps.position(|step| step.name == guest::HANDED_OVER);
    own.ok_or_else(|| vc_agent_client::Error::BadAnswer {
        call: "greet the agent",
        reason: "it is not handed over, and takes calls".into(),
    })
}

/// Tells a guest that can be called who it is, and what time; and learns how its start went, where it has
/// not said so yet.
pub(super) async fn greet(
    agent: &AgentClient,
    config: &SandboxConfig,
    guest_epoch: u64,
    greeting: Greeting,
    timeline: &mut Timeline,
) -> Result<()> {
    if greeting == Greeting::TimeWithSandbox {
        return Ok(());
    }
    let answer = agent.hello(hello(config)?).await?;
    if greeting == Greeting::Due {
        tell(&answer, 0, guest_epoch, timeline);
    }
    Ok(())
}

/// Puts the guest's own steps into the timeline, from its step number `own` on.
fn tell(answer: &HelloResponse, own: usize, guest_epoch: u64, timeline: &mut Timeline) {
    timeline.mark(ClockPoint::Ready);
    for step in answer.boot.iter().skip(own) {
        let name = vc_types::one_line(&step.name);
        let at = guest_epoch.saturating_add(step.uptime_us);
        timeline.step_at(format!("guest: {name}"), at);
    }
}

/// Who the guest is from now on, with the host's clock and randomness.
pub(super) fn hello(config: &SandboxConfig) -> Result<HelloRequest> {
    let mut seed = vec![0; SEED_BYTES];
    getrandom(&mut seed)?;
    Ok(HelloRequest {
        host_realtime_ns: host_time(),
        seed,
        hostname: hostname(config),
        ..HelloRequest::default()
    })
}

/// Nanoseconds since 1970. A host before that leaves the guest's clock alone.
pub(super) fn host_time() -> u64 {
    u64::try_from(host_realtime_ns()).unwrap_or_default()
}

/// The guest's name: the sandbox's where none was asked for, as much of it as the guest's kernel
/// takes.
pub(super) fn hostname(config: &SandboxConfig) -> String {
    let of_sandbox = || {
        let id = config.id.as_str();
        // Ids are ASCII.
        let cut = &id[..id.len().min(HOSTNAME_BYTES_MAX)];
        cut.trim_end_matches(['-', '.']).to_owned()
    };
    config.hostname.clone().unwrap_or_else(of_sandbox)
}

fn getrandom(seed: &mut [u8]) -> Result<()> {
    let failed = |source| Error::System {
        attempt: "get random bytes".into(),
        source,
    };
    let got = rustix::rand::getrandom(&mut *seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| failed(errno.into()))?;
    // Up to 256 bytes come at once.
    if got == seed.len() {
        Ok(())
    } else {
        Err(failed(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::virtc::TimelineStep;

    use super::*;

    fn answer(steps: &[&str]) -> HelloResponse {
        let step = |name: &&str| TimelineStep {
            name: (*name).to_owned(),
            ..TimelineStep::default()
        };
        HelloResponse {
            boot: steps.iter().map(step).collect(),
            ..HelloResponse::default()
        }
    }

    #[test]
    fn a_clone_that_has_not_been_handed_over_is_none() {
        assert_eq!(
            own_steps(&answer(&["init", guest::HANDED_OVER])).unwrap(),
            1
        );
        own_steps(&answer(&["init", "listening"])).unwrap_err();
    }
}
