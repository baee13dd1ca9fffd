//! The serial line of a floor's VM, on which its init and its program write.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::vm::START_MAX;

/// How long the VM may pause within a complaint.
const COMPLAINT_MAX: Duration = Duration::from_millis(500);

/// How a complaint of init begins.
const INIT: &[u8] = b"floor: ";

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
    ///
    /// # Errors
    ///
    /// That it wrote nothing in time, or a complaint.
    pub(super) fn first_byte(&mut self, begin: Instant) -> Result<Duration> {
        let mut text = self.read()?;
        let time = begin.elapsed();
        // The line brings some bytes at a time.
        while Said::of(&text) == Said::TooLittle {
            text.extend(self.read()?);
        }
        ensure!(
            Said::of(&text) == Said::Output,
            "the VM wrote {:?}",
            self.complaint(text)
        );
        Ok(time)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let mut text = vec![0; 4096];
        match self.0.read(&mut text) {
            Ok(0) => bail!("the VM ended before it wrote anything"),
            Ok(n) => {
                text.truncate(n);
                Ok(text)
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

/// What the beginning of a VM's text is.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Output,
    Complaint,
    TooLittle,
}

impl Said {
    /// Init names itself before what failed, and the kernel writes nothing but what ends it.
    fn of(text: &[u8]) -> Self {
        if text.starts_with(INIT) || text.starts_with(b"[") {
            Self::Complaint
        } else if INIT.starts_with(text) {
            Self::TooLittle
        } else {
            Self::Output
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_complaint_is_told_from_output_however_little_comes_at_a_time() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let begin = Instant::now();
        let mut serial = Serial(ours);
        theirs.write_all(b"f").unwrap();
        let writer = std::thread::spawn(move || {
            for byte in b"loor: chroot" {
                theirs.write_all(&[*byte]).unwrap();
            }
        });
        let error = serial.first_byte(begin).unwrap_err();
        assert!(error.to_string().contains("floor: chroot"), "{error}");
        writer.join().unwrap();
        for (text, said) in [
            ("h", Said::Output),
            ("floe", Said::Output),
            ("floor", Said::TooLittle),
            ("[    1.1] Kernel panic", Said::Complaint),
        ] {
            assert_eq!(Said::of(text.as_bytes()), said, "{text}");
        }
    }
}
