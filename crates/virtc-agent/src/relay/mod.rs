//! Connections that the host relays between the guest and the network namespace that it stands for.

mod dial;
mod resolver;

use std::time::Duration;

use agent_protocol::relay::{Answer, Request, read_line};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_vsock::VsockStream;

use crate::error::{Attempt as _, Error, Result};
use crate::streams::accept_each;

/// How long a connection may take to say what it is for.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Listens for them. Returns when the socket is there.
pub(crate) fn listen(port: u32) -> Result<()> {
    accept_each(port, |stream, _| async move {
        if let Err(error) = serve(stream).await {
            tracing::debug!(error = error.chain(), "relayed connection");
        }
    })
}

async fn serve(mut stream: VsockStream) -> Result<()> {
    let line = timeout(REQUEST_LIMIT, read_line(&mut stream)).await;
    let line = line
        .map_err(|_| Error::Timeout {
            what: "say what a connection is for".into(),
            limit: REQUEST_LIMIT,
        })?
        .attempt(|| "read what a connection is for".into())?;
    match line.parse() {
        Ok(Request::Dial(address)) => {
            let dialled = dial::connect(address).await;
            let mut connection = answered(&mut stream, dialled).await?;
            dial::carry(stream, &mut connection, address).await
        }
        Ok(Request::Resolve(address)) => {
            let bound = resolver::Sockets::bind(address).await;
            let sockets = answered(&mut stream, bound).await?;
            sockets.serve(stream).await
        }
        Err(error) => {
            let reason = Error::Invalid {
                field: "request",
                value: error.to_string(),
                reason: "is none",
            };
            answered(&mut stream, Err(reason)).await
        }
    }
}

/// Tells the host what became of its request.
async fn answered<T>(stream: &mut VsockStream, done: Result<T>) -> Result<T> {
    let answer = match &done {
        Ok(_) => Answer::Ok,
        Err(error) => Answer::Error(error.chain()),
    };
    let told = stream.write_all(answer.line().as_bytes()).await;
    let done = done?;
    told.attempt(|| "answer a request".into())?;
    Ok(done)
}
