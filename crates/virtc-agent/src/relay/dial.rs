//! Connections to programs of the guest.

use std::net::SocketAddr;
use std::time::Duration;

use agent_protocol::relay;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_vsock::VsockStream;

use crate::error::{Attempt as _, Error, Result};

/// How long a program of the guest may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let attempt = || format!("connect to {address}");
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
    let connected = connected.map_err(|_| Error::Timeout {
        what: attempt(),
        limit: CONNECT_LIMIT,
    })?;
    connected.attempt(attempt)
}

pub(super) async fn carry(
    stream: VsockStream,
    connection: &mut TcpStream,
    address: SocketAddr,
) -> Result<()> {
    let (reader, writer) = stream.into_split();
    let carried = relay::carry(reader, writer, connection).await;
    if carried.is_err() {
        // What was lost must not look like an end.
        let _ = set_socket_linger(&*connection, Some(Duration::ZERO));
    }
    carried.attempt(|| format!("carry a connection to {address}"))
}
