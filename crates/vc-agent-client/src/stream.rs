//! A process's standard streams, each on a connection of its own in the framing of
//! [`agent_protocol::frame`].
//!
//! Attaching is asynchronous; moving bytes is not, because what is at the host's end (a pipe, a
//! file, a terminal) blocks: each stream has a thread of its own.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use agent_protocol::frame::{Decoder, Frame, Header, Hello, PAYLOAD_BYTES_MAX, Stream, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vc_types::{ContainerId, ExecId, Timeline, guest};

use crate::error::{Error, Result};
use crate::transport::Transport;

/// What became of bytes that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// They are on their way.
    Taken,
    /// Nobody reads this stream any more.
    ReaderGone,
}

/// How a stream from the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// The process closed it; every byte was written.
    End,
    /// The host's reader left; the guest was told.
    ReaderGone,
}

/// Whether the copying of a stream waits for the guest, for whoever bounds that wait. Waiting for
/// the host's own reader does not count.
#[derive(Clone, Debug, Default)]
pub struct GuestWait(Arc<AtomicU64>);

impl GuestWait {
    /// How long the guest has sent nothing while the host could take it.
    pub fn elapsed(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_micros(Timeline::now().saturating_sub(since)),
        }
    }

    fn begin(&self) {
        self.0.store(Timeline::now().max(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Ends a stream from elsewhere, whoever waits for the guest in it.
///
/// A process of the guest can hold its end open for ever: one that another process left running has
/// its stdout. This does not keep the connection: where the stream has ended, it is nothing.
///
/// ```no_run
/// # fn carry(stream: vc_agent_client::stream::Incoming) -> std::io::Result<()> {
/// use vc_agent_client::stream::GuestWait;
///
/// let hang_up = stream.hang_up();
/// let copying = std::thread::spawn(move || {
///     stream.copy_to(&mut std::io::stdout(), &GuestWait::default())
/// });
/// // Its process has ended, and whatever else has its stdout is not waited for.
/// hang_up.now();
/// # drop(copying.join());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HangUp(Weak<StdUnixStream>);

impl HangUp {
    /// Breaks the connection. What the guest has sent by then can still be read.
    pub fn now(&self) {
        if let Some(socket) = self.0.upgrade() {
            // One that the guest has broken is what was wanted.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// One attached stream.
#[derive(Debug)]
struct Attached {
    socket: Arc<StdUnixStream>,
    decoder: Decoder,
    name: &'static str,
}

const fn name_of(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdin => "stdin",
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

async fn attach(
    transport: &Transport,
    limit: Duration,
    container: &ContainerId,
    exec: Option<&ExecId>,
    stream: Stream,
) -> Result<Attached> {
    let name = name_of(stream);
    let broken = |source| Error::Stream {
        stream: name,
        source,
    };
    let bad = |reason: String| Error::BadFrame {
        stream: name,
        reason,
    };
    let mut socket = transport.connect(guest::STREAM_PORT).await?;
    let hello = Frame::Hello(Hello {
        container_id: container.to_string(),
        exec_id: exec.map(ToString::to_string).unwrap_or_default(),
        stream,
    });
    let mut request = Vec::new();
    encode(&hello, &mut request).map_err(|error| bad(error.to_string()))?;
    socket.write_all(&request).await.map_err(broken)?;
    let mut decoder = Decoder::new();
    let answered = async {
        loop {
            match decoder
                .next_frame()
                .map_err(|error| bad(error.to_string()))?
            {
                Some(Frame::HelloOk) => return Ok(()),
                Some(Frame::Error(text)) => return Err(bad(vc_types::one_line(text))),
                Some(_) => return Err(bad("the first frame is not an answer".into())),
                None => {}
            }
            match socket.read(decoder.space()).await.map_err(broken)? {
                0 => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                n => decoder.filled(n),
            }
        }
    };
    timeout(limit, answered)
        .await
        .map_err(|_| Error::TimedOut {
            call: "attach a stream",
            limit: "agent_create_ms",
            after: limit,
        })??;
    let socket = socket.into_std().map_err(broken)?;
    socket.set_nonblocking(false).map_err(broken)?;
    Ok(Attached {
        socket: Arc::new(socket),
        decoder,
        name,
    })
}

impl Attached {
    fn broken(&self, source: io::Error) -> Error {
        Error::Stream {
            stream: self.name,
            source,
        }
    }

    fn send(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes).map_err(io::Error::other)?;
        self.write_all(&bytes)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.socket).write_all(bytes)
    }

    fn hang_up(&self) -> HangUp {
        HangUp(Arc::downgrade(&self.socket))
    }

    /// Reads more of the connection; false at its end.
    fn fill(&mut self) -> io::Result<bool> {
        loop {
            match (&*self.socket).read(self.decoder.space()) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.decoder.filled(n);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A stream from the guest: stdout or stderr.
#[derive(Debug)]
pub struct Incoming(Attached);

impl Incoming {
    /// Attaches to `stream` of a process, which may not have been made yet; `limit` at most.
    ///
    /// # Errors
    ///
    /// As [`Transport::connect`], and [`Error::BadFrame`] with the agent's words when it refuses.
    pub async fn attach(
        transport: &Transport,
        limit: Duration,
        container: &ContainerId,
        exec: Option<&ExecId>,
        stream: Stream,
    ) -> Result<Self> {
        attach(transport, limit, container, exec, stream)
            .await
            .map(Self)
    }

    /// What ends it from elsewhere.
    pub fn hang_up(&self) -> HangUp {
        self.0.hang_up()
    }

    fn fill(&mut self, wait: &GuestWait) -> io::Result<bool> {
        wait.begin();
        let filled = self.0.fill();
        wait.end();
        filled
    }

    /// Writes everything to `sink` until the process closes the stream. Blocks; `wait` says for
    /// how long it has been the guest that is waited for.
    ///
    /// When `sink` takes no more, the guest is told, so that the process gets EPIPE as it would
    /// on the host; what still comes is thrown away.
    ///
    /// # Errors
    ///
    /// [`Error::Stream`] when the connection breaks before the end, [`Error::BadFrame`] when the
    /// guest breaks the framing.
    pub fn copy_to(mut self, sink: &mut impl Write, wait: &GuestWait) -> Result<CopyEnd> {
        let mut end = CopyEnd::End;
        loop {
            let Attached { decoder, name, .. } = &mut self.0;
            let bad = |reason: String| Error::BadFrame {
                stream: name,
                reason,
            };
            match decoder
                .next_frame()
                .map_err(|error| bad(error.to_string()))?
            {
                Some(Frame::Data(bytes)) => {
                    if end == CopyEnd::End
                        && sink.write_all(bytes).and_then(|()| sink.flush()).is_err()
                    {
                        end = CopyEnd::ReaderGone;
                        let told = self.0.send(&Frame::Error("the reader is gone"));
                        if let Err(error) = told {
                            tracing::debug!(stream = self.0.name, %error, "cannot tell the guest");
                        }
                    }
                }
                Some(Frame::End) => {
                    // The guest keeps the connection until it has this; its loss is no loss of data.
                    if let Err(error) = self.0.send(&Frame::EndAck) {
                        tracing::debug!(stream = self.0.name, %error, "cannot acknowledge the end");
                    }
                    return Ok(end);
                }
                Some(Frame::Error(text)) => return Err(bad(vc_types::one_line(text))),
                Some(_) => return Err(bad("a frame that only a reader sends".into())),
                None => match self.fill(wait) {
                    Ok(true) => {}
                    // The guest may just close after it was told that nobody reads.
                    Ok(false) | Err(_) if end == CopyEnd::ReaderGone => return Ok(end),
                    Ok(false) => return Err(self.0.broken(io::ErrorKind::UnexpectedEof.into())),
                    Err(error) => return Err(self.0.broken(error)),
                },
            }
        }
    }
}

/// The stream to the guest: stdin.
#[derive(Debug)]
pub struct Outgoing(Attached);

impl Outgoing {
    /// Attaches to the stdin of a process, which may not have been made yet; `limit` at most.
    ///
    /// # Errors
    ///
    /// As [`Incoming::attach`].
    pub async fn attach(
        transport: &Transport,
        limit: Duration,
        container: &ContainerId,
        exec: Option<&ExecId>,
    ) -> Result<Self> {
        attach(transport, limit, container, exec, Stream::Stdin)
            .await
            .map(Self)
    }

    /// What ends it from elsewhere.
    pub fn hang_up(&self) -> HangUp {
        self.0.hang_up()
    }

    /// Sends `bytes`. Blocks while the process does not read.
    pub fn send(&mut self, bytes: &[u8]) -> Sent {
        for chunk in bytes.chunks(PAYLOAD_BYTES_MAX) {
            let Ok(header) = Header::data(chunk) else {
                continue;
            };
            let mut frame = Vec::with_capacity(chunk.len() + 8);
            frame.extend_from_slice(&header.to_bytes());
            frame.extend_from_slice(chunk);
            // The agent closes the connection when the process closed its stdin.
            if self.0.write_all(&frame).is_err() {
                return Sent::ReaderGone;
            }
        }
        Sent::Taken
    }

    /// Says that there is no more, and waits until the agent has taken everything. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::BadFrame`] when the agent answers with something else. A reader that is gone is
    /// no error.
    pub fn finish(mut self) -> Result<()> {
        if self.0.send(&Frame::End).is_err() {
            return Ok(());
        }
        loop {
            let Attached { decoder, name, .. } = &mut self.0;
            let bad = |reason: String| Error::BadFrame {
                stream: name,
                reason,
            };
            match decoder
                .next_frame()
                .map_err(|error| bad(error.to_string()))?
            {
                Some(Frame::EndAck | Frame::Error(_)) => return Ok(()),
                Some(_) => return Err(bad("a frame that only a writer sends".into())),
                None => match self.0.fill() {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return Ok(()),
                },
            }
        }
    }

    /// Sends everything that `source` gives, then the end. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Outgoing::finish`]. A source that cannot be read is at its end.
    pub fn copy_from(mut self, source: &mut impl Read) -> Result<()> {
        let mut buffer = vec![0; PAYLOAD_BYTES_MAX];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return self.finish(),
                Ok(n) => {
                    if self.send(&buffer[..n]) == Sent::ReaderGone {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "stdin cannot be read");
                    return self.finish();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &'static str) -> (Attached, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        (
            Attached {
                socket: Arc::new(ours),
                decoder: Decoder::new(),
                name,
            },
            theirs,
        )
    }

    fn frames(frames: &[Frame<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            encode(frame, &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn everything_before_the_end_is_written_and_the_end_is_acknowledged() {
        let (ours, mut theirs) = pair("stdout");
        theirs
            .write_all(&frames(&[
                Frame::Data(b"ab"),
                Frame::Data(b"c"),
                Frame::End,
            ]))
            .unwrap();
        let mut out = Vec::new();
        assert_eq!(
            Incoming(ours)
                .copy_to(&mut out, &GuestWait::default())
                .unwrap(),
            CopyEnd::End
        );
        assert_eq!(out, b"abc");
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, frames(&[Frame::EndAck]));
    }

    #[test]
    fn a_connection_that_closes_before_the_end_is_an_error() {
        let (ours, mut theirs) = pair("stdout");
        theirs.write_all(&frames(&[Frame::Data(b"ab")])).unwrap();
        drop(theirs);
        let error = Incoming(ours)
            .copy_to(&mut Vec::new(), &GuestWait::default())
            .unwrap_err();
        assert!(matches!(
            error,
            Error::Stream {
                stream: "stdout",
                ..
            }
        ));
    }

    #[test]
    fn a_reader_that_leaves_is_told_to_the_guest() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (ours, mut theirs) = pair("stdout");
        theirs
            .write_all(&frames(&[
                Frame::Data(b"ab"),
                Frame::Data(b"c"),
                Frame::End,
            ]))
            .unwrap();
        assert_eq!(
            Incoming(ours)
                .copy_to(&mut Gone, &GuestWait::default())
                .unwrap(),
            CopyEnd::ReaderGone
        );
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).unwrap();
        assert_eq!(
            answer,
            frames(&[Frame::Error("the reader is gone"), Frame::EndAck])
        );
    }

    #[test]
    fn stdin_ends_when_the_agent_has_all_of_it() {
        let (ours, mut theirs) = pair("stdin");
        let sender = std::thread::spawn(move || Outgoing(ours).copy_from(&mut &b"hello"[..]));
        let expected = frames(&[Frame::Data(b"hello"), Frame::End]);
        let mut got = vec![0; expected.len()];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
        assert!(!sender.is_finished());
        theirs.write_all(&frames(&[Frame::EndAck])).unwrap();
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn a_guest_that_keeps_a_stream_open_is_hung_up_on() {
        let (ours, mut theirs) = pair("stdout");
        theirs.write_all(&frames(&[Frame::Data(b"ab")])).unwrap();
        let (told, copied) = std::sync::mpsc::channel();
        let stream = Incoming(ours);
        let hang_up = stream.hang_up();
        let copying = std::thread::spawn(move || {
            struct Tell(std::sync::mpsc::Sender<Vec<u8>>);
            impl Write for Tell {
                fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                    self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
                    Ok(bytes.len())
                }
                fn flush(&mut self) -> io::Result<()> {
                    Ok(())
                }
            }
            stream.copy_to(&mut Tell(told), &GuestWait::default())
        });
        assert_eq!(copied.recv().unwrap(), b"ab");
        hang_up.now();
        assert!(copying.join().unwrap().is_err());
        // The guest learns of it, and nothing is there any more to be hung up.
        assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0);
        hang_up.now();
    }

    #[test]
    fn a_guest_that_takes_no_input_is_hung_up_on() {
        let (ours, theirs) = pair("stdin");
        let stream = Outgoing(ours);
        let hang_up = stream.hang_up();
        let sending = std::thread::spawn(move || stream.copy_from(&mut io::repeat(7)));
        hang_up.now();
        sending.join().unwrap().unwrap();
        drop(theirs);
    }
}
