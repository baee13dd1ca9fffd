//! Leases: processes of the guest that end with the process on the host that stands for them.
//!
//! The keeper listens in the sandbox's directory. Whoever stands for a process of the guest
//! connects, says which, and keeps the connection as long as it lives; when the connection ends
//! before the process of the guest has, the keeper kills that. Only root reaches the socket.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vc_agent_client::Code;
use vc_types::{ContainerId, ExecId, Signal, SocketPath};

use super::handle::SandboxHandle;
use crate::error::{Error, Result};

const SOCKET: &str = "lease.sock";

/// Leases at once. A pod has some tens of processes.
const LEASES_MAX: usize = 4096;

/// Says that the process is made.
const MADE: &[u8] = b"+";

/// Bytes of what a lease says: two ids.
const LEASE_BYTES_MAX: u64 = 1024;

/// How long saying it may take.
const LEASE_SAID_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks whether a process is made that nobody leases any more.
const MADE_RETRY: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize, Deserialize)]
struct Leased {
    container: ContainerId,
    exec: Option<ExecId>,
}

/// The life of a process of the guest, bound to this value and to the process that has it.
#[derive(Debug)]
pub struct Lease {
    connection: UnixStream,
}

impl Lease {
    /// Binds a container's first process, or one that is about to be added: [`Lease::made`]
    /// follows then.
    pub(super) fn take(
        sandbox: &Path,
        container: &ContainerId,
        exec: Option<&ExecId>,
    ) -> Result<Self> {
        let path = sandbox.join(SOCKET);
        let take = || -> std::io::Result<UnixStream> {
            let mut text = serde_json::to_vec(&Leased {
                container: container.clone(),
                exec: exec.cloned(),
            })
            .map_err(std::io::Error::other)?;
            text.push(b'\n');
            let short = SocketPath::new(&path)?;
            let mut connection = UnixStream::connect(short.as_path())?;
            connection.write_all(&text)?;
            Ok(connection)
        };
        take()
            .map(|connection| Self { connection })
            .map_err(|source| Error::System {
                attempt: format!("bind the life of a process at {}", path.display()),
                source,
            })
    }

    /// Says that the process is made: from now on, one that the guest does not know has ended.
    pub(super) fn made(&mut self) -> Result<()> {
        self.connection
            .write_all(MADE)
            .map_err(|source| Error::System {
                attempt: "tell the keeper that a process is made".into(),
                source,
            })
    }
}

/// The keeper's side, which ends with this.
#[derive(Debug)]
pub(super) struct Leases {
    path: PathBuf,
    _tasks: JoinSet<()>,
}

impl Leases {
    /// Listens in the sandbox's directory.
    pub(super) fn serve(sandbox: SandboxHandle) -> Result<Self> {
        let path = sandbox.0.directory.path().join(SOCKET);
        // That of a keeper before this one, which was killed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(%error, "the socket of an earlier keeper stays");
            }
            _ => {}
        }
        let bound = SocketPath::new(&path).and_then(|short| UnixListener::bind(short.as_path()));
        let listener = bound.map_err(|source| Error::System {
            attempt: format!("listen at {}", path.display()),
            source,
        })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, sandbox));
        Ok(Self {
            path,
            _tasks: tasks,
        })
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // With the sandbox's directory it would go anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, sandbox: SandboxHandle) {
    let places = Arc::new(Semaphore::new(LEASES_MAX));
    let mut leases = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!(%error, "a lease cannot be accepted");
                // Out of descriptors: as good as none until one ends.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while leases.try_join_next().is_some() {}
        let sandbox = sandbox.clone();
        leases.spawn(async move {
            hold(connection, &sandbox).await;
            drop(place);
        });
    }
}

/// Waits for the end of the connection, and ends what was bound to it.
async fn hold(connection: tokio::net::UnixStream, sandbox: &SandboxHandle) {
    let mut connection = BufReader::new(connection.take(LEASE_BYTES_MAX));
    let mut text = String::new();
    let said = timeout(LEASE_SAID_LIMIT, connection.read_line(&mut text)).await;
    let leased: Leased = match said {
        Ok(Ok(_)) => match serde_json::from_str(&text) {
            Ok(leased) => leased,
            Err(error) => {
                tracing::warn!(%error, "a lease of nothing");
                return;
            }
        },
        _ => return,
    };
    let Leased { container, exec } = leased;
    let made = said_to_end(connection).await;
    let ended = match exec {
        None => end_container(sandbox, &container).await,
        Some(exec) => end_added(sandbox, &container, &exec, made).await,
    };
    if let Err(error) = ended {
        // Mostly it has ended, and that is why its stand-in did.
        tracing::debug!(%container, %error, "nothing to end");
    }
}

/// Waits for the end of the connection; says whether the process was made before.
async fn said_to_end(mut connection: BufReader<tokio::io::Take<tokio::net::UnixStream>>) -> bool {
    let made = connection.read_exact(&mut [0; MADE.len()]).await.is_ok();
    if made {
        // Whatever else is said ends it too.
        let _ = connection.read_u8().await;
    }
    made
}

/// Kills a process that was added. One that was still being made is waited for: the guest makes it
/// all the same.
pub(super) async fn end_added(
    sandbox: &SandboxHandle,
    container: &ContainerId,
    exec: &ExecId,
    made: bool,
) -> Result<()> {
    let guest = &sandbox.0.guest;
    let limit = sandbox.0.runtime.config.limits.agent_create_ms.duration();
    let end = Instant::now() + limit;
    loop {
        let killed = guest.signal(container, Some(exec), Signal::KILL).await;
        match killed {
            Err(Error::Agent(error))
                if !made && error.code() == Some(Code::NotFound) && Instant::now() < end =>
            {
                tokio::time::sleep(MADE_RETRY).await;
            }
            killed => return killed,
        }
    }
}

/// Kills a container and writes down its end: whoever waited for it is gone.
async fn end_container(sandbox: &SandboxHandle, container: &ContainerId) -> Result<()> {
    let guest = &sandbox.0.guest;
    guest.signal_all(container, Signal::KILL).await?;
    let limit = sandbox.0.runtime.config.limits.kill_container_ms.duration();
    let not_ended = || Error::NotEnded {
        container: container.clone(),
        limit,
    };
    let waited = timeout(limit, sandbox.wait_process(container)).await;
    waited.map_err(|_| not_ended())?.map(drop)
}
