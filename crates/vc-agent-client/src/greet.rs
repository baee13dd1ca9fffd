//! The first call to a guest that goes on from where it listened already.

use std::time::Duration;

use agent_protocol::virtc::{HelloRequest, HelloResponse};
use tokio::time::timeout;
use vc_types::guest;

use crate::client::{AgentClient, CallLimits, context_for};
use crate::error::{Error, Result};
use crate::ready::{READY_LIMIT, WAIT_FOR_AGENT};
use crate::transport::Transport;

/// How long one attempt to connect is waited for, before another one.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

impl AgentClient {
    /// Connects to the agent of a guest that goes on from where it listened already, and greets it. Call
    /// and connection wait until the guest has got as far as to take them, `ready` at most.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] after the limit; else as [`Transport::connect`] and as every call.
    pub async fn connect_and_greet(
        transport: &Transport,
        limits: CallLimits,
        request: HelloRequest,
        ready: Duration,
    ) -> Result<(Self, HelloResponse)> {
        let greeted = async {
            let stream = loop {
                match timeout(DIAL_LIMIT, transport.dial(guest::AGENT_PORT)).await {
                    Ok(dialled) => break dialled?,
                    // A kernel can lose what it answers while its driver comes up.
                    Err(_) => tracing::debug!("the guest takes no connection yet"),
                }
            };
            let client = Self::over(stream, limits);
            tracing::debug!(call = "greet the agent", "asks the agent");
            let answer = client.guest.hello(context_for(ready), &request).await;
            let answer = answer.map_err(Error::from_ttrpc(WAIT_FOR_AGENT, READY_LIMIT, ready))?;
            Ok((client, answer))
        };
        let silent = |_| Error::TimedOut {
            call: WAIT_FOR_AGENT,
            limit: READY_LIMIT,
            after: ready,
        };
        timeout(ready, greeted).await.map_err(silent)?
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    /// A way to whoever listens, with limits for later calls that the first one does not have.
    fn listener() -> (TempDir, UnixListener, Transport, CallLimits) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("v");
        let listener = UnixListener::bind(&socket).unwrap();
        let short = Duration::from_millis(10);
        let limits = CallLimits {
            call: short,
            create: short,
        };
        let address = vc_types::AgentAddress::HybridVsock { socket };
        (dir, listener, Transport::new(address, short), limits)
    }

    #[tokio::test]
    async fn a_guest_that_does_not_go_on_passes_the_limit_of_its_start() {
        // The connection is taken by the kernel, and by nobody else.
        let (_dir, _listener, transport, limits) = listener();
        let (hello, ready) = (HelloRequest::default(), Duration::from_millis(80));
        let greeted = AgentClient::connect_and_greet(&transport, limits, hello, ready).await;
        let Err(Error::TimedOut { limit, after, .. }) = greeted else {
            panic!("it answers");
        };
        assert_eq!((limit, after), (READY_LIMIT, ready));
    }

    #[tokio::test]
    async fn an_answer_that_is_lost_is_asked_for_again_and_a_silent_agent_passes_the_limit() {
        let (_dir, listener, transport, limits) = listener();
        let played = std::thread::spawn(move || {
            // Nothing is said to the first one until it goes.
            let (mut first, _) = listener.accept().unwrap();
            let _ = first.read_to_end(&mut Vec::new());
            let (mut second, _) = listener.accept().unwrap();
            second.read_exact(&mut [0; 13]).unwrap();
            second.write_all(b"OK 1\n").unwrap();
            // Open until the test has ended; nothing more is said.
            second
        });
        let ready = DIAL_LIMIT + Duration::from_millis(500);
        let hello = HelloRequest::default();
        let greeted = AgentClient::connect_and_greet(&transport, limits, hello, ready).await;
        assert!(matches!(greeted, Err(Error::TimedOut { limit, .. }) if limit == READY_LIMIT));
        // It was called a second time: it would wait for that else.
        let _second = played.join().unwrap();
    }
}
