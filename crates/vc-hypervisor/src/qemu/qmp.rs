//! One QMP connection. The commands and events are the `qapi` crate's generated types; the reading
//! is ours, because what a VMM sends must have a largest size, and a newer QEMU's unknown events
//! must not end a connection.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use qapi::qmp::{self, QmpCommand};
use qapi::{Any, Command, Execute};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::{Error, Result};

mod descriptors;

/// Bytes of one message. The longest answer to a command of ours has some hundred; a greeting has
/// two hundred.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What is read at once: an ordinary message fits.
const READ_BYTES: usize = 4 << 10;

/// Events that may come before the answer to a command.
const EVENTS_BEFORE_ANSWER_MAX: usize = 1_000;

/// What errors call the reading of events.
const EVENTS: &str = "events";

/// What errors call the greeting and the choice of capabilities.
const HANDSHAKE: &str = "qmp_capabilities";

/// An event that the driver cares about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QmpEvent {
    /// The VM ends, and this is why.
    Shutdown(qmp::ShutdownCause),
    /// The guest's kernel said so through pvpanic.
    GuestPanicked,
    /// The processors stand still.
    Stopped,
    /// The processors go on.
    Resumed,
    /// The guest has let go of a device, or QEMU has failed to make it.
    DeviceDeleted(String),
    /// The saving or loading of a VM came to this point.
    Migration(qmp::MigrationStatus),
    /// Something else.
    Other,
}

#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    /// What was read and does not make a message yet.
    buffer: Vec<u8>,
    next_id: u64,
    /// Devices whose end came before the answer to a command.
    deleted: VecDeque<String>,
    /// How a saving or loading ended, where that came before the answer to a command.
    migrated: Option<bool>,
}

/// Any message of QEMU's, before it is known what it is.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Any>,
    event: Option<String>,
    #[serde(default)]
    data: Any,
    #[serde(rename = "return")]
    ok: Option<Any>,
    error: Option<Refusal>,
    id: Option<u64>,
}

/// Why QEMU does not do what it was asked.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    class: String,
    desc: String,
}

impl Refusal {
    /// The object is not there. Only some commands say so in a word of its own.
    pub(super) fn is_absent(&self) -> bool {
        self.class == "DeviceNotFound"
    }

    pub(super) fn of(self, command: &'static str) -> Error {
        Error::Refused {
            command,
            reason: crate::log::escape(&self.desc),
        }
    }
}

