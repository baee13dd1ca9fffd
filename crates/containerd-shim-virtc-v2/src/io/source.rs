use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};

use super::Wake;
use crate::error::{Error, Result};

/// A pipe that stdin comes from. It is at its end when those who write to it have left, and when it
/// is closed from this side and empty.
#[derive(Debug)]
pub(crate) struct Source {
    pipe: OwnedFd,
    cancel: Wake,
    close: Wake,
}

impl Source {
    /// # Errors
    ///
    /// [`Error::Stream`].
    pub(crate) fn open(path: &Path, cancel: &Wake, close: &Wake) -> Result<Self> {
        // Nobody is waited for: whoever writes comes later.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = open(path, flags, Mode::empty()).map_err(|error| Error::Stream {
            uri: path.display().to_string(),
            source: error.into(),
        })?;
        Ok(Self {
            pipe,
            cancel: cancel.clone(),
            close: close.clone(),
        })
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // A pipe that nobody has opened yet has neither bytes nor an end.
            let mut polled = [
                PollFd::new(&self.pipe, PollFlags::IN),
                PollFd::new(&self.cancel, PollFlags::IN),
                PollFd::new(&self.close, PollFlags::IN),
            ];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let [pipe, cancel, close] = polled.map(|one| !one.revents().is_empty());
            if cancel {
                return Ok(0);
            }
            if pipe {
                match rustix::io::read(&self.pipe, &mut *buffer) {
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    read => return Ok(read?),
                }
            } else if close {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pipe() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdin");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        (directory, path)
    }

    #[test]
    fn it_ends_with_its_writers_and_not_before_the_first() {
        let (_directory, path) = pipe();
        let (cancel, close) = (Wake::new().unwrap(), Wake::new().unwrap());
        let mut source = Source::open(&path, &cancel, &close).unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            source.read_to_string(&mut text).unwrap();
            text
        });
        let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(b"hello").unwrap();
        drop(writer);
        assert_eq!(reader.join().unwrap(), "hello");
    }

    #[test]
    fn what_is_there_when_it_is_closed_is_not_lost() {
        let (_directory, path) = pipe();
        let (cancel, close) = (Wake::new().unwrap(), Wake::new().unwrap());
        let mut source = Source::open(&path, &cancel, &close).unwrap();
        let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(&[7; 5000]).unwrap();
        close.wake();
        let mut all = Vec::new();
        source.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 5000);
        cancel.wake();
        writer.write_all(b"more").unwrap();
        assert_eq!(source.read(&mut [0; 10]).unwrap(), 0);
    }
}
