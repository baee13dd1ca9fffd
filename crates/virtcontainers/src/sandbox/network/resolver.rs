//! Resolvers that live at a loopback address of a sandbox's namespace, such as docker's at
//! 127.0.0.11: the guest asks them all the same, at the same address.
//!
//! The guest chooses nothing but the bytes of a query. Which address is asked is the host's
//! knowledge, from the `resolv.conf` that it gives the containers, and the port is that of resolvers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::timeout;
use vc_agent_client::relay::{GuestQueries, QueryTransport};
use vc_network::{Namespace, datagrams_inside, dial_inside};

use super::super::handle::SandboxHandle;
use crate::container::{ContainerConfig, saved};
use crate::error::{Error, Result, chain};
use crate::runtime::blocking;

/// Where programs look for their resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Bytes of it that are read.
const RESOLV_CONF_BYTES_MAX: u64 = 64 << 10;

/// Resolvers of one sandbox that are relayed: programs use no more.
const RESOLVERS_MAX: usize = 3;

/// The port of resolvers, RFC 1035.
const DNS: u16 = 53;

/// Bytes of the largest answer in a datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// How long a resolver may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long it is waited for the word that no resolver is there.
const REFUSAL_LIMIT: Duration = Duration::from_millis(200);

/// A query for the name servers of the root, which every resolver answers somehow.
const QUERY: [u8; 17] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// The resolvers that a guest asks by way of this process. Dropping it ends that.
pub(super) struct Resolvers {
    sandbox: SandboxHandle,
    namespace: Arc<Namespace>,
    relayed: BTreeMap<IpAddr, JoinSet<()>>,
}

impl Resolvers {
    pub(super) fn new(sandbox: SandboxHandle, namespace: Arc<Namespace>) -> Self {
        Self {
            sandbox,
            namespace,
            relayed: BTreeMap::new(),
        }
    }

    /// Relays what the containers' `resolv.conf` names and is there. What cannot be is a warning: the
    /// sandbox is whole without.
    pub(super) async fn update(&mut self) {
        let named = match self.named().await {
            Ok(named) => named,
            Err(error) => {
                tracing::warn!(error = chain(&error), "its resolvers are not known");
                return;
            }
        };
        // Those whose connection has broken are tried again.
        self.relayed
            .retain(|_, relayed| relayed.try_join_next().is_none());
        for resolver in named {
            if self.relayed.len() == RESOLVERS_MAX {
                break;
            }
            if !self.relayed.contains_key(&resolver)
                && let Err(error) = self.relay(resolver).await
            {
                tracing::warn!(%resolver, error = chain(&error), "the guest does not reach it");
            }
        }
    }

    async fn named(&self) -> Result<BTreeSet<IpAddr>> {
        let containers: Vec<_> = self.sandbox.status()?.containers.into_keys().collect();
        let directory = self.sandbox.0.directory.clone();
        blocking(move || {
            let mut named = BTreeSet::new();
            for container in &containers {
                named.extend(resolvers_of(&saved::load(directory.path(), container)?));
            }
            Ok(named)
        })
        .await
    }

    async fn relay(&mut self, resolver: IpAddr) -> Result<()> {
        let address = SocketAddr::new(resolver, DNS);
        if !is_there(&self.namespace, address).await? {
            return Ok(());
        }
        let guest = &self.sandbox.0.guest;
        let queries = GuestQueries::take(&guest.transport, resolver, guest.attach_limit).await?;
        let namespace = Arc::clone(&self.namespace);
        let mut relayed = JoinSet::new();
        relayed.spawn(async move {
            let answered = queries
                .answer(|transport, query| ask(Arc::clone(&namespace), address, transport, query));
            if let Err(error) = answered.await {
                tracing::debug!(%address, error = chain(&error), "a resolver is relayed no more");
            }
        });
        self.relayed.insert(resolver, relayed);
        Ok(())
    }
}

/// The resolvers at loopback addresses that a container is told of.
fn resolvers_of(container: &ContainerConfig) -> Vec<IpAddr> {
    let path = Path::new(RESOLV_CONF);
    let mut files = container.files.iter();
    let mut volumes = container.volumes.iter();
    let text = if let Some(file) = files.find(|file| file.destination == path) {
        String::from_utf8_lossy(&file.contents).into_owned()
    } else if let Some(volume) = volumes.find(|volume| volume.destination == path) {
        // A file that is not there names nobody.
        read_bounded(&volume.source).unwrap_or_default()
    } else {
        return Vec::new();
    };
    loopback_resolvers(&text)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(RESOLV_CONF_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// See resolv.conf(5).
fn loopback_resolvers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    named.filter(IpAddr::is_loopback).collect()
}

/// Whether anybody takes queries there: a program of the guest may be the one that is meant.
async fn is_there(namespace: &Arc<Namespace>, resolver: SocketAddr) -> Result<bool> {
    let namespace = Arc::clone(namespace);
    let socket = blocking(move || Ok(datagrams_inside(&namespace, resolver)?)).await?;
    let asked = async {
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        socket.send(&QUERY).await?;
        socket.recv(&mut [0; 1]).await
    };
    match timeout(REFUSAL_LIMIT, asked).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Ok(Err(source)) => Err(Error::System {
            attempt: format!("ask the resolver at {resolver}"),
            source,
        }),
        Ok(Ok(_)) | Err(_) => Ok(true),
    }
}

async fn ask(
    namespace: Arc<Namespace>,
    resolver: SocketAddr,
    transport: QueryTransport,
    query: Vec<u8>,
) -> Option<Vec<u8>> {
    let asked = async {
        match transport {
            QueryTransport::Udp => {
                let socket = blocking(move || Ok(datagrams_inside(&namespace, resolver)?)).await?;
                by_datagram(socket, &query).await
            }
            QueryTransport::Tcp => {
                let stream =
                    blocking(move || Ok(dial_inside(&namespace, resolver, ANSWER_LIMIT)?)).await?;
                by_connection(stream, &query).await
            }
        }
        .map_err(|source| Error::System {
            attempt: format!("ask the resolver at {resolver}"),
            source,
        })
    };
    match timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "a query has no answer");
            None
        }
        Err(_) => None,
    }
}

async fn by_datagram(socket: UdpSocket, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    socket.send(query).await?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    let bytes = socket.recv(&mut answer).await?;
    answer.truncate(bytes);
    Ok(answer)
}

/// A message on a connection comes after its length, RFC 1035 4.2.2.
async fn by_connection(stream: std::net::TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let message = [&length.to_be_bytes()[..], query].concat();
    stream.write_all(&message).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resolvers_of_the_namespace_itself_are_relayed() {
        let text = "# nameserver 127.0.0.1\nsearch x\nnameserver 8.8.8.8\n nameserver\t127.0.0.11 \
                    # docker\nnameserver ::1\nnameserver nobody\nnameserver\noptions ndots:0\n";
        let found = loopback_resolvers(text);
        assert_eq!(
            found,
            ["127.0.0.11", "::1"].map(|text| text.parse::<IpAddr>().unwrap())
        );
    }
}
