//! Streams in Kata's way: the host connects to one port, and a call names each connection by the
//! host's own port of it. Nothing is framed, and the end is the connection's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_protocol::frame::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_vsock::VsockStream;

use super::accept_each;
use crate::error::{Error, Result};
use crate::process::{Pipe, Process, end_input, read_pipe, write_pipe};

/// Connections that no call has named yet.
const WAITING_MAX: usize = 256;

/// How long a call waits for a connection that it names: it may be on its way still.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

const BUFFER_BYTES: usize = 64 << 10;

/// The connections that wait for their call.
#[derive(Debug, Default)]
pub(crate) struct PassfdStreams {
    waiting: Mutex<HashMap<u32, VsockStream>>,
    changed: Notify,
}

impl PassfdStreams {
    /// Listens for connections.
    pub(crate) fn listen(self: &Arc<Self>, port: u32) -> Result<()> {
        let streams = Arc::clone(self);
        accept_each(port, move |stream, peer_port| {
            streams.add(peer_port, stream);
            std::future::ready(())
        })
    }

    /// Carries the streams of `process` over the connections with these ports: standard input,
    /// output and error, zero for none.
    pub(crate) async fn attach(&self, process: &Process, ports: [u32; 3]) -> Result<()> {
        for (stream, port) in [Stream::Stdin, Stream::Stdout, Stream::Stderr]
            .into_iter()
            .zip(ports)
        {
            if port == 0 {
                continue;
            }
            let connection = self.take(port).await?;
            let pipe = process.io.attach(stream)?;
            let is_terminal = process.io.terminal().is_some();
            tokio::spawn(async move {
                match stream {
                    Stream::Stdin => carry_input(connection, pipe, is_terminal).await,
                    Stream::Stdout | Stream::Stderr => carry_output(connection, pipe).await,
                }
            });
        }
        Ok(())
    }

    fn add(&self, peer_port: u32, stream: VsockStream) {
        let mut waiting = self.lock();
        if waiting.len() < WAITING_MAX {
            waiting.insert(peer_port, stream);
            self.changed.notify_waiters();
        }
    }

    async fn take(&self, port: u32) -> Result<VsockStream> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                if let Some(stream) = self.lock().remove(&port) {
                    return stream;
                }
                changed.await;
            }
        };
        timeout(CONNECTION_LIMIT, found)
            .await
            .map_err(|_| Error::Timeout {
                what: format!("waiting for the stream from port {port}"),
                limit: CONNECTION_LIMIT,
            })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, VsockStream>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that fails is a stream that ends: there is nobody to tell more.
async fn carry_input(mut connection: VsockStream, pipe: Arc<Pipe>, is_terminal: bool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(bytes @ 1..) = connection.read(&mut buffer).await {
        if write_pipe(&pipe, &buffer[..bytes]).await.is_err() {
            return;
        }
    }
    end_input(&pipe, is_terminal, false).await;
}

async fn carry_output(mut connection: VsockStream, pipe: Arc<Pipe>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(bytes @ 1..) = read_pipe(&pipe, &mut buffer).await {
        if connection.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
    // The peer may have closed before: then it knows.
    let _ = connection.shutdown(std::net::Shutdown::Write);
}
