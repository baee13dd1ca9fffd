//! The agent's ends of a process's standard streams, and who has them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_protocol::frame::Stream;
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Pipe, pipe_of, write_pipe};
use crate::error::{Attempt as _, Error, Result};
use crate::launch::ChildStdio;

/// What a terminal takes as the end of input.
const END_OF_INPUT: u8 = 4;

/// Both ends of the three pipes.
pub(crate) struct StdioPipes {
    pub(crate) child: ChildStdio,
    pub(crate) io: ProcessIo,
}

/// The agent's ends. Each can be attached once, to a connection that then owns it, or be used by
/// single calls until then.
#[derive(Debug)]
pub(crate) struct ProcessIo {
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    stdin: Slot,
    stdout: Slot,
    stderr: Slot,
    terminal: Option<Arc<Pipe>>,
}

#[derive(Debug)]
enum Slot {
    Free(Arc<Pipe>),
    Attached,
    Closed,
}

impl StdioPipes {
    /// Makes three pipes.
    pub(crate) fn new() -> Result<Self> {
        let (stdin_child, stdin) = new_pipe()?;
        let (stdout, stdout_child) = new_pipe()?;
        let (stderr, stderr_child) = new_pipe()?;
        let free = |fd| Ok::<_, Error>(Slot::Free(Arc::new(pipe_of(fd)?)));
        let slots = Slots {
            stdin: free(stdin)?,
            stdout: free(stdout)?,
            stderr: free(stderr)?,
            terminal: None,
        };
        let child = ChildStdio {
            stdin: Some(stdin_child),
            stdout: Some(stdout_child),
            stderr: Some(stderr_child),
        };
        Ok(Self {
            child,
            io: ProcessIo {
                slots: Mutex::new(slots),
            },
        })
    }
}

/// Bytes of a process's pipe. The kernel's own 64 KiB make a process and the agent take turns.
const PIPE_BYTES: usize = 256 << 10;

fn new_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let pipe = pipe_with(PipeFlags::CLOEXEC).attempt(|| "make a pipe".into())?;
    // Where the kernel has no memory for it, the smaller pipe does too.
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe.0, PIPE_BYTES);
    Ok(pipe)
}

impl ProcessIo {
    /// The two streams of a terminal.
    pub(crate) fn of_terminal(master: OwnedFd) -> Result<Self> {
        let terminal = Arc::new(pipe_of(master)?);
        let slots = Slots {
            stdin: Slot::Free(Arc::clone(&terminal)),
            stdout: Slot::Free(Arc::clone(&terminal)),
            stderr: Slot::Closed,
            terminal: Some(terminal),
        };
        Ok(Self {
            slots: Mutex::new(slots),
        })
    }

    /// Gives a stream to a connection.
    pub(crate) fn attach(&self, stream: Stream) -> Result<Arc<Pipe>> {
        let mut slots = self.lock();
        let slot = slots.slot(stream);
        match std::mem::replace(slot, Slot::Attached) {
            Slot::Free(pipe) => Ok(pipe),
            Slot::Attached => Err(refused(stream, "attached already")),
            Slot::Closed => {
                *slot = Slot::Closed;
                Err(refused(stream, "closed"))
            }
        }
    }

    /// A stream for one call.
    pub(crate) fn borrow(&self, stream: Stream) -> Result<Arc<Pipe>> {
        match self.lock().slot(stream) {
            Slot::Free(pipe) => Ok(Arc::clone(pipe)),
            Slot::Attached => Err(refused(stream, "attached to a connection")),
            Slot::Closed => Err(refused(stream, "closed")),
        }
    }

    /// The terminal, if there is one and somebody reads it.
    pub(crate) fn terminal(&self) -> Option<Arc<Pipe>> {
        self.lock().terminal.clone()
    }

    /// Says the end of input to the process. Closing it again is no error.
    pub(crate) async fn end_stdin(&self) -> Result<()> {
        let (terminal, pipe) = {
            let mut slots = self.lock();
            let pipe = match std::mem::replace(&mut slots.stdin, Slot::Closed) {
                Slot::Free(pipe) => Some(pipe),
                Slot::Attached => {
                    slots.stdin = Slot::Attached;
                    return Err(refused(Stream::Stdin, "attached to a connection"));
                }
                Slot::Closed => None,
            };
            (slots.terminal.is_some(), pipe)
        };
        if let Some(pipe) = pipe {
            end_input(&pipe, terminal, false).await;
        }
        Ok(())
    }

    /// Nobody reads the output any more: with a terminal, its processes get SIGHUP once the input
    /// is gone too.
    pub(crate) fn output_abandoned(&self) {
        let mut slots = self.lock();
        if slots.terminal.take().is_some() {
            slots.stdin = match std::mem::replace(&mut slots.stdin, Slot::Closed) {
                Slot::Attached => Slot::Attached,
                Slot::Free(_) | Slot::Closed => Slot::Closed,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has to be done at the end of input before the agent's end is dropped. A pipe just closes;
/// a terminal is told by its own character, twice when a line was begun.
pub(crate) async fn end_input(pipe: &Pipe, is_terminal: bool, line_begun: bool) {
    if is_terminal {
        let count = if line_begun { 2 } else { 1 };
        // Without a reader there is nobody to tell.
        let _ = write_pipe(pipe, &[END_OF_INPUT; 2][..count]).await;
    }
}

impl Slots {
    fn slot(&mut self, stream: Stream) -> &mut Slot {
        match stream {
            Stream::Stdin => &mut self.stdin,
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

fn refused(stream: Stream, state: &'static str) -> Error {
    Error::State {
        object: format!("stream {stream:?}").to_lowercase(),
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_attached_once() {
        let pipes = StdioPipes::new().unwrap();
        assert!(pipes.io.borrow(Stream::Stdout).is_ok());
        assert!(pipes.io.attach(Stream::Stdout).is_ok());
        assert!(pipes.io.attach(Stream::Stdout).is_err());
        assert!(pipes.io.borrow(Stream::Stdout).is_err());
        assert!(pipes.io.attach(Stream::Stderr).is_ok());
    }

    #[tokio::test]
    async fn the_end_of_input_closes_the_pipe_and_may_be_said_twice() {
        let pipes = StdioPipes::new().unwrap();
        pipes.io.end_stdin().await.unwrap();
        pipes.io.end_stdin().await.unwrap();
        let stdin = pipe_of(pipes.child.stdin.unwrap()).unwrap();
        assert_eq!(
            super::super::read_pipe(&stdin, &mut [0; 1]).await.unwrap(),
            0
        );
        assert!(pipes.io.attach(Stream::Stdin).is_err());
    }
}
