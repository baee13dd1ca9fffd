//! Terminals: where a container's comes from, its size and its owner.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Gid, Uid};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::error::{Attempt as _, Error, Result};

/// Short, because a socket's address is.
const SOCKETS_DIR: &str = "/run/virtc/terminals";

static NEXT_SOCKET: AtomicU64 = AtomicU64::new(0);

/// The socket by which a container's process hands out the terminal that it made.
#[derive(Debug)]
pub(crate) struct TerminalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl TerminalSocket {
    /// Listens.
    pub(crate) fn new() -> Result<Self> {
        let attempt = || "listen for a terminal".to_owned();
        std::fs::create_dir_all(SOCKETS_DIR).attempt(attempt)?;
        let number = NEXT_SOCKET.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(SOCKETS_DIR).join(number.to_string());
        let listener = UnixListener::bind(&path).attempt(attempt)?;
        Ok(Self { listener, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal, which has to be there already: the process that made it said so.
    pub(crate) fn receive(self) -> Result<OwnedFd> {
        let attempt = || "receive a terminal".to_owned();
        self.listener.set_nonblocking(true).attempt(attempt)?;
        let (socket, _) = self.listener.accept().attempt(attempt)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 64];
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut name)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )
        .attempt(attempt)?;
        let terminal = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        terminal.ok_or(Error::State {
            object: "the container's terminal".into(),
            state: "missing",
        })
    }
}

impl Drop for TerminalSocket {
    fn drop(&mut self) {
        // Its directory is a tmpfs: what stays is a name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Sets a terminal's size; its processes get SIGWINCH.
pub(crate) fn resize(terminal: impl AsFd, rows: u32, columns: u32) -> Result<()> {
    let cells = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size = Winsize {
        ws_row: cells(rows),
        ws_col: cells(columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size)
        .attempt(|| format!("resize a terminal to {rows} rows and {columns} columns"))
}

/// Gives a terminal to the user that works at it, who may open it again by its name.
pub(crate) fn set_owner(terminal: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let attempt = || format!("give a terminal to user {uid}");
    let slave = rustix::pty::ioctl_tiocgptpeer(
        terminal,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .attempt(attempt)?;
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).attempt(attempt)
}
