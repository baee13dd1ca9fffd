use std::io;
use std::path::{Path, PathBuf};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a tree could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused something about a file.
    #[error("cannot {attempt} {path:?}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be copied, or cannot be copied to.
    #[error("{path:?} {reason}")]
    Unsuitable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// An entry of the archive is refused.
    #[error("the archive's entry {name:?} {reason}")]
    Entry {
        /// Its name, as the archive has it.
        name: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The archive is none.
    #[error("this is no complete tar archive: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive could not be read or written.
    #[error("cannot {attempt} the archive")]
    Stream {
        /// What was tried.
        attempt: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// "what failed: cause: cause", on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    }
}

/// Says what was tried with which file.
pub(crate) trait Attempt<T> {
    fn attempt(self, attempt: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, attempt: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File {
            attempt,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}
