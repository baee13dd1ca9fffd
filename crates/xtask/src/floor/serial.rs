//! The serial line of a floor's VM, on which its init and its program write.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::vm::START_MAX;

/// How long the VM may pause within a complaint.
const COMPLAINT_MAX: Duration = Duration::from_millis(500);

/// The host's end.
#[derive(Debug)]
pub(super) struct Serial(UnixStream);

impl Serial {
    /// The host's end and the VM's.
    pub(super) fn pair() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(START_MAX))?;
        Ok((Self(ours), theirs.into()))
    }

    /// How long after `begin` the VM wrote its first byte.
    pub(super) fn first_byte(&mut self, begin: Instant) -> Result<Duration> {
        let mut text = vec![0; 4096];
        match self.0.read(&mut text) {
            Ok(0) => bail!("the VM ended before it wrote anything"),
            Ok(n) => {
                let time = begin.elapsed();
                text.truncate(n);
                let complaint = is_complaint(&text);
                ensure!(!complaint, "the VM wrote {:?}", self.complaint(text));
                Ok(time)
            }
            Err(e) if is_timeout(&e) => {
                bail!("the VM wrote nothing within {} s", START_MAX.as_secs())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The text and what follows it within a moment.
    pub(super) fn complaint(&mut self, mut text: Vec<u8>) -> String {
        let _ = self.0.set_read_timeout(Some(COMPLAINT_MAX));
        let mut more = vec![0; 4096];
        while let Ok(n @ 1..) = self.0.read(&mut more)
            && text.len() < more.len()
        {
            text.extend_from_slice(&more[..n]);
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

/// Init names itself before what failed, and the kernel writes nothing but what ends it.
fn is_complaint(text: &[u8]) -> bool {
    text.starts_with(b"floor: ") || text.starts_with(b"[")
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
