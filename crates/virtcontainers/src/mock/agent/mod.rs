//! The agent of a played guest, at the Unix socket at which a VMM would serve its vsock.

mod guest;
mod process;
mod service;
mod streams;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use vc_hypervisor::{Vm, VmEnd};
use vc_types::{Timeline, guest as ports};

pub(super) use guest::Guest;

use super::calls::Call;
use super::script::GuestScript;

/// Bytes of `CONNECT`, a space, a port and the line's end.
const REQUEST_BYTES_MAX: usize = 19;

/// Bytes on the way between a connection and the server of the calls.
const CALL_BUFFER_BYTES: usize = 16 << 10;

/// Connections that wait for the server of the calls.
const CONNECTIONS_WAITING_MAX: usize = 64;

/// How long to wait when the process is out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// Plays an agent at `socket` until the VM ends. With the VM, all of its connections break.
pub(super) fn play(socket: &Path, script: GuestScript, vm: Box<dyn Vm>) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    let guest = Arc::new(Guest::new(script.clone()));
    script.has(&guest);
    let ready = ready_path(socket);
    tokio::spawn(async move {
        let served = async {
            if let Err(error) = serve(listener, &ready, &guest).await {
                tracing::warn!(%error, "the played agent ends");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = vm.wait() => {}
            () = served => {}
        }
        guest.gone();
    });
    Ok(())
}

fn ready_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(format!("_{}", ports::READY_PORT));
    path.into()
}

async fn serve(listener: UnixListener, ready: &Path, guest: &Arc<Guest>) -> io::Result<()> {
    let (calls, connections) = mpsc::channel(CONNECTIONS_WAITING_MAX);
    let _server = service::serve(guest, connections).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(say_ready(ready.to_owned(), Arc::clone(guest)));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the played agent cannot accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        let (calls, guest) = (calls.clone(), Arc::clone(guest));
        tasks.spawn(async move {
            if let Err(error) = connect(stream, calls, guest).await {
                tracing::debug!(%error, "a connection to the played agent");
            }
        });
    }
}

/// Says to the host that the guest is ready, or ends it.
async fn say_ready(path: PathBuf, guest: Arc<Guest>) {
    let script = guest.script();
    let said = async {
        script
            .calls()
            .pass(Call::Ready)
            .await
            .map_err(io::Error::other)?;
        let mut host = UnixStream::connect(&path).await?;
        let uptime_us = guest.uptime_us();
        let line = format!("{{\"version\":\"mock\",\"uptime_us\":{uptime_us}}}\n");
        host.write_all(line.as_bytes()).await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "the played guest does not come up");
        script.machine().end(VmEnd::GuestPanicked);
    }
}

/// Serves one connection of the host, which first says to which port.
async fn connect(
    mut stream: UnixStream,
    calls: mpsc::Sender<DuplexStream>,
    guest: Arc<Guest>,
) -> io::Result<()> {
    let mut line = Vec::with_capacity(REQUEST_BYTES_MAX);
    // Byte by byte: what follows the line is the port's.
    while line.last() != Some(&b'\n') {
        if line.len() == REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&line);
    let port = line.trim().strip_prefix("CONNECT ").map(str::parse);
    match port {
        Some(Ok(ports::AGENT_PORT)) => {
            stream.write_all(b"OK 1\n").await?;
            // In between, so that the connection breaks with the machine, whatever is answered.
            let (mut ours, servers) = duplex(CALL_BUFFER_BYTES);
            calls.send(servers).await.map_err(io::Error::other)?;
            copy_bidirectional(&mut stream, &mut ours).await?;
            Ok(())
        }
        Some(Ok(ports::STREAM_PORT)) => {
            stream.write_all(b"OK 2\n").await?;
            streams::serve(stream, &guest).await
        }
        // Nobody listens there.
        _ => Ok(()),
    }
}

/// What the host's clock shows, for guests that have the same.
fn now_us() -> u64 {
    Timeline::now()
}
