use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use serde::Serialize;

use crate::{Error, Result};

/// Bytes that are read of what a program prints about its version.
const OUTPUT_BYTES_MAX: usize = 4 << 10;

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct QemuVersion {
    /// 7 of 7.2.22.
    pub major: u32,
    /// 2 of 7.2.22.
    pub minor: u32,
    /// 22 of 7.2.22.
    pub micro: u32,
}

impl QemuVersion {
    /// The oldest version that the driver is made for.
    pub const OLDEST: Self = Self {
        major: 7,
        minor: 2,
        micro: 0,
    };

    /// The first whose emulated processors never keep code that another one has rewritten. With
    /// an older one, a guest of several processors can hang for ever when its kernel rewrites
    /// itself.
    pub const REWRITES_SAFELY: Self = Self {
        major: 8,
        minor: 1,
        micro: 0,
    };

    /// Reads the first line of `--version`.
    ///
    /// ```
    /// use vc_hypervisor::qemu::QemuVersion;
    ///
    /// let version = QemuVersion::parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)");
    /// assert!(version >= Some(QemuVersion::OLDEST));
    /// ```
    pub fn parse(output: &str) -> Option<Self> {
        let rest = output
            .lines()
            .next()?
            .split_once("QEMU emulator version ")?
            .1;
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let mut numbers = rest[..end].split('.').map(str::parse);
        let mut number = || numbers.next()?.ok();
        Some(Self {
            major: number()?,
            minor: number()?,
            micro: number().unwrap_or_default(),
        })
    }

    /// Asks the program. Blocks for at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::VersionUnknown`] when it does not run, does not end in time, or says something
    /// else.
    pub fn of(binary: &Path, limit: Duration) -> Result<Self> {
        let unknown = |reason: String| Error::VersionUnknown {
            path: binary.to_owned(),
            reason,
        };
        let mut child = Command::new(binary)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| unknown(error.to_string()))?;
        let output = read_output(&mut child, limit);
        // It has said what it had to say, or never will.
        let _ = child.kill();
        let _ = child.wait();
        let output = output.map_err(unknown)?;
        Self::parse(&output)
            .ok_or_else(|| unknown(format!("it printed {:?}", crate::log::escape(&output))))
    }
}

/// The first line that a child prints.
fn read_output(child: &mut Child, limit: Duration) -> Result<String, String> {
    let Some(stdout) = child.stdout.as_mut() else {
        return Err("it has no output".into());
    };
    let deadline = Instant::now() + limit;
    let mut output = Vec::new();
    let mut buffer = [0; OUTPUT_BYTES_MAX];
    while output.len() < OUTPUT_BYTES_MAX && !output.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|error| error.to_string())?;
        let ready = poll(&mut [PollFd::new(stdout, PollFlags::IN)], Some(&timeout));
        match ready {
            Ok(0) => return Err(format!("it printed nothing within {limit:?}")),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.to_string()),
        }
        match stdout.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => output.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions() {
        for (output, wanted) in [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright",
                Some((7, 2, 22)),
            ),
            ("QEMU emulator version 10.0.0", Some((10, 0, 0))),
            ("QEMU emulator version 9.1-rc2 (x)", Some((9, 1, 0))),
            (
                "QEMU emulator version 8.2.50 (v8.2.0-1-gabc-dirty)",
                Some((8, 2, 50)),
            ),
            ("QEMU emulator version", None),
            ("QEMU emulator version x.y", None),
            ("cloud-hypervisor v40.0", None),
            ("", None),
        ] {
            let version = QemuVersion::parse(output);
            assert_eq!(
                version.map(|v| (v.major, v.minor, v.micro)),
                wanted,
                "{output}"
            );
        }
        assert!(QemuVersion::parse("QEMU emulator version 7.1.0") < Some(QemuVersion::OLDEST));
    }

    #[test]
    fn a_program_that_says_nothing_is_left_in_time() {
        let started = Instant::now();
        let limit = Duration::from_millis(50);
        let script = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&script, "#!/bin/sh\nexec sleep 20\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&script, mode).unwrap();
        assert!(QemuVersion::of(&script, limit).is_err());
        assert!(QemuVersion::of(Path::new("/bin/true"), Duration::from_secs(5)).is_err());
        assert!(QemuVersion::of(Path::new("/nonexistent"), limit).is_err());
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
