use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use vc_types::{AgentAddress, SocketPath, guest};

use crate::error::{Error, Result};

/// Bytes of the agent's report. It is one short line.
const REPORT_BYTES_MAX: usize = 1024;

/// Calls that are listened to. One comes, and before it one for each time that the agent gave up
/// waiting for a busy host.
const REPORTS_MAX: usize = 1000;

/// How waiting for a guest's first sign is called, and its limit.
pub(crate) const WAIT_FOR_AGENT: &str = "wait for the agent";
pub(crate) const READY_LIMIT: &str = "agent_ready_ms";

/// What the agent says when it can serve.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// The agent's version.
    pub version: String,
    /// Microseconds since the guest's kernel began.
    pub uptime_us: u64,
}

/// Waits for the one call that the agent makes when it can serve, so that nobody polls.
#[derive(Debug)]
pub struct ReadyListener {
    listener: UnixListener,
    path: PathBuf,
}

impl ReadyListener {
    /// Listens where a guest at `address` will report. Make it before the VM starts.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] when the socket cannot be made.
    pub fn bind(address: &AgentAddress) -> Result<Self> {
        let AgentAddress::HybridVsock { socket } = address else {
            return Err(Error::Listen {
                path: PathBuf::from(format!("{address:?}")),
                source: io::ErrorKind::Unsupported.into(),
            });
        };
        let mut path = socket.clone().into_os_string();
        path.push(format!("_{}", guest::READY_PORT));
        let path = PathBuf::from(path);
        let bound = SocketPath::new(&path).and_then(|short| UnixListener::bind(short.as_path()));
        match bound {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(Error::Listen { path, source }),
        }
    }

    /// The socket, for whoever sets its owner.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Waits until the agent reports, `limit` at most. Calls that break off are passed over: a
    /// guest that got no answer in time calls again.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] after the limit, [`Error::BadReport`] when what came is no report.
    pub async fn wait(self, limit: Duration) -> Result<Ready> {
        let reported = async {
            let mut last = Error::BadReport {
                reason: "nothing came".into(),
            };
            for _ in 0..REPORTS_MAX {
                let (stream, _) = self
                    .listener
                    .accept()
                    .await
                    .map_err(|source| Error::Listen {
                        path: self.path.clone(),
                        source,
                    })?;
                match read_report(stream).await {
                    Ok(ready) => return Ok(ready),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        timeout(limit, reported)
            .await
            .map_err(|_| Error::TimedOut {
                call: WAIT_FOR_AGENT,
                limit: READY_LIMIT,
                after: limit,
            })?
    }
}

impl Drop for ReadyListener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

async fn read_report(stream: UnixStream) -> Result<Ready> {
    let bad = |reason: String| Error::BadReport { reason };
    let mut stream = stream.take(REPORT_BYTES_MAX as u64);
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut chunk = [0; 256];
        match stream.read(&mut chunk).await {
            Ok(0) => return Err(bad("it breaks off".into())),
            Ok(n) => line.extend_from_slice(&chunk[..n]),
            Err(error) => return Err(bad(error.to_string())),
        }
    }
    let mut ready: Ready = serde_json::from_slice(&line).map_err(|error| bad(error.to_string()))?;
    ready.version = vc_types::one_line(&ready.version);
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;

    fn listener() -> (tempfile::TempDir, ReadyListener) {
        let dir = tempfile::tempdir().unwrap();
        let address = AgentAddress::HybridVsock {
            socket: dir.path().join("v"),
        };
        let listener = ReadyListener::bind(&address).unwrap();
        (dir, listener)
    }

    #[tokio::test]
    async fn a_report_is_read_and_the_socket_is_removed() {
        let (dir, listener) = listener();
        let path = dir.path().join("v_1027");
        let mut agent = StdUnixStream::connect(&path).unwrap();
        agent
            .write_all(b"{\"version\":\"1\",\"uptime_us\":9}\n")
            .unwrap();
        let ready = listener.wait(Duration::from_secs(5)).await.unwrap();
        assert_eq!((ready.version.as_str(), ready.uptime_us), ("1", 9));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn calls_that_the_guest_gave_up_are_passed_over() {
        let (dir, listener) = listener();
        let path = dir.path().join("v_1027");
        for _ in 0..20 {
            StdUnixStream::connect(&path).unwrap();
        }
        let mut agent = StdUnixStream::connect(&path).unwrap();
        agent
            .write_all(b"{\"version\":\"1\",\"uptime_us\":9}\n")
            .unwrap();
        let ready = listener.wait(Duration::from_secs(5)).await.unwrap();
        assert_eq!(ready.uptime_us, 9);
    }

    #[tokio::test]
    async fn silence_ends_at_the_limit() {
        let (_dir, listener) = listener();
        let error = listener.wait(Duration::from_millis(10)).await.unwrap_err();
        assert!(matches!(
            error,
            Error::TimedOut {
                limit: "agent_ready_ms",
                ..
            }
        ));
    }

    #[tokio::test]
    async fn an_endless_report_is_cut() {
        let (dir, listener) = listener();
        let mut agent = StdUnixStream::connect(dir.path().join("v_1027")).unwrap();
        agent.write_all(&[b'x'; 4096]).unwrap();
        let (stream, _) = listener.listener.accept().await.unwrap();
        let error = read_report(stream).await.unwrap_err();
        assert!(matches!(error, Error::BadReport { .. }));
    }
}
