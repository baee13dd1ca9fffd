//! The message by which a maker gets its task, and the descriptors that come with it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use serde::{Deserialize, Serialize};

use super::request::Request;
use crate::error::{Attempt as _, Error, Result};

/// Bytes of a task: some paths.
const TASK_BYTES_MAX: usize = 64 << 10;

/// Descriptors of a task: one for each [`Role`].
const FDS_MAX: usize = 7;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    /// The standard streams of the container's process.
    Stdin,
    Stdout,
    Stderr,
    /// Says what was made.
    Report,
    /// Goes on to the container's process, and ends with its `execve`.
    Start,
    /// Gives the filter of system calls.
    Filter,
    /// Gives what is executed, where that is not known yet.
    Command,
}

/// What is to be made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) request: Request,
    /// Of the descriptors that come along, in their order.
    pub(super) roles: Vec<Role>,
}

impl Task {
    pub(super) fn send(&self, socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|source| Error::Json {
            attempt: "write a launch request".into(),
            source,
        })?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
        sendmsg(
            socket,
            &[IoSlice::new(&text)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .attempt(|| "give a process its task".into())?;
        Ok(())
    }

    /// Says that the maker waits for its task: it ends its own direction. A message would have to
    /// be read, or the end of the socket would take the task with it.
    pub(super) fn say_ready(socket: BorrowedFd<'_>) -> Result<()> {
        let attempt = || "say that a process waits for its task".to_owned();
        shutdown(socket, Shutdown::Write).attempt(attempt)
    }

    /// Waits for a task; none where the socket ends without one.
    pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Option<(Self, Vec<OwnedFd>)>> {
        let attempt = || "take a task".to_owned();
        let mut text = vec![0; TASK_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .attempt(attempt)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(rustix::io::Errno::MSGSIZE).attempt(attempt);
        }
        let fds = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        });
        let fds = fds.collect();
        let task =
            serde_json::from_slice(&text[..received.bytes]).map_err(|source| Error::Json {
                attempt: "read a launch request".into(),
                source,
            })?;
        Ok(Some((task, fds)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_task_arrives_with_its_descriptors_and_an_end_without_one_is_none() {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let task = Task {
            request: Request {
                container_id: "web".into(),
                ..Request::default()
            },
            roles: vec![Role::Report, Role::Start],
        };
        task.send(ours.as_fd(), &[writer.as_fd(), reader.as_fd()])
            .unwrap();
        drop((ours, writer));
        let (task, mut fds) = Task::receive(theirs.as_fd()).unwrap().unwrap();
        assert_eq!(task.request.container_id, "web");
        assert_eq!(task.roles, [Role::Report, Role::Start]);
        assert_eq!(fds.len(), 2);
        rustix::io::write(fds.remove(0), b"made").unwrap();
        let mut text = [0; 8];
        assert_eq!(rustix::io::read(&reader, &mut text).unwrap(), 4);
        assert!(Task::receive(theirs.as_fd()).unwrap().is_none());
    }
}
