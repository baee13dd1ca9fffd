use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vc_launch::{LaunchSpec, LaunchedProcess, Launcher, PassedFd, Pending, ProcessEnd, Program};

use crate::error::{Error, Result};

/// How long formatting may take. It takes some twenty milliseconds.
pub const FORMAT_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of the formatting program's output that an error quotes.
const OUTPUT_BYTES_MAX: u64 = 2 << 10;

/// The number at which the formatting program finds the file.
const DISK: i32 = 3;

/// What the file system is like: the guest throws it away, so there is no journal, no reserve
/// for root and no checksum to compute; nothing is written that is zero already, and the tables
/// lie together.
const OPTIONS: [&str; 14] = [
    "-q",
    "-F",
    "-b",
    "4096",
    "-m",
    "0",
    "-i",
    "16384",
    "-G",
    "256",
    "-O",
    "^has_journal,^metadata_csum,^resize_inode",
    "-E",
    "lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard",
];

/// Makes the file systems of scratch disks, with `mkfs.ext4`.
#[derive(Clone, Debug)]
pub struct Formatter {
    launcher: Arc<Launcher>,
    program: PathBuf,
}

/// The formatting of one file. Dropping it ends that.
#[derive(Debug)]
pub struct Formatting {
    program: PathBuf,
    pending: Pending,
    output: File,
}

impl Formatter {
    /// One that has `program` started by `launcher`.
    pub fn new(launcher: Arc<Launcher>, program: PathBuf) -> Self {
        Self { launcher, program }
    }

    /// What its file systems are like: of two alike, one can stand for the other.
    pub fn likeness() -> String {
        OPTIONS.join(" ")
    }

    /// Begins to make a file system in `file`, which is all zeros.
    ///
    /// # Errors
    ///
    /// When there is no descriptor or no memory for what the program prints.
    pub fn begin(&self, file: &File) -> io::Result<Formatting> {
        let output = rustix::fs::memfd_create("virtc-mkfs", rustix::fs::MemfdFlags::CLOEXEC)?;
        let output = File::from(output);
        let passed = vec![
            PassedFd::at(DISK, file.try_clone()?),
            PassedFd::output(output.try_clone()?),
        ];
        Ok(Formatting {
            program: self.program.clone(),
            pending: self.launcher.launch(spec(&self.program), passed),
            output,
        })
    }
}

impl Formatting {
    /// Waits until there is a file system. Blocks, at most [`FORMAT_LIMIT`] after the program runs.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] with what the program printed, [`Error::FormatTimedOut`],
    /// [`Error::Launch`].
    pub fn finish(self) -> Result<()> {
        let process = self.pending.wait()?;
        finish(process, &self.program, self.output)
    }
}

/// Waits for the formatting program, and says what it printed when it failed.
fn finish(mut process: LaunchedProcess, program: &Path, mut output: File) -> Result<()> {
    match process.wait_timeout(FORMAT_LIMIT)? {
        Some(ProcessEnd::Code(0)) => Ok(()),
        Some(end) => {
            let mut text = Vec::new();
            let read = output
                .rewind()
                .and_then(|()| output.take(OUTPUT_BYTES_MAX).read_to_end(&mut text));
            if let Err(error) = read {
                tracing::debug!(%error, "the output of the formatting program is not readable");
            }
            let text = String::from_utf8_lossy(&text);
            let text = text.trim();
            Err(Error::Format {
                program: program.display().to_string(),
                end: end.to_string(),
                output: if text.is_empty() {
                    String::new()
                } else {
                    format!(": {text}")
                },
            })
        }
        None => Err(Error::FormatTimedOut {
            limit: FORMAT_LIMIT,
        }),
    }
}

fn spec(mkfs: &Path) -> LaunchSpec {
    let program = Program::Path(mkfs.display().to_string());
    let mut spec = LaunchSpec::new("the formatting of the scratch disk", program);
    spec.args = OPTIONS.map(str::to_owned).to_vec();
    spec.args.push(format!("/proc/self/fd/{DISK}"));
    // The file belongs to whoever made it, and it needs nothing else.
    spec.capabilities = Some(Vec::new());
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatting_needs_no_right() {
        insta::assert_debug_snapshot!(spec("/sbin/mkfs.ext4".as_ref()));
    }
}
