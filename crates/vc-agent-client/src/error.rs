use std::io;
use std::path::PathBuf;
use std::time::Duration;

use vc_types::Hint;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the agent could not be reached, or what it answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection to a port of the guest.
    #[error("cannot connect to port {port} of the guest")]
    Connect {
        /// The port in the guest.
        port: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The device process took the connection but the guest did not.
    #[error("the guest refused a connection to its port {port}")]
    Refused {
        /// The port in the guest.
        port: u32,
    },
    /// The socket on which the guest reports could not be made.
    #[error("cannot listen for the guest on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The guest's report that it is ready makes no sense.
    #[error("the guest's report that it is ready cannot be understood: {reason}")]
    BadReport {
        /// What is wrong with it.
        reason: String,
    },
    /// A limit passed.
    #[error("{call}: no answer within {} ms (limit {limit})", after.as_millis())]
    TimedOut {
        /// What was asked.
        call: &'static str,
        /// The limit's name in the configuration.
        limit: &'static str,
        /// Its value.
        after: Duration,
    },
    /// The agent answered with an error.
    #[error("{call}: {message}")]
    Agent {
        /// What was asked.
        call: &'static str,
        /// The kind of error.
        code: Code,
        /// The agent's words, cleaned and bounded.
        message: String,
    },
    /// What is to be asked does not fit into a call.
    #[error("{call}: {reason}")]
    BadRequest {
        /// What was to be asked.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent's answer makes no sense.
    #[error("{call}: the agent's answer makes no sense: {reason}")]
    BadAnswer {
        /// What was asked.
        call: &'static str,
        /// What is wrong with it, cleaned and bounded.
        reason: String,
    },
    /// The connection to the agent broke.
    #[error("{call}: the connection to the agent broke")]
    Broken {
        /// What was asked.
        call: &'static str,
        /// Why.
        #[source]
        source: ttrpc::Error,
    },
    /// The guest has nobody who takes a connection.
    #[error("the guest refused to {request}: {reason}")]
    RelayRefused {
        /// What was asked.
        request: String,
        /// The agent's words, cleaned and bounded.
        reason: String,
    },
    /// A standard stream broke off before its end.
    #[error("stream {stream} broke off")]
    Stream {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The other end of a stream sent what the framing does not allow.
    #[error("stream {stream}: {reason}")]
    BadFrame {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// What was wrong.
        reason: String,
    },
}

/// The kinds of error that an agent answers with, from gRPC's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// The object does not exist.
    NotFound,
    /// The object exists.
    AlreadyExists,
    /// The request makes no sense.
    InvalidArgument,
    /// The object is not in the state for this.
    FailedPrecondition,
    /// This agent does not have this call.
    Unimplemented,
    /// Something else failed.
    Internal,
}

impl Error {
    /// Whether it came because nobody is there any more.
    pub fn is_broken(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Refused { .. } | Self::Broken { .. } | Self::Stream { .. }
        )
    }

    pub(crate) fn from_ttrpc(
        call: &'static str,
        limit: &'static str,
        after: Duration,
    ) -> impl Fn(ttrpc::Error) -> Self {
        move |source| match source {
            ttrpc::Error::RpcStatus(status) => {
                let code = match status.code() {
                    ttrpc::Code::NOT_FOUND => Code::NotFound,
                    ttrpc::Code::ALREADY_EXISTS => Code::AlreadyExists,
                    ttrpc::Code::INVALID_ARGUMENT => Code::InvalidArgument,
                    ttrpc::Code::FAILED_PRECONDITION => Code::FailedPrecondition,
                    ttrpc::Code::UNIMPLEMENTED => Code::Unimplemented,
                    ttrpc::Code::DEADLINE_EXCEEDED => return Self::TimedOut { call, limit, after },
                    _ => Code::Internal,
                };
                Self::Agent {
                    call,
                    code,
                    message: vc_types::one_line(status.message()),
                }
            }
            source => Self::Broken { call, source },
        }
    }

    /// The kind of the agent's answer, where it was an answer.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Agent { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TimedOut { limit, .. } => Some(format!(
                "raise `limits.{limit}` in the configuration if this host is slow"
            )),
            _ => None,
        }
    }
}
