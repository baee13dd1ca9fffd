//! Records of starts that failed, for a person to read later.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use vc_types::limits::{CONSOLE_LOG_BYTES_MAX, PROCESS_LOG_BYTES_MAX};
use vc_types::{SandboxId, Timeline};

use crate::error::{Result, io as io_error};
use crate::time::UnixMillis;

/// Records of one sandbox and moment, in milliseconds, that find a name.
const SAME_MOMENT_MAX: u64 = 100;

/// Names that begin so are records that are being written.
const UNFINISHED: &str = ".unfinished:";

/// Bytes of a message.
const MESSAGE_BYTES_MAX: u64 = 64 << 10;

/// Files of one record.
const LOGS_MAX: usize = 16;

/// What is known about a start that failed.
#[derive(Clone, Debug)]
pub struct FailureRecord {
    /// The sandbox.
    pub id: SandboxId,
    /// When.
    pub at: UnixMillis,
    /// The whole message, causes and hint included.
    pub message: String,
    /// How far it came, and when.
    pub timeline: Timeline,
    /// The last of the guest's console.
    pub console: Vec<u8>,
    /// What its processes printed: a name, such as `qemu`, and the last of its output.
    pub logs: Vec<(String, Vec<u8>)>,
}

/// The directory of these records, the newest of which are kept.
///
/// A record is a directory `<time>-<sandbox>` with the files `message.txt`, `timeline.txt`,
/// `console.log`, and a `<name>.log` for each process.
#[derive(Clone, Debug)]
pub struct FailureRecords {
    dir: PathBuf,
    kept: usize,
}

impl FailureRecords {
    /// The records in `dir`, which is made by the first one; the newest `kept` are kept.
    pub fn new(dir: impl Into<PathBuf>, kept: usize) -> Self {
        Self {
            dir: dir.into(),
            kept: kept.max(1),
        }
    }

    /// Keeps a record, removes those that are too old, and returns where it is.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when it cannot be written; nothing of it is left then.
    pub fn write(&self, record: &FailureRecord) -> Result<PathBuf> {
        let name = format!("{}-{}", record.at, record.id);
        let unfinished = self.dir.join(format!("{UNFINISHED}{name}"));
        let written = self
            .write_files(&unfinished, record)
            .and_then(|()| self.finish(&unfinished, record));
        if written.is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        self.prune();
        written
    }

    /// Gives a record its name: its time, or the next one that no other record of the sandbox has.
    fn finish(&self, unfinished: &Path, record: &FailureRecord) -> Result<PathBuf> {
        let mut at = record.at;
        loop {
            let path = self.dir.join(format!("{at}-{}", record.id));
            match fs::rename(unfinished, &path) {
                Err(error)
                    if error.kind() == io::ErrorKind::DirectoryNotEmpty
                        && at.0 < record.at.0 + SAME_MOMENT_MAX =>
                {
                    at.0 += 1;
                }
                renamed => {
                    return renamed
                        .map(|()| path)
                        .map_err(io_error("rename", unfinished));
                }
            }
        }
    }

    /// The records there are, the oldest first.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when the directory cannot be read. One that is not there has none.
    pub fn list(&self) -> Result<Vec<PathBuf>> {
        let mut names = self.names(is_record)?;
        names.sort();
        Ok(names.into_iter().map(|name| self.dir.join(name)).collect())
    }

