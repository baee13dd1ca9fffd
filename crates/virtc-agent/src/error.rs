//! What can go wrong in the guest, and the status that the host gets for it.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use agent_protocol::limits::GUEST_TEXT_BYTES_MAX;
use agent_protocol::text_prefix;
use ttrpc::Code;

/// The result of the agent's functions.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A call that failed, or a step of the agent's own start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("cannot {attempt}")]
    Io { attempt: String, source: io::Error },

    #[error("container {0:?} does not exist")]
    NoContainer(String),

    #[error("network interface {0} does not exist")]
    NoInterface(String),

    #[error(
        "container {container:?} cannot join the {kind} namespace of container {other:?}, which \
         {reason}"
    )]
    Join {
        container: String,
        kind: String,
        other: String,
        reason: &'static str,
    },

    #[error("process {exec:?} of container {container:?} does not exist")]
    NoProcess { container: String, exec: String },

    #[error("{0} already exists")]
    Exists(String),

    #[error("{field} {value:?} {reason}")]
    Invalid {
        field: &'static str,
        value: String,
        reason: &'static str,
    },

    #[error("{object} is {state}")]
    State { object: String, state: &'static str },

    /// The words are those that other runtimes use: their callers look for them.
    #[error("{0}: process already finished")]
    Finished(String),

    /// As [`Error::Finished`].
    #[error("container {0:?}: container not running")]
    NotRunning(String),

    #[error("{what} took longer than {limit:?}")]
    Timeout { what: String, limit: Duration },

    #[error("cannot make container process {process}: {cause}")]
    Launch { process: String, cause: String },

    #[error("cannot start container {container:?}: {text}")]
    Hook { container: String, text: String },

    #[error("{0}")]
    Unsupported(String),

    #[error("cannot use the container's specification")]
    Specification(#[from] agent_protocol::Error),

    #[error("cannot {attempt}")]
    Cgroup {
        attempt: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    #[error("cannot {attempt}")]
    Root {
        attempt: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    #[error("cannot {attempt}")]
    Json {
        attempt: String,
        source: serde_json::Error,
    },

    #[error("cannot compile the filter of system calls")]
    Seccomp { source: syscall_filter::Error },

    #[error("cannot serve the agent's calls")]
    Ttrpc(#[from] ttrpc::Error),
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Error::NoContainer(_) | Error::NoProcess { .. } | Error::NoInterface(_) => {
                Code::NOT_FOUND
            }
            Error::Exists(_) => Code::ALREADY_EXISTS,
            Error::Invalid { .. } | Error::Specification(_) => Code::INVALID_ARGUMENT,
            Error::State { .. }
            | Error::Finished(_)
            | Error::NotRunning(_)
            | Error::Join { .. } => Code::FAILED_PRECONDITION,
            Error::Unsupported(_) => Code::UNIMPLEMENTED,
            Error::Seccomp { source } => match source {
                syscall_filter::Error::Notify => Code::UNIMPLEMENTED,
                syscall_filter::Error::ErrnoOutOfRange { .. }
                | syscall_filter::Error::BadProgram { .. } => Code::INVALID_ARGUMENT,
                _ => Code::INTERNAL,
            },
            _ => Code::INTERNAL,
        }
    }

    /// "what failed: cause: cause", bounded.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        text_prefix(&text, GUEST_TEXT_BYTES_MAX).to_owned()
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        ttrpc::Error::RpcStatus(ttrpc::get_status(error.code(), error.chain()))
    }
}

/// Says what was tried when a system call fails.
pub(crate) trait Attempt<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io {
            attempt: attempt(),
            source: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_gets_the_whole_chain_and_the_right_code() {
        let error = Err::<(), _>(rustix::io::Errno::NOENT)
            .attempt(|| "open \"/x\"".into())
            .unwrap_err();
        assert_eq!(
            error.chain(),
            "cannot open \"/x\": No such file or directory (os error 2)"
        );
        assert_eq!(error.code(), Code::INTERNAL);
        assert_eq!(Error::NoContainer("c".into()).code(), Code::NOT_FOUND);
    }

    #[test]
    fn a_text_without_end_is_cut() {
        let error = Error::Exists("ä".repeat(GUEST_TEXT_BYTES_MAX));
        assert!(error.chain().len() <= GUEST_TEXT_BYTES_MAX);
    }
}
