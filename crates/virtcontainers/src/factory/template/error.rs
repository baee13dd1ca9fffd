use std::io;
use std::path::PathBuf;

use vc_types::ByteSize;

/// What the functions of templates return.
pub type TemplateResult<T> = Result<T, TemplateError>;

/// Why a template could not be made, found or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// Something of the host did not work.
    #[error("cannot {attempt}")]
    System {
        /// What was tried.
        attempt: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory is open to others, who could change what VMs go on from.
    #[error("{path} is not a directory that only its owner can use")]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// There is no room for a template.
    #[error("there is no room for a template: {wanted} are needed, and {what} {room}")]
    NoRoom {
        /// What a template may need.
        wanted: ByteSize,
        /// What bounds it.
        what: &'static str,
        /// That bound.
        room: ByteSize,
    },
    /// A test asked for a failure at this point.
    #[error("fault point {point}")]
    Fault {
        /// The point.
        point: &'static str,
    },
    /// The scratch disk could not be formatted or copied.
    #[error(transparent)]
    Scratch(#[from] vc_storage::Error),
    /// The driver could not make it.
    #[error(transparent)]
    Driver(#[from] vc_hypervisor::Error),
    /// The host does not say how much memory it has.
    #[error(transparent)]
    Host(#[from] vc_config::Error),
}

impl TemplateError {
    /// Whether a file is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Names what was tried.
pub(super) trait Attempt<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> TemplateResult<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> TemplateResult<T> {
        self.map_err(|source| TemplateError::System {
            attempt: attempt(),
            source: source.into(),
        })
    }
}
