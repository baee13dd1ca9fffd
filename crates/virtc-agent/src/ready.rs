//! Tells the host that it can call now, so that it does not have to try.

use std::time::Duration;

use agent_protocol::guest::HOST_CID;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::clock::uptime_us;
use crate::error::{Attempt as _, Error, Result};

/// How long the host may take to accept.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// How long the connection stays for the host to read and close.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Ready {
    version: &'static str,
    uptime_us: u64,
}

/// Dials the host once. A host that does not listen has another way to find out.
pub(crate) async fn tell_host(port: u32) {
    if let Err(error) = dial(port).await {
        tracing::warn!(
            error = error.chain(),
            "cannot tell the host that the agent is ready"
        );
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
