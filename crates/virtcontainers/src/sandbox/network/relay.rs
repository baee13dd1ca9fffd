//! Connections that are made inside a sandbox's namespace to its loopback addresses, as those of a
//! port-forward are: what they look for is in the guest.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use vc_agent_client::Transport;
use vc_agent_client::relay::Relayed;
use vc_network::{LoopbackListeners, original_destination};

use super::super::guest::Guest;
use crate::error::{Error, Result, chain};

/// Connections of one sandbox at one time. Further ones wait until they are accepted.
const CONNECTIONS_MAX: usize = 512;

/// How long nothing is accepted after the system gave no descriptor.
const REST: Duration = Duration::from_millis(100);

/// Accepts connections and leads them to the guest. Dropping it closes them all.
pub(super) struct Relay {
    _listening: JoinSet<()>,
}

impl Relay {
    /// # Errors
    ///
    /// [`Error::System`] when the executor does not take the listeners.
    pub(super) fn begin(listeners: LoopbackListeners, guest: &Guest) -> Result<Self> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut listening = JoinSet::new();
        for listener in [Some(listeners.ipv4), listeners.ipv6].into_iter().flatten() {
            let listener = TcpListener::from_std(listener).map_err(|source| Error::System {
                attempt: "listen in a network namespace".into(),
                source,
            })?;
            let relayed = relay_each(
                listener,
                guest.transport.clone(),
                guest.attach_limit,
                Arc::clone(&places),
            );
            listening.spawn(relayed);
        }
        Ok(Self {
            _listening: listening,
        })
    }
}

async fn relay_each(
    listener: TcpListener,
    transport: Transport,
    limit: Duration,
    places: Arc<Semaphore>,
) {
    let mut relayed = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while relayed.try_join_next().is_some() {}
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!(%error, "a connection to the sandbox is not accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let transport = transport.clone();
        relayed.spawn(async move {
            if let Err(error) = relay(connection, &transport, limit).await {
                tracing::debug!(error = chain(&*error), "a connection to the guest ended");
            }
            drop(place);
        });
    }
}

async fn relay(
    connection: TcpStream,
    transport: &Transport,
    limit: Duration,
) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let connection = connection.into_std()?;
    // What is lost must not look like an end.
    set_socket_linger(&connection, Some(Duration::ZERO))?;
    let to = original_destination(&connection)?;
    // One to the listener itself would come back to it, and others are not the guest's loopback.
    if !to.ip().is_loopback() || to == connection.local_addr()? {
        return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    }
    let mut connection = TcpStream::from_std(connection)?;
    let relayed = Relayed::dial(transport, to, limit).await?;
    relayed.carry(&mut connection).await?;
    set_socket_linger(&connection, None)?;
    Ok(())
}
