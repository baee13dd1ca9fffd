//! The connections that carry the standard streams of processes.

mod input;
mod output;
mod passfd;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::frame::{Frame, FrameReader, Hello, Stream, send};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

use crate::error::{Attempt as _, Error, Result};
use crate::sandbox::Sandbox;

pub(crate) use passfd::PassfdStreams;

/// Stream connections at one time: three for each of many processes.
const CONNECTIONS_MAX: usize = 4096;

/// How long a connection may take to say which stream it is.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection waits until its process, or the making of its container, is known. A
/// process that is added is known when it is made.
const PROCESS_LIMIT: Duration = crate::launch::LAUNCH_LIMIT;

/// Listens for framed streams. Returns when the socket is there.
pub(crate) fn listen(sandbox: &Arc<Sandbox>, port: u32) -> Result<()> {
    let sandbox = Arc::clone(sandbox);
    accept_each(port, move |stream, _| {
        let sandbox = Arc::clone(&sandbox);
        async move {
            let (reader, writer) = stream.into_split();
            if let Err(error) = serve(&sandbox, reader, writer).await {
                tracing::debug!(error = error.chain(), "stream");
            }
        }
    })
}

/// Listens on `port` and spawns `serve` for each connection, which gets its peer's port too.
pub(crate) fn accept_each<F, S>(port: u32, serve: S) -> Result<()>
where
    S: Fn(VsockStream, u32) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))
        .attempt(|| format!("listen on vsock port {port}"))?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let serving = serve(stream, peer.port());
                    tokio::spawn(async move {
                        serving.await;
                        drop(permit);
                    });
                }
                Err(error) => tracing::warn!(%error, port, "cannot accept"),
            }
        }
    });
    Ok(())
}

/// Serves one connection to its end.
async fn serve<R, W>(sandbox: &Sandbox, reader: R, mut writer: W) -> Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut reader = FrameReader::new(reader);
    let hello = read_hello(&mut reader).await?;
    let known =
        sandbox
            .containers
            .wait_for_process(&hello.container_id, &hello.exec_id, PROCESS_LIMIT);
    let process = tokio::select! {
        biased;
        // Nothing is said before the answer: the host has given up a process that was not made. The
        // next one of its name is not for this connection.
        _ = reader.next() => return Err(abandoned(&hello)),
        process = known => process,
    };
    let attached = process.and_then(|process| {
        let pipe = process.io.attach(hello.stream)?;
        Ok((process, pipe))
    });
    let (process, pipe) = match attached {
        Ok(attached) => attached,
        Err(error) => {
            // Whether the host still hears it makes no difference.
            let _ = send(&mut writer, &Frame::Error(&error.chain())).await;
            return Err(error);
        }
    };
    send(&mut writer, &Frame::HelloOk)
        .await
        .attempt(|| "answer a hello".into())?;
    let attempt = || format!("carry {:?} of {}", hello.stream, process.name());
    match hello.stream {
        Stream::Stdin => {
            let is_terminal = process.io.terminal().is_some();
            input::carry(reader, writer, pipe, is_terminal)
                .await
                .attempt(attempt)
        }
        Stream::Stdout | Stream::Stderr => {
            match output::carry(reader, writer, pipe).await.attempt(attempt)? {
                output::End::Delivered => {}
                output::End::Abandoned => process.io.output_abandoned(),
            }
            Ok(())
        }
    }
}

fn abandoned(hello: &Hello) -> Error {
    Error::State {
        object: format!(
            "stream {:?} of container {:?}",
            hello.stream, hello.container_id
        ),
        state: "given up",
    }
}

async fn read_hello<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> Result<Hello> {
    let attempt = || "read the hello of a stream".to_owned();
    let frame = timeout(HELLO_LIMIT, reader.next())
        .await
        .map_err(|_| Error::Timeout {
            what: "the hello of a stream".into(),
            limit: HELLO_LIMIT,
        })?
        .attempt(attempt)?;
    match frame {
        Some(Frame::Hello(hello)) => Ok(hello),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)).attempt(attempt),
    }
}
