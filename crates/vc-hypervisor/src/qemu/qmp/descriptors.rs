use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Descriptors of one command: QEMU takes one, and looks at no other.
const DESCRIPTORS_MAX: usize = 1;

/// Writes a line, and passes descriptors with its first byte.
pub(super) async fn send(
    stream: &mut UnixStream,
    line: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let sent = match fds {
        [] => 0,
        fds => {
            let write = || send_with(stream, line, fds);
            stream.async_io(Interest::WRITABLE, write).await?
        }
    };
    stream.write_all(line.get(sent..).unwrap_or_default()).await
}

fn send_with(stream: &UnixStream, line: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL;
    Ok(sendmsg(stream, &[IoSlice::new(line)], &mut control, flags)?)
}