    fn write_files(&self, dir: &Path, record: &FailureRecord) -> Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(dir)
            .map_err(io_error::<io::Error>("make", dir))?;
        let timeline = record.timeline.to_string();
        let message = record.message.as_bytes();
        write(&dir.join("message.txt"), message, MESSAGE_BYTES_MAX)?;
        write(
            &dir.join("timeline.txt"),
            timeline.as_bytes(),
            MESSAGE_BYTES_MAX,
        )?;
        write(
            &dir.join("console.log"),
            &record.console,
            CONSOLE_LOG_BYTES_MAX,
        )?;
        for (name, log) in record.logs.iter().take(LOGS_MAX) {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
            let name: String = name.chars().map(plain).take(64).collect();
            write(&dir.join(format!("{name}.log")), log, PROCESS_LOG_BYTES_MAX)?;
        }
        Ok(())
    }

    /// Removes the oldest, and what an interrupted writer left. It is no reason to fail.
    fn prune(&self) {
        let old = self.list().unwrap_or_default();
        let many = old.len().saturating_sub(self.kept);
        let unfinished = self
            .names(|name| name.starts_with(UNFINISHED))
            .unwrap_or_default();
        let unfinished = unfinished.into_iter().filter_map(|name| {
            // Another process may be writing it: it is left until it is as old as the records.
            let at = name.strip_prefix(UNFINISHED)?.to_owned();
            let oldest = old.get(many)?.file_name()?.to_str()?;
            (at.as_str() < oldest).then(|| self.dir.join(name))
        });
        for path in old.iter().take(many).cloned().chain(unfinished) {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "an old record stays");
            }
        }
    }

    fn names(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &self.dir)(error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| wanted(name)).collect())
    }
}

/// Whether a name is one that we give: nothing else in the directory is ever removed.
fn is_record(name: &str) -> bool {
    const FORM: &str = "0000-00-00T00:00:00.000Z-";
    let fits = |(c, form): (char, char)| {
        if form == '0' {
            c.is_ascii_digit()
        } else {
            c == form
        }
    };
    name.len() > FORM.len()
        && name.chars().zip(FORM.chars()).all(fits)
        && name
            .get(FORM.len()..)
            .is_some_and(|id| SandboxId::new(id).is_ok())
}

/// Writes the last `max` bytes into a new file.
fn write(path: &Path, bytes: &[u8], max: u64) -> Result<()> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let from = bytes.len().saturating_sub(max);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(bytes.get(from..).unwrap_or_default()))
        .map_err(io_error("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: u64) -> FailureRecord {
        FailureRecord {
            id: "a-1".parse().unwrap(),
            at: UnixMillis(at),
            message: "no".into(),
            timeline: Timeline::default(),
            console: vec![b'x'; 2 << 20],
            logs: vec![("qemu/..".into(), b"oops".to_vec())],
        }
    }

    #[test]
    fn two_of_one_moment_are_both_kept() {
        let dir = tempfile::tempdir().unwrap();
        let records = FailureRecords::new(dir.path(), 5);
        let (first, second) = (records.write(&record(7)), records.write(&record(7)));
        let written = [first.unwrap(), second.unwrap()];
        assert_eq!(records.list().unwrap(), written);
    }

    #[test]
    fn the_newest_are_kept_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("syslog.d");
        fs::create_dir(&foreign).unwrap();
        fs::create_dir(
            dir.path()
                .join(format!("{UNFINISHED}1970-01-01T00:00:00.000Z-x")),
        )
        .unwrap();
        let records = FailureRecords::new(dir.path(), 3);
        assert!(records.list().unwrap().is_empty());
        let paths: Vec<_> = (0..6)
            .map(|n| records.write(&record(n * 1000)).unwrap())
            .collect();
        assert_eq!(records.list().unwrap(), paths[3..]);
        assert!(foreign.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_record_is_bounded_and_its_names_are_plain() {
        let dir = tempfile::tempdir().unwrap();
        let path = FailureRecords::new(dir.path(), 3)
            .write(&record(7))
            .unwrap();
        assert_eq!(fs::read(path.join("qemu---.log")).unwrap(), b"oops");
        assert_eq!(
            fs::metadata(path.join("console.log")).unwrap().len(),
            CONSOLE_LOG_BYTES_MAX
        );
        assert_eq!(fs::read(path.join("message.txt")).unwrap(), b"no");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let error = FailureRecords::new("/proc/none", 1)
            .write(&record(1))
            .unwrap_err();
        assert!(error.to_string().contains("/proc/none"), "{error}");
    }
}
