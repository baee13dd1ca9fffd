use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::error::{Error, Result};

/// A file or directory of the host that is to be shared.
///
/// It is resolved once, here: links on the way to it are followed on the host, and what the path
/// names later does not matter.
///
/// ```
/// use vc_storage::{Source, SourceKind};
///
/// let source = Source::open("/usr".as_ref())?;
/// assert_eq!(source.kind(), SourceKind::Directory);
/// assert!(Source::open("/no/such/directory".as_ref()).is_err());
/// # Ok::<(), vc_storage::Error>(())
/// ```
#[derive(Debug)]
pub struct Source {
    fd: OwnedFd,
    kind: SourceKind,
    path: PathBuf,
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

impl Source {
    /// Opens what `path` names now.
    ///
    /// # Errors
    ///
    /// [`Error::Source`] when it does not exist or cannot be reached, it is never created;
    /// [`Error::SourceKind`] when it is a device, a socket or a pipe.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source: io::Error| Error::Source {
            path: path.into(),
            source,
        };
        let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        let mode = fstat(&fd).map_err(|errno| failed(errno.into()))?.st_mode;
        let kind = match FileType::from_raw_mode(mode) {
            FileType::RegularFile => SourceKind::File,
            FileType::Directory => SourceKind::Directory,
            _ => return Err(Error::SourceKind { path: path.into() }),
        };
        let path =
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(failed)?;
        Ok(Self { fd, kind, path })
    }

    /// What it is.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Where it is on the host, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_once() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::fs::write(directory.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let source = Source::open(&link).unwrap();
        assert_eq!(source.kind(), SourceKind::File);
        assert_eq!(source.path().file_name().unwrap(), "file");
    }

    #[test]
    fn a_missing_source_is_an_error_and_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert!(matches!(Source::open(&missing), Err(Error::Source { .. })));
        assert!(!missing.exists());
    }

    #[test]
    fn devices_are_no_sources() {
        let error = Source::open("/dev/null".as_ref()).unwrap_err();
        assert!(matches!(error, Error::SourceKind { .. }));
    }
}
