//! Tells the host that it can call now, so that it does not have to try.

use std::time::Duration;

use agent_protocol::guest::HOST_CID;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::clock::uptime_us;
use crate::error::{Attempt as _, Error, Result};

/// How long one call may take. The kernel gives up before: after two seconds of the guest's time,
/// which a host that is busy or was suspended lets pass without noticing.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Calls that are made while the host does not answer. With two seconds each this is longer than
/// any host waits.
const DIALS_MAX: usize = 1000;

/// How long the connection stays for the host to read and close.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Ready {
    version: &'static str,
    uptime_us: u64,
}

/// Calls until the host has answered. A host that refuses the call does not wait for it.
pub(crate) async fn tell_host(port: u32) {
    if let Err(error) = until_answered(|| dial(port)).await {
        tracing::warn!(
            error = error.chain(),
            "cannot tell the host that the agent is ready"
        );
    }
}

/// Calls again as long as nobody answers.
async fn until_answered<F: Future<Output = Result<()>>>(mut call: impl FnMut() -> F) -> Result<()> {
    let mut dialled = 1;
    loop {
        match call().await {
            Err(error) if dialled < DIALS_MAX && is_silence(&error) => {
                tracing::warn!(error = error.chain(), "the host does not answer yet");
                dialled += 1;
            }
            done => return done,
        }
    }
}

fn is_silence(error: &Error) -> bool {
    match error {
        Error::Timeout { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::TimedOut,
        _ => false,
    }
}

async fn dial(port: u32) -> Result<()> {
    let attempt = || format!("dial port {port} of the host");
    let address = VsockAddr::new(HOST_CID, port);
    let mut stream = timeout(DIAL_LIMIT, VsockStream::connect(address))
        .await
        .map_err(|_| Error::Timeout {
            what: attempt(),
            limit: DIAL_LIMIT,
        })?
        .attempt(attempt)?;
    let ready = Ready {
        version: crate::service::VERSION,
        uptime_us: uptime_us(),
    };
    let mut line = serde_json::to_vec(&ready).map_err(|source| Error::Json {
        attempt: attempt(),
        source,
    })?;
    line.push(b'\n');
    stream.write_all(&line).await.attempt(attempt)?;
    // Until the host has closed, or long enough.
    let _ = timeout(CLOSE_LIMIT, stream.read(&mut [0; 1])).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn calls_with(mut answers: Vec<Result<()>>) -> (usize, Result<()>) {
        answers.reverse();
        let mut calls = 0;
        let result = until_answered(|| {
            calls += 1;
            std::future::ready(answers.pop().expect("no call after an answer"))
        })
        .await;
        (calls, result)
    }

    fn failed(errno: rustix::io::Errno) -> Result<()> {
        Err(std::io::Error::from(errno)).attempt(|| "dial".into())
    }

    #[tokio::test]
    async fn a_host_that_is_silent_for_a_while_is_called_again() {
        let silent = || failed(rustix::io::Errno::TIMEDOUT);
        let (calls, result) = calls_with(vec![silent(), silent(), Ok(())]).await;
        assert_eq!(calls, 3);
        result.unwrap();
    }

    #[tokio::test]
    async fn a_host_that_refuses_is_left_alone() {
        let (calls, result) = calls_with(vec![failed(rustix::io::Errno::CONNRESET)]).await;
        assert_eq!(calls, 1);
        result.unwrap_err();
    }
}
