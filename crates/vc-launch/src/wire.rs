//! What the launcher and its step say to each other over their socket.
//!
//! Launcher to step: four bytes with the length of the order and all descriptors, then the order
//! as JSON. Step to launcher: [`ABOUT_TO_EXEC`], and the end of the stream when exec worked; or a
//! [`Failure`] as JSON, at any time. The end without the byte before it means that the step died.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Step;
use crate::spec::{DESCRIPTORS_MAX, DescriptorUse, LaunchSpec, SPEC_BYTES_MAX};

/// The step's last word before it executes the program.
pub(crate) const ABOUT_TO_EXEC: u8 = b'X';

/// Bytes of an answer: the byte above and one failure.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 << 10;

/// Descriptors of one message: the caller's, those of the launcher's control groups, of which a
/// host has some fifteen, and the standard three. The kernel carries 253.
const MESSAGE_DESCRIPTORS_MAX: usize = DESCRIPTORS_MAX + 40 + 3;

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS_MAX));

/// What the step is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) spec: LaunchSpec,
    /// What each descriptor is for, in the order in which they are sent.
    pub(crate) uses: Vec<DescriptorUse>,
    /// The process that the step must still be the child of.
    pub(crate) parent: u32,
}

/// Why the step cannot go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) object: String,
    pub(crate) errno: i32,
}

pub(crate) fn send_order(
    mut socket: &UnixStream,
    order: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(order)?;
    if text.len() > SPEC_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the spec is longer than {SPEC_BYTES_MAX} bytes"),
        ));
    }
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&length)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    // Four bytes in an empty buffer go whole or not at all.
    if sent != length.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    socket.write_all(&text)
}

pub(crate) fn receive_order(socket: &UnixStream) -> io::Result<(Order, Vec<OwnedFd>)> {
    let (order, descriptors) = receive::<Order>(socket)?;
    if order.uses.len() != descriptors.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((order, descriptors))
}

/// Receives what [`send_order`] sent.
pub(crate) fn receive<T: DeserializeOwned>(
    mut socket: &UnixStream,
) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut length)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes != length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > SPEC_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    socket.read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, descriptors))
}

/// What the bytes of an answer mean once the stream has ended.
#[derive(Debug)]
pub(crate) enum Answer {
    Executed,
    Failed(Failure),
    Silent,
}

pub(crate) fn read_answer(bytes: &[u8]) -> io::Result<Answer> {
    let (executes, rest) = match bytes.split_first() {
        Some((&ABOUT_TO_EXEC, rest)) => (true, rest),
        _ => (false, bytes),
    };
    match (executes, rest.is_empty()) {
        (true, true) => Ok(Answer::Executed),
        (false, true) => Ok(Answer::Silent),
        (_, false) => Ok(Answer::Failed(serde_json::from_slice(rest)?)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::spec::Program;

    #[test]
    fn an_order_brings_its_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let order = Order {
            spec: LaunchSpec::new("x", Program::Path("/x".into())),
            uses: vec![DescriptorUse::Number(3); MESSAGE_DESCRIPTORS_MAX],
            parent: 7,
        };
        let descriptors = vec![file.as_fd(); MESSAGE_DESCRIPTORS_MAX];
        send_order(&ours, &order, &descriptors).unwrap();
        let (received, descriptors) = receive_order(&theirs).unwrap();
        assert_eq!(received.parent, 7);
        assert_eq!(descriptors.len(), MESSAGE_DESCRIPTORS_MAX);
    }

    #[test]
    fn an_order_that_is_too_long_is_not_sent() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut spec = LaunchSpec::new("x", Program::Path("/x".into()));
        spec.args = vec!["a".repeat(SPEC_BYTES_MAX)];
        let order = Order {
            spec,
            uses: Vec::new(),
            parent: 7,
        };
        assert!(send_order(&ours, &order, &[]).is_err());
    }

    #[test]
    fn silence_is_not_success() {
        assert!(matches!(read_answer(b""), Ok(Answer::Silent)));
        assert!(matches!(read_answer(b"X"), Ok(Answer::Executed)));
        let failure = br#"X{"step":"exec","object":"/x","errno":2}"#;
        assert!(matches!(read_answer(failure), Ok(Answer::Failed(_))));
        assert!(matches!(read_answer(&failure[1..]), Ok(Answer::Failed(_))));
        assert!(read_answer(b"rubbish").is_err());
    }
}