impl Qmp {
    /// Connects to a command socket and negotiates, within `limit`.
    ///
    /// A socket that serves somebody else takes the connection and stays silent: then the limit
    /// passes.
    pub(super) async fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let negotiate = async {
            let connected = super::socket::connect(socket).await;
            let stream = connected.map_err(|source| Error::Connection {
                command: HANDSHAKE,
                source,
            })?;
            Self::of(stream).handshake().await
        };
        within(HANDSHAKE, limit, negotiate).await
    }

    /// The connection at a descriptor that QEMU got the other end of; nothing is negotiated yet.
    pub(super) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let stream = StdUnixStream::from(fd);
        stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream))
            .map(Self::of)
            .map_err(|source| Error::Connection {
                command: HANDSHAKE,
                source,
            })
    }

    fn of(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            next_id: 0,
            deleted: VecDeque::new(),
            migrated: None,
        }
    }

    /// Waits for the greeting and leaves the negotiation mode. The caller sets the limit.
    pub(super) async fn handshake(mut self) -> Result<Self> {
        let greeting = self.message(HANDSHAKE).await?;
        if greeting.and_then(|message| message.greeting).is_none() {
            return Err(protocol(HANDSHAKE, "it did not greet"));
        }
        let chosen = qmp::qmp_capabilities { enable: None };
        let answer = self.command(chosen, &[]).await?;
        answer.map_err(|refusal| refusal.of(HANDSHAKE))?;
        Ok(self)
    }

    /// Sends a command and waits for its answer, within `limit`.
    pub(super) async fn execute<C: QmpCommand>(
        &mut self,
        command: C,
        limit: Duration,
    ) -> Result<C::Ok> {
        self.try_execute(command, &[], limit)
            .await?
            .map_err(|refusal| refusal.of(C::NAME))
    }

    /// As [`Qmp::execute`], with a refusal as a value, and with descriptors that QEMU is to get
    /// with the command.
    pub(super) async fn try_execute<C: QmpCommand>(
        &mut self,
        command: C,
        fds: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Result<C::Ok, Refusal>> {
        within(C::NAME, limit, self.command(command, fds)).await
    }

    /// Waits until a device is gone, and says whether that was so within `limit`.
    pub(super) async fn deleted(&mut self, device: &str, limit: Duration) -> Result<bool> {
        let gone = async {
            loop {
                while let Some(deleted) = self.deleted.pop_front() {
                    if deleted == device {
                        return Ok(());
                    }
                }
                match self.next_event().await? {
                    Some(QmpEvent::DeviceDeleted(deleted)) => self.deleted.push_back(deleted),
                    Some(_) => {}
                    None => {
                        return Err(connection(EVENTS, std::io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        };
        match timeout(limit, gone).await {
            Ok(gone) => gone.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Waits until a saving or loading is over, and says whether it went well.
    pub(super) async fn migrated(
        &mut self,
        command: &'static str,
        limit: Duration,
    ) -> Result<bool> {
        let over = async {
            loop {
                if let Some(well) = self.migrated.take() {
                    return Ok(well);
                }
                match self.next_event().await? {
                    Some(event) => self.note(event),
                    None => {
                        return Err(connection(EVENTS, std::io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        };
        within(command, limit, over).await
    }

    /// Keeps what somebody will ask for.
    fn note(&mut self, event: QmpEvent) {
        use qmp::MigrationStatus::{cancelled, completed, failed};
        match event {
            QmpEvent::DeviceDeleted(device) => self.deleted.push_back(device),
            QmpEvent::Migration(completed) => self.migrated = Some(true),
            QmpEvent::Migration(failed | cancelled) => self.migrated = Some(false),
            _ => {}
        }
    }

    /// The next event, or nothing when QEMU has closed the connection. May be dropped at any
    /// point without losing one.
    pub(super) async fn next_event(&mut self) -> Result<Option<QmpEvent>> {
        loop {
            match self.message(EVENTS).await? {
                None => return Ok(None),
                Some(Message {
                    event: Some(name),
                    data,
                    ..
                }) => return Ok(Some(event(&name, data))),
                Some(_) => {}
            }
        }
    }

    async fn command<C: QmpCommand>(
        &mut self,
        command: C,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Result<C::Ok, Refusal>> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_vec(&Execute::with_id(command, id))
            .map_err(|error| protocol(C::NAME, error))?;
        line.push(b'\n');
        descriptors::send(&mut self.stream, &line, fds)
            .await
            .map_err(|source| connection(C::NAME, source))?;
        for _ in 0..EVENTS_BEFORE_ANSWER_MAX {
            let Some(message) = self.message(C::NAME).await? else {
                return Err(connection(
                    C::NAME,
                    std::io::ErrorKind::UnexpectedEof.into(),
                ));
            };
            if let Some(name) = &message.event {
                self.note(event(name, message.data));
                continue;
            }
            return answer::<C>(id, message);
        }
        Err(protocol(C::NAME, "it sends events and no answer"))
    }

    /// The next message, or nothing at the end of the stream.
    async fn message(&mut self, command: &'static str) -> Result<Option<Message>> {
        let mut searched = 0;
        loop {
            let newline = self.buffer[searched..].iter().position(|b| *b == b'\n');
            if let Some(at) = newline {
                let line: Vec<u8> = self.buffer.drain(..=searched + at).collect();
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| protocol(command, error));
            }
            searched = self.buffer.len();
            if searched > MESSAGE_BYTES_MAX {
                return Err(protocol(command, "its message has no end"));
            }
            self.buffer.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|source| connection(command, source))? == 0 {
                return Ok(None);
            }
        }
    }
}

fn answer<C: Command>(id: u64, message: Message) -> Result<Result<C::Ok, Refusal>> {
    if message.id != Some(id) {
        return Err(protocol(C::NAME, "it answers another command"));
    }
    match (message.ok, message.error) {
        (Some(value), None) => serde_json::from_value(value)
            .map(Ok)
            .map_err(|error| protocol(C::NAME, error)),
        (None, Some(refusal)) => Ok(Err(refusal)),
        _ => Err(protocol(C::NAME, "its answer is neither good nor bad")),
    }
}

fn event(name: &str, data: Any) -> QmpEvent {
    match name {
        <qmp::SHUTDOWN as qapi::Event>::NAME => {
            let shutdown = serde_json::from_value::<qmp::SHUTDOWN>(data);
            // A cause that a newer QEMU has is still an end.
            QmpEvent::Shutdown(shutdown.map_or(qmp::ShutdownCause::none, |s| s.reason))
        }
        <qmp::GUEST_PANICKED as qapi::Event>::NAME => QmpEvent::GuestPanicked,
        <qmp::STOP as qapi::Event>::NAME => QmpEvent::Stopped,
        <qmp::RESUME as qapi::Event>::NAME => QmpEvent::Resumed,
        // A device without a name is none of ours.
        <qmp::DEVICE_DELETED as qapi::Event>::NAME => {
            let deleted = serde_json::from_value::<qmp::DEVICE_DELETED>(data).ok();
            match deleted.and_then(|deleted| deleted.device) {
                Some(device) => QmpEvent::DeviceDeleted(device),
                None => QmpEvent::Other,
            }
        }
        <qmp::MIGRATION as qapi::Event>::NAME => {
            match serde_json::from_value::<qmp::MIGRATION>(data) {
                Ok(migration) => QmpEvent::Migration(migration.status),
                // A point on the way that a newer QEMU has.
                Err(_) => QmpEvent::Other,
            }
        }
        _ => QmpEvent::Other,
    }
}

async fn within<T>(
    command: &'static str,
    limit: Duration,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, future)
        .await
        .unwrap_or(Err(Error::NoAnswer { command, limit }))
}

fn protocol(command: &'static str, reason: impl ToString) -> Error {
    Error::Protocol {
        command,
        reason: reason.to_string(),
    }
}

fn connection(command: &'static str, source: std::io::Error) -> Error {
    Error::Connection { command, source }
}

#[cfg(test)]
mod tests;
