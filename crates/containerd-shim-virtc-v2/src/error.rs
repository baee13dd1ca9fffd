use std::path::PathBuf;

use containerd_shim_protos::ttrpc::{self, Code};

/// What this program's functions return.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something that containerd asked for did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A command line that cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// A request that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// No such task, or no such process of it. The last words are those that clients look for.
    #[error("{what} does not exist: not found")]
    NotFound {
        /// Its name.
        what: String,
    },
    /// A task, or a process of it, of this name is there.
    #[error("{what} already exists")]
    Exists {
        /// Its name.
        what: String,
    },
    /// The process has ended. The words are those that clients look for.
    #[error("{what}: process already finished")]
    Finished {
        /// Its name.
        what: String,
    },
    /// It stands where this cannot be done.
    #[error("{what} is {state}, and cannot be {wanted}")]
    Precondition {
        /// Its name.
        what: String,
        /// Where it stands.
        state: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// Its program is not there, or cannot be executed.
    #[error("{what} cannot be executed: {reason}")]
    NotExecuted {
        /// Its name.
        what: String,
        /// What the guest says.
        reason: String,
    },
    /// The time that the client gave has passed.
    #[error("{what} was not done in the time that the client gave; it is undone")]
    TimedOut {
        /// What was asked for.
        what: String,
    },
    /// Something that is not there.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A file system that cannot be mounted or unmounted.
    #[error("cannot {attempt} {}", path.display())]
    Mount {
        /// `mount`, `unmount`, …
        attempt: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A standard stream that cannot be opened.
    #[error("cannot open the stream {uri}")]
    Stream {
        /// As containerd gave it.
        uri: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something of the system that should always work did not.
    #[error("cannot {attempt}")]
    System {
        /// What was tried, on which object.
        attempt: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A name that cannot be.
    #[error(transparent)]
    Types(#[from] vc_types::Error),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] vc_config::Error),
    /// The configuration, where something is to be removed all the same.
    #[error("what is wrong of the configuration is as if it was not set while this is cleaned up")]
    Cleaning {
        /// What is wrong.
        #[source]
        source: vc_config::Error,
    },
    /// The library.
    #[error(transparent)]
    Sandbox(#[from] virtcontainers::Error),
    /// The connection to containerd, or the socket that is served.
    #[error("ttrpc")]
    Ttrpc(#[from] ttrpc::Error),
    /// A message that cannot be understood.
    #[error("a message of containerd's")]
    Message(#[from] containerd_shim_protos::protobuf::Error),
}

impl Error {
    /// It and its causes in one line, as clients show it.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// The code by which containerd tells errors apart.
    fn code(&self) -> Code {
        match self {
            Self::Usage(_) | Self::Invalid(_) | Self::Types(_) | Self::Message(_) => {
                Code::INVALID_ARGUMENT
            }
            Self::NotFound { .. } | Self::Finished { .. } => Code::NOT_FOUND,
            Self::Exists { .. } => Code::ALREADY_EXISTS,
            Self::Precondition { .. } => Code::FAILED_PRECONDITION,
            Self::TimedOut { .. } => Code::DEADLINE_EXCEEDED,
            Self::Unsupported(_) => Code::UNIMPLEMENTED,
            Self::Config(_) | Self::Cleaning { .. } => Code::INVALID_ARGUMENT,
            Self::Sandbox(error) => code(error),
            Self::NotExecuted { .. }
            | Self::Mount { .. }
            | Self::Stream { .. }
            | Self::System { .. }
            | Self::Ttrpc(_) => Code::UNKNOWN,
        }
    }
}

fn code(error: &virtcontainers::Error) -> Code {
    use virtcontainers::Error as E;
    match error {
        error if error.is_not_found() => Code::NOT_FOUND,
        error if error.is_existing() => Code::ALREADY_EXISTS,
        E::Start { source, .. } => code(source),
        E::NotRunning { .. }
        | E::ContainerEnded { .. }
        | E::ContainerCreating { .. }
        | E::ContainerRunning { .. }
        | E::Running { .. }
        | E::Ended { .. }
        | E::Types(vc_types::Error::InvalidTransition { .. }) => Code::FAILED_PRECONDITION,
        E::Types(_)
        | E::Bundle { .. }
        | E::Specification { .. }
        | E::Setting { .. }
        | E::Filter { .. } => Code::INVALID_ARGUMENT,
        E::Unsupported { .. } => Code::UNIMPLEMENTED,
        E::NotEnded { .. } => Code::DEADLINE_EXCEEDED,
        E::Memory { .. } | E::Processors { .. } => Code::RESOURCE_EXHAUSTED,
        _ => Code::UNKNOWN,
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        ttrpc::Error::RpcStatus(ttrpc::get_status(error.code(), error.chain()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_is_told_the_code_and_all_causes() {
        let told = |error: Error| match ttrpc::Error::from(error) {
            ttrpc::Error::RpcStatus(status) => {
                (status.code.enum_value_or_default(), status.message)
            }
            other => panic!("{other}"),
        };
        let missing = Error::NotFound {
            what: "task c1".into(),
        };
        assert_eq!(
            told(missing),
            (
                Code::NOT_FOUND,
                "task c1 does not exist: not found".to_owned()
            )
        );
        let container = "c1".parse().unwrap();
        let ended = virtcontainers::Error::ContainerEnded { container };
        assert_eq!(told(ended.into()).0, Code::FAILED_PRECONDITION);
        let source = std::io::Error::from_raw_os_error(2);
        let (code, text) = told(Error::Stream {
            uri: "/f".into(),
            source,
        });
        assert_eq!(code, Code::UNKNOWN);
        assert!(
            text.starts_with("cannot open the stream /f: No such file"),
            "{text}"
        );
    }
}
