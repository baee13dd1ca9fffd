//! The standard streams of a process, carried between the guest and where containerd wants them.

mod carried;
mod fifo;
mod logger;
mod sink;
mod source;
mod uri;
mod wake;

pub(crate) use carried::Carried;
use logger::Logger;
use sink::Sink;
use source::Source;
use uri::StreamUri;
pub(crate) use wake::Wake;

use crate::error::Result;

/// Where containerd wants the standard streams of a process, as it says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The host's ends, open.
#[derive(Debug)]
pub(crate) struct Opened {
    stdin: Option<Source>,
    stdout: Sink,
    stderr: Sink,
    /// Ends what waits at them.
    cancel: Wake,
    /// Ends stdin once what is there has been read.
    close_stdin: Wake,
}

impl Stdio {
    /// Opens them. This blocks while a logger starts.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Stream`] with the one that cannot be opened.
    pub(crate) fn open(&self, namespace: &str, id: &str) -> Result<Opened> {
        let (cancel, close_stdin) = (Wake::new()?, Wake::new()?);
        let stdin = match StreamUri::parse(&self.stdin)? {
            StreamUri::Nothing => None,
            StreamUri::Path(path) => Some(Source::open(&path, &cancel, &close_stdin)?),
            other => return Err(other.refused(&self.stdin)),
        };
        let stderr = match self.terminal {
            true => StreamUri::Nothing,
            false => StreamUri::parse(&self.stderr)?,
        };
        let (stdout, stderr) = match (StreamUri::parse(&self.stdout)?, stderr) {
            (StreamUri::Binary(program), StreamUri::Binary(_) | StreamUri::Nothing) => {
                let logger = Logger::start(&program, namespace, id)?;
                (
                    Sink::of(logger.stdout, &cancel),
                    Sink::of(logger.stderr, &cancel),
                )
            }
            (stdout, stderr) => (Sink::open(&stdout, &cancel)?, Sink::open(&stderr, &cancel)?),
        };
        Ok(Opened {
            stdin,
            stdout,
            stderr,
            cancel,
            close_stdin,
        })
    }
}
