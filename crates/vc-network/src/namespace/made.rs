use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde::{Deserialize, Serialize};

use super::open::{Namespace, on_own_thread};
use crate::error::{Error, Result, invalid, io};
use crate::link;

/// The namespace of the calling thread, not of its process.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A network namespace that was made here: a file, at which the namespace is mounted and so kept.
///
/// It holds nothing open, and is not deleted when it is dropped: it is written into a state, and
/// deleted by whoever reads that.
///
/// ```no_run
/// use vc_network::MadeNamespace;
///
/// let made = MadeNamespace::plan("/run/virtcontainers/web/netns", "web")?;
/// // Write it into the state now: what a killed process made is found then.
/// let namespace = made.make()?;
/// drop(namespace);
/// made.delete()?;
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeNamespace {
    path: PathBuf,
}

impl MadeNamespace {
    /// Says where a new namespace is to be kept, and makes nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `name` is no plain file name.
    pub fn plan(directory: impl AsRef<Path>, name: &str) -> Result<Self> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(invalid("namespace name", name, "it is no name of a file"));
        }
        Ok(Self {
            path: directory.as_ref().join(name),
        })
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the namespace, with its loopback interface up. The directory must be there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be made, also when the file is there already. Nothing of it stays
    /// then.
    pub fn make(&self) -> Result<Namespace> {
        // It has to be new: another one's namespace must not be deleted later.
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(self.failed("make a file for the network namespace"))?;
        let made = self.fill();
        if made.is_err()
            && let Err(error) = self.delete()
        {
            // The error that led here is the one to report.
            tracing::warn!(%error, "a network namespace that failed to be made stays");
        }
        made
    }

    fn fill(&self) -> Result<Namespace> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount_bind(OWN_NAMESPACE, &self.path)?;
            Ok(())
        })
        .map_err(self.failed("make the network namespace"))?;
        let namespace = Namespace::open(&self.path)?;
        // As in every namespace of a container: what is inside may speak to itself.
        link::raise_loopback(&mut namespace.netlink()?)
            .map_err(self.failed("raise the loopback interface of"))?;
        Ok(namespace)
    }

    /// Deletes it: the namespace ends with its last process and its last descriptor. Can be called
    /// again, and when nothing was made.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be unmounted or its file not be removed.
    pub fn delete(&self) -> Result<()> {
        match unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Nothing is mounted there: an interrupted making, or an earlier deletion.
            Ok(()) | Err(Errno::NOENT | Errno::INVAL | Errno::NOTDIR) => {}
            Err(error) => return Err(self.failed("unmount the network namespace")(error.into())),
        }
        match fs::remove_file(&self.path) {
            Err(error) if !is_gone(&error) => Err(self
                .failed("remove the file of the network namespace")(
                error
            )),
            _ => Ok(()),
        }
    }

    fn failed(&self, attempt: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        io(attempt, self.path.display().to_string())
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NOTDIR)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_files_are_taken() {
        for name in ["", ".", "..", "a/b", "/a", "a\0"] {
            assert!(MadeNamespace::plan("/run", name).is_err(), "{name:?}");
        }
        let made = MadeNamespace::plan("/run", "web").unwrap();
        assert_eq!(made.path(), Path::new("/run/web"));
    }

    #[test]
    fn what_was_never_made_can_be_deleted() {
        let temp = tempfile::tempdir().unwrap();
        let made = MadeNamespace::plan(temp.path().join("none"), "web").unwrap();
        made.delete().unwrap();
    }
}
