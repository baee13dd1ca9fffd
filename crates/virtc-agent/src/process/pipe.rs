//! The agent's end of a pipe or terminal.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Attempt as _, Result};

/// An end that does not block.
pub(crate) type Pipe = AsyncFd<OwnedFd>;

/// Makes `fd` an end that does not block. The other end is not changed: it is a file of its own.
pub(crate) fn pipe_of(fd: OwnedFd) -> Result<Pipe> {
    rustix::io::ioctl_fionbio(&fd, true).attempt(|| "use a pipe without blocking".into())?;
    crate::sys::watch(fd, Interest::READABLE | Interest::WRITABLE).attempt(|| "watch a pipe".into())
}

/// Reads some bytes; zero is the end. A terminal that no process holds any more ends too.
pub(crate) async fn read_pipe(pipe: &Pipe, buffer: &mut [u8]) -> io::Result<usize> {
    let result = pipe
        .async_io(Interest::READABLE, |fd| {
            Ok(rustix::io::read(fd, &mut *buffer)?)
        })
        .await;
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Ok(0),
        result => result,
    }
}

/// Writes all bytes.
pub(crate) async fn write_pipe(pipe: &Pipe, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = pipe
            .async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?))
            .await?;
        bytes = &bytes[written..];
    }
    Ok(())
}
