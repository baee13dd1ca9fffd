use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};

use super::fifo::{Fifo, Found};
use super::{StreamUri, Wake};
use crate::error::{Error, Result};

/// Where an output goes. A reader that does not read holds the process up, as a pipe does; one that
/// left may come back.
#[derive(Debug)]
pub(crate) struct Sink {
    target: Target,
    cancel: Wake,
}

#[derive(Debug)]
enum Target {
    Nothing,
    Open(OwnedFd),
    Awaited(Arc<Fifo>),
}

/// Ends the wait of a sink for its reader.
#[derive(Debug)]
pub(super) struct Release(Arc<Fifo>);

impl Release {
    pub(super) fn now(&self) {
        self.0.release();
    }
}

impl Sink {
    /// Nobody is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Stream`].
    pub(crate) fn open(uri: &StreamUri, cancel: &Wake) -> Result<Self> {
        let (path, target) = match uri {
            StreamUri::Nothing => return Ok(Self::to(Target::Nothing, cancel)),
            StreamUri::Path(path) => {
                let target = Found::at(path).map(|found| match found {
                    Found::Open(file) => Target::Open(file),
                    Found::Awaited(fifo) => Target::Awaited(Arc::new(fifo)),
                });
                (path, target)
            }
            StreamUri::File(path) => {
                if let Some(parent) = path.parent() {
                    // What is missing is named when the file is opened.
                    let _ = std::fs::create_dir_all(parent);
                }
                let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
                let file = open(path, flags, Mode::RUSR | Mode::WUSR);
                (path, file.map(Target::Open).map_err(io::Error::from))
            }
            StreamUri::Binary(program) => {
                return Err(Error::Invalid(format!(
                    "{} cannot be the logger of one stream alone",
                    program.path.display()
                )));
            }
        };
        let target = target.map_err(|source| Error::Stream {
            uri: path.display().to_string(),
            source,
        })?;
        Ok(Self::to(target, cancel))
    }

    pub(crate) fn of(file: OwnedFd, cancel: &Wake) -> Self {
        Self::to(Target::Open(file), cancel)
    }

    fn to(target: Target, cancel: &Wake) -> Self {
        Self {
            target,
            cancel: cancel.clone(),
        }
    }

    /// What ends [`Sink::begin`], where that has to wait.
    pub(super) fn release(&self) -> Option<Release> {
        match &self.target {
            Target::Awaited(fifo) => Some(Release(Arc::clone(fifo))),
            Target::Nothing | Target::Open(_) => None,
        }
    }

    /// Waits for the first reader: what is written to a pipe before and closed is lost.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::BrokenPipe`] where the wait is ended, and those of the system.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if let Target::Awaited(fifo) = &self.target {
            self.target = Target::Open(fifo.opened()?);
        }
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begin()?;
        let Target::Open(file) = &self.target else {
            return Ok(bytes.len());
        };
        loop {
            let mut polled = [
                PollFd::new(file, PollFlags::OUT),
                PollFd::new(&self.cancel, PollFlags::IN),
            ];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let [file_ready, cancel] = polled.map(|one| !one.revents().is_empty());
            if file_ready {
                match rustix::io::write(file, bytes) {
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    written => return Ok(written?),
                }
            } else if cancel {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::path::PathBuf;
    use std::thread::spawn;

    use super::*;

    fn pipe() -> (tempfile::TempDir, StreamUri, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        (directory, StreamUri::Path(path.clone()), path)
    }

    fn sink(uri: &StreamUri) -> Sink {
        Sink::open(uri, &Wake::new().unwrap()).unwrap()
    }

    #[test]
    fn a_reader_that_comes_late_gets_all_and_an_end() {
        let (_directory, uri, path) = pipe();
        let mut sink = sink(&uri);
        assert!(sink.release().is_some());
        let writer = spawn(move || sink.write_all(b"hello"));
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_reader_that_comes_late_gets_an_end_where_nothing_was_written() {
        let (_directory, uri, path) = pipe();
        let mut sink = sink(&uri);
        let writer = spawn(move || sink.begin());
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(text, "");
    }

    #[test]
    fn a_reader_that_waits_already_is_not_waited_for() {
        let (_directory, uri, path) = pipe();
        let reader = spawn(move || std::fs::read_to_string(path));
        // It is there, or comes.
        let mut sink = sink(&uri);
        sink.write_all(b"hello").unwrap();
        drop(sink);
        assert_eq!(reader.join().unwrap().unwrap(), "hello");
    }

    #[test]
    fn a_reader_that_left_comes_back() {
        let (_directory, uri, path) = pipe();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let first = open(&path, flags, Mode::empty()).unwrap();
        let mut sink = sink(&uri);
        assert!(sink.release().is_none());
        drop(first);
        sink.write_all(b"hello").unwrap();
        let mut second = File::open(path).unwrap();
        drop(sink);
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_reader_of_what_is_never_written_is_told_the_end() {
        let (_directory, uri, path) = pipe();
        let sink = sink(&uri);
        let reader = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        let hung_up = || {
            let mut polled = [PollFd::new(&reader, PollFlags::IN)];
            poll(&mut polled, Some(&rustix::event::Timespec::default())).unwrap();
            polled[0].revents().contains(PollFlags::HUP)
        };
        // Nobody has come who writes.
        assert!(!hung_up());
        drop(sink);
        assert!(hung_up());
    }

    #[test]
    fn a_wait_is_ended_before_it_begins_and_while_it_lasts() {
        let (_directory, uri, _path) = pipe();
        let mut one = sink(&uri);
        let mut other = sink(&uri);
        let release = one.release().unwrap();
        release.now();
        assert_eq!(one.begin().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop((one, release));
        let release = other.release().unwrap();
        let waits = spawn(move || other.begin());
        release.now();
        let ended = waits.join().unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_is_no_pipe_is_written_to_at_once() {
        let mut sink = sink(&StreamUri::Path("/dev/null".into()));
        assert!(sink.release().is_none());
        sink.write_all(b"hello").unwrap();
    }
}
