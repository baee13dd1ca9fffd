//! Plain reads of what the host is and has.

use std::fs;
use std::io;
use std::path::Path;

use vc_types::ByteSize;

use crate::error::{Error, Result};

/// What the defaults depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Memory that new processes can have without swapping.
    pub memory_available: ByteSize,
    /// All memory.
    pub memory_total: ByteSize,
    /// Processors that this process may run on.
    pub cpus: u32,
    /// The kernel, as `uname -r` prints it.
    pub kernel_release: String,
}

impl HostFacts {
    /// Reads them, the files below `/`.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] when `/proc` cannot be read.
    pub fn read() -> Result<Self> {
        Self::read_below(Path::new("/"))
    }

    /// Reads them, the files below `root`, so that a test can bring its own.
    ///
    /// # Errors
    ///
    /// As [`HostFacts::read`].
    pub fn read_below(root: &Path) -> Result<Self> {
        let meminfo = read(&root.join("proc/meminfo"), |text| {
            Some((kib(text, "MemTotal")?, kib(text, "MemAvailable")?))
        })?;
        let kernel_release = read(&root.join("proc/sys/kernel/osrelease"), |text| {
            Some(text.trim().to_owned()).filter(|release| !release.is_empty())
        })?;
        Ok(Self {
            memory_total: meminfo.0,
            memory_available: meminfo.1,
            cpus: cpus(),
            kernel_release,
        })
    }
}

fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
    fs::read_to_string(path)
        .and_then(|text| parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into()))
        .map_err(|source| Error::Host {
            path: path.to_owned(),
            source,
        })
}

fn kib(meminfo: &str, name: &str) -> Option<ByteSize> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(ByteSize::from_bytes)
}

/// Processors by affinity; at least one.
fn cpus() -> u32 {
    let set = rustix::thread::sched_getaffinity(None);
    set.map_or(1, |set| set.count()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(meminfo: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let kernel = root.path().join("proc/sys/kernel");
        fs::create_dir_all(&kernel).unwrap();
        fs::write(kernel.join("osrelease"), "6.1.0-x\n").unwrap();
        fs::write(root.path().join("proc/meminfo"), meminfo).unwrap();
        root
    }

    #[test]
    fn the_files_are_read() {
        let root = root("MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
        let facts = HostFacts::read_below(root.path()).unwrap();
        assert_eq!(facts.memory_total.mib(), 2);
        assert_eq!(facts.memory_available.mib(), 1);
        assert_eq!(facts.kernel_release, "6.1.0-x");
        assert!(facts.cpus >= 1);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let root = root("MemTotal: many kB\n");
        let error = HostFacts::read_below(root.path()).unwrap_err();
        assert!(error.to_string().contains("proc/meminfo"), "{error}");
    }

    #[test]
    fn this_host_can_be_read() {
        let facts = HostFacts::read().unwrap();
        assert!(facts.memory_available <= facts.memory_total);
    }
}
