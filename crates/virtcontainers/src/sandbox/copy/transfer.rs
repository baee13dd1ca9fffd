//! The bytes of a copy, between a process of the guest and the host.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use agent_protocol::virtc::{PackPathRequest, UnpackPathRequest};
use vc_agent_client::stream::{GuestWait, Incoming};
use vc_types::ContainerId;

use crate::error::{Error, Result};
use crate::runtime::blocking;
use crate::sandbox::handle::SandboxHandle;
use crate::sandbox::lease::Lease;
use crate::sandbox::process::{Process, ProcessExit};
use crate::stream::Streams;

/// Bytes of the guest's reason that are kept.
const REASON_BYTES_MAX: usize = 4096;

/// Lets the guest pack, and writes what comes to `sink`. The inner error is that of `sink`.
pub(super) async fn out(
    sandbox: &SandboxHandle,
    container: &ContainerId,
    mut request: PackPathRequest,
    sink: impl Write + Send + 'static,
) -> Result<io::Result<()>> {
    let path = request.path.clone();
    let (process, streams, _lease) = begin(sandbox, container, async |exec| {
        request.container_id = container.to_string();
        request.exec_id = exec;
        sandbox.0.guest.agent.pack_path(request).await
    })
    .await?;
    // Nothing is read there.
    drop(streams.stdin);
    let copied = blocking(move || {
        let mut sink = Remembering {
            inner: sink,
            error: None,
        };
        streams.stdout.copy_to(&mut sink, &GuestWait::default())?;
        Ok(sink.error)
    });
    let reason = reason(streams.stderr);
    let (exit, copied, reason) = tokio::join!(process.wait(), copied, reason);
    let exit = exit?;
    if let Ok(Some(error)) = copied {
        return Ok(Err(error));
    }
    check(exit, "from", container, path, reason)?;
    copied.map(|_| Ok(()))
}

/// Lets the guest unpack what `archive` gives.
pub(super) async fn into(
    sandbox: &SandboxHandle,
    container: &ContainerId,
    mut request: UnpackPathRequest,
    archive: impl Read + Send + 'static,
) -> Result<()> {
    let path = request.path.clone();
    let (process, streams, _lease) = begin(sandbox, container, async |exec| {
        request.container_id = container.to_string();
        request.exec_id = exec;
        sandbox.0.guest.agent.unpack_path(request).await
    })
    .await?;
    // Nothing is written there.
    drop(streams.stdout);
    let failed = Arc::new(Mutex::new(None));
    let mut archive = Watched {
        inner: archive,
        failed: Arc::clone(&failed),
    };
    // Not waited for when the process has ended: whoever gives the archive may wait for ever.
    let _sending = tokio::task::spawn_blocking(move || {
        if let Err(error) = streams.stdin.copy_from(&mut archive) {
            tracing::debug!(%error, "the guest's process takes no more");
        }
    });
    let (exit, reason) = tokio::join!(process.wait(), reason(streams.stderr));
    let exit = exit?;
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed {
        Some(source) => Err(Error::System {
            attempt: "read the archive".into(),
            source,
        }),
        None => check(exit, "to", container, path, reason),
    }
}

/// Adds the process that copies. It is ended with this process.
async fn begin(
    sandbox: &SandboxHandle,
    container: &ContainerId,
    make: impl AsyncFnOnce(String) -> vc_agent_client::Result<()>,
) -> Result<(Process, Streams, Lease)> {
    sandbox.not_ended(container)?;
    let exec = sandbox.new_exec_id()?;
    let mut lease = Lease::take(sandbox.0.directory.path(), container, Some(&exec))?;
    let made = make(exec.to_string());
    let guest = &sandbox.0.guest;
    let streams = guest.enter_made(container, &exec, false, made).await?;
    lease.made()?;
    let process = Process {
        sandbox: sandbox.clone(),
        container: container.clone(),
        exec: Some(exec),
        streams: None,
    };
    Ok((process, streams, lease))
}

fn check(
    exit: ProcessExit,
    direction: &'static str,
    container: &ContainerId,
    path: String,
    reason: Result<String>,
) -> Result<()> {
    if exit.status.is_success() {
        return Ok(());
    }
    let reason = exit.start_error.unwrap_or(reason.unwrap_or_default());
    Err(Error::Copy {
        direction,
        container: container.clone(),
        path,
        reason: match reason.is_empty() {
            true => format!("its process ended with {}", exit.status.shell_code()),
            false => reason,
        },
    })
}

/// What the process says on its stderr, as a person may see it.
async fn reason(stderr: Option<Incoming>) -> Result<String> {
    let Some(stderr) = stderr else {
        return Ok(String::new());
    };
    blocking(move || {
        let mut beginning = Beginning(Vec::new());
        stderr.copy_to(&mut beginning, &GuestWait::default())?;
        Ok(vc_types::one_line(&String::from_utf8_lossy(&beginning.0)))
    })
    .await
}

/// Keeps the first bytes, and throws away the rest.
struct Beginning(Vec<u8>);

impl Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = REASON_BYTES_MAX - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink whose error is kept: a stream only knows that its reader is gone.
struct Remembering<W> {
    inner: W,
    error: Option<io::Error>,
}

impl<W: Write> Write for Remembering<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.inner.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return self.keep(written),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.keep(flushed)
    }
}

impl<W> Remembering<W> {
    fn keep<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|error| {
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        })
    }
}

/// A source whose error is kept: for a stream, it is only its end.
struct Watched<R> {
    inner: R,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(kind.into());
                }
                read => return read,
            }
        }
    }
}
