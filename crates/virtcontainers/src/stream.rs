//! The standard streams of a process, see [`crate::SandboxHandle::take_streams`].

use std::time::Duration;

pub use agent_protocol::frame::Stream;
pub use vc_agent_client::Error;
use vc_agent_client::Transport;
pub use vc_agent_client::stream::{CopyEnd, GuestWait, HangUp, Incoming, Outgoing, Sent};
use vc_types::{ContainerId, ExecId};

/// Waits until a process is made and its streams are attached. Why it was not made says more than
/// that nobody could attach to it.
pub(crate) async fn made_and_attached<T>(
    made: impl Future<Output = crate::Result<()>>,
    attached: impl Future<Output = crate::Result<T>>,
) -> crate::Result<T> {
    tokio::pin!(made, attached);
    tokio::select! {
        biased;
        made = &mut made => {
            made?;
            attached.await
        }
        attached = &mut attached => {
            made.await?;
            attached
        }
    }
}

/// The streams of one process.
#[derive(Debug)]
pub struct Streams {
    /// To the process.
    pub stdin: Outgoing,
    /// From it; all its output when it has a terminal.
    pub stdout: Incoming,
    /// From it, unless it has a terminal.
    pub stderr: Option<Incoming>,
}

impl Streams {
    /// Attaches to a container's first process or to one that is added; it may be made at the
    /// same time.
    pub(crate) async fn attach(
        transport: &Transport,
        limit: Duration,
        container: &ContainerId,
        exec: Option<&ExecId>,
        terminal: bool,
    ) -> Result<Self, Error> {
        let output = |stream| Incoming::attach(transport, limit, container, exec, stream);
        let stderr = async {
            match terminal {
                true => Ok(None),
                false => output(Stream::Stderr).await.map(Some),
            }
        };
        let (stdin, stdout, stderr) = tokio::try_join!(
            Outgoing::attach(transport, limit, container, exec),
            output(Stream::Stdout),
            stderr,
        )?;
        Ok(Self {
            stdin,
            stdout,
            stderr,
        })
    }
}
