//! The terminal of a container on the host, for engines that hold its other end.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// Makes a terminal, gives its master to whoever listens at `socket`, and takes its other end as
/// our standard streams and our controlling terminal: changes of its size, and its hang-up, come
/// as signals.
///
/// It passes bytes as they are. What a terminal does to them, the one in the guest does.
///
/// # Errors
///
/// What the system says, as when nobody listens.
pub(super) fn take(socket: &Path) -> io::Result<()> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = open(name.as_c_str(), flags, Mode::empty())?;
    let mut settings = tcgetattr(&terminal)?;
    settings.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &settings)?;
    ioctl_tiocsctty(&terminal)?;
    send(socket, &master, name.to_bytes())?;
    rustix::stdio::dup2_stdin(&terminal)?;
    rustix::stdio::dup2_stdout(&terminal)?;
    rustix::stdio::dup2_stderr(&terminal)?;
    Ok(())
}

/// Sends the master, with the terminal's name, as runc does.
fn send(socket: &Path, master: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", socket.display()));
    let stream = UnixStream::connect(socket).map_err(named)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(
        &stream,
        &[IoSlice::new(name)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_listens_is_named() {
        let master = openpt(OpenptFlags::RDWR).unwrap();
        let error = send(Path::new("/nonexistent/console"), &master, b"x").unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/console"),
            "{error}"
        );
    }
}
