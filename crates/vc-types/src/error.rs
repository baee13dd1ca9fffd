use std::path::PathBuf;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A value that cannot be what it was meant to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An id with a character, a length or a form that is not allowed.
    #[error("{kind} id {value:?} is not valid: {reason}")]
    InvalidId {
        /// `sandbox`, `container` or `exec`.
        kind: &'static str,
        /// What was given.
        value: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A size that is not a number with an optional unit.
    #[error("size {value:?} is not valid: {reason}")]
    InvalidSize {
        /// What was given.
        value: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A signal that is neither a name nor a number that Linux has.
    #[error("signal {value:?} is not known")]
    InvalidSignal {
        /// What was given.
        value: String,
    },
    /// What is no place of a device on PCI.
    #[error("{text:?} is no address of a PCI device, such as 0000:03:00.0")]
    InvalidPciAddress {
        /// What was given, cleaned and bounded.
        text: String,
    },
    /// A change of state that the table does not have.
    #[error("a {kind} that is {from} cannot become {to}")]
    InvalidTransition {
        /// `sandbox` or `container`.
        kind: &'static str,
        /// The state it is in.
        from: &'static str,
        /// The state it was to take.
        to: &'static str,
    },
    /// A process that must never be signalled or watched.
    #[error("process id {pid} cannot stand for one process")]
    InvalidPid {
        /// What was given.
        pid: i32,
    },
    /// A file under `/proc` that could not be read or understood.
    #[error("cannot read {path}")]
    Proc {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Advice for the person who reads an error: what to do about it.
///
/// The library knows best which error has which cure; the command line prints it after the causes.
pub trait Hint {
    /// One sentence that says what to do, or nothing where there is nothing to say.
    fn hint(&self) -> Option<String>;
}
