use std::io;
use std::path::{Path, PathBuf};

use vc_types::Hint;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Guest assets that cannot be opened, or cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no set of assets at this place.
    #[error("there are no guest assets in {dir}")]
    NoAssets {
        /// Where they were expected.
        dir: PathBuf,
        /// Why the manifest could not be read.
        #[source]
        source: io::Error,
    },
    /// A manifest that cannot be understood.
    #[error("the guest assets' manifest {path} is not valid: {reason}")]
    InvalidManifest {
        /// The manifest, or its name where it did not come from a file.
        path: PathBuf,
        /// The rule that it breaks.
        reason: String,
    },
    /// A file of the assets that is not what its manifest says.
    #[error(
        "guest asset {path} does not match its manifest: {what} is {found}, should be {expected}"
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// `size` or `digest`.
        what: &'static str,
        /// What the file has.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// A file or directory that could not be read, written or made.
    #[error("cannot {attempt} {path}")]
    Io {
        /// `read`, `write`, …
        attempt: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An input for the build that is not what it should be.
    #[error("{path} cannot be used as {role}: {reason}")]
    InvalidInput {
        /// The input.
        path: PathBuf,
        /// `a kernel`, `a kernel module`, …
        role: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A module that neither the package nor the kernel itself has.
    #[error("kernel {release} has no module {module}{}", needed_by.as_ref().map(|n| format!(" (needed by {n})")).unwrap_or_default())]
    NoModule {
        /// The module.
        module: String,
        /// The module that depends on it, if it is not the module list that names it.
        needed_by: Option<String>,
        /// The kernel.
        release: String,
    },
    /// Modules that need each other.
    #[error("module {module} depends on itself by way of {by}")]
    DependencyCycle {
        /// The module.
        module: String,
        /// The module that leads back to it.
        by: String,
    },
    /// A module that is listed as needing nothing of `boot`, and does.
    #[error("module {module} is needed by `boot` and by what is loaded beside it: list that later")]
    NotBeside {
        /// The module that both need.
        module: String,
    },
    /// A program of the distribution that failed.
    #[error("`{program}` failed on {path}: {reason}")]
    Program {
        /// The program.
        program: &'static str,
        /// What it worked on.
        path: PathBuf,
        /// Its exit status and what it printed.
        reason: String,
    },
    /// An initrd above its limit.
    #[error("the initrd has {size} bytes, the limit is {limit}")]
    InitrdTooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },

    /// The archive of modules is larger than a start should have to copy.
    #[error("the archive of modules has {size} bytes, and {limit} is the limit")]
    ArchiveTooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

impl Error {
    pub(crate) fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            attempt,
            path,
            source,
        }
    }

    #[cfg(feature = "build")]
    pub(crate) fn input(path: &Path, role: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidInput {
            path: path.to_path_buf(),
            role,
            reason: reason.into(),
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoAssets { .. } => Some("run `make guest` to build them".into()),
            Self::Mismatch { path, .. } | Self::InvalidManifest { path, .. } => {
                let dir = path.parent().unwrap_or(path).display();
                Some(format!(
                    "remove {dir} and run `make guest` to build them again"
                ))
            }
            Self::NoModule { .. } => {
                Some("take the name out of the module list, or mark it optional there".into())
            }
            Self::ArchiveTooLarge { .. } => {
                Some("take options out of guest/kernel/modules.config".into())
            }
            _ => None,
        }
    }
}
