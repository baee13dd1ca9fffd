//! What a container's first process was asked to be, kept beside the sandbox's state for those who
//! add a process to it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;
use vc_types::ContainerId;

use crate::error::{Error, Result};

/// Bytes of a description: what the kernel takes as arguments and environment, in JSON.
const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;

/// Writes the description into the sandbox's directory.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn save(sandbox: &Path, container: &ContainerId, process: &Process) -> Result<()> {
    let path = path(sandbox, container);
    let write = || -> io::Result<()> {
        let text = serde_json::to_vec(process).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&text)
    };
    write().map_err(|source| Error::System {
        attempt: format!("write {}", path.display()),
        source,
    })
}

/// Reads the description.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn load(sandbox: &Path, container: &ContainerId) -> Result<Process> {
    let path = path(sandbox, container);
    let read = || -> io::Result<Process> {
        let mut text = Vec::new();
        File::open(&path)?
            .take(DESCRIPTION_BYTES_MAX)
            .read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    };
    read().map_err(|source| Error::System {
        attempt: format!("read {}", path.display()),
        source,
    })
}

fn path(sandbox: &Path, container: &ContainerId) -> PathBuf {
    sandbox.join(format!("{container}.process.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_reads_back_and_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let id = ContainerId::new("c1").unwrap();
        let mut process = Process::default();
        process.set_cwd("/srv".into());
        save(directory.path(), &id, &process).unwrap();
        assert_eq!(load(directory.path(), &id).unwrap(), process);
        assert!(save(directory.path(), &id, &process).is_err());
        assert!(load(directory.path(), &ContainerId::new("c2").unwrap()).is_err());
    }
}
