use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};

use super::{StreamUri, Wake};
use crate::error::{Error, Result};

/// Where an output goes. A reader that does not read holds the process up, as a pipe does; one that
/// left may come back.
#[derive(Debug)]
pub(crate) struct Sink {
    file: Option<OwnedFd>,
    cancel: Wake,
}

impl Sink {
    /// # Errors
    ///
    /// [`Error::Stream`].
    pub(crate) fn open(uri: &StreamUri, cancel: &Wake) -> Result<Self> {
        let (path, flags) = match uri {
            StreamUri::Nothing => {
                return Ok(Self {
                    file: None,
                    cancel: cancel.clone(),
                });
            }
            // For reading too: it stays open when whoever reads is restarted.
            StreamUri::Path(path) => (path, OFlags::RDWR | OFlags::NONBLOCK),
            StreamUri::File(path) => {
                if let Some(parent) = path.parent() {
                    // What is missing is named when the file is opened.
                    let _ = std::fs::create_dir_all(parent);
                }
                (path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)
            }
            StreamUri::Binary(program) => {
                return Err(Error::Invalid(format!(
                    "{} cannot be the logger of one stream alone",
                    program.path.display()
                )));
            }
        };
        let mode = Mode::RUSR | Mode::WUSR;
        let file = open(path, flags | OFlags::CLOEXEC, mode).map_err(|error| Error::Stream {
            uri: path.display().to_string(),
            source: error.into(),
        })?;
        Ok(Self::of(file, cancel))
    }

    pub(crate) fn of(file: OwnedFd, cancel: &Wake) -> Self {
        Self {
            file: Some(file),
            cancel: cancel.clone(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &self.file else {
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
