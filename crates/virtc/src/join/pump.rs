//! Threads that join the command's standard streams with virtc's own. What is at the host's end
//! blocks, so each stream has one.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tokio::sync::oneshot;
use vc_types::Timeline;
use virtcontainers::stream::{CopyEnd, GuestWait, Incoming, Outgoing, Sent};

use super::escape::Escape;

/// Bytes read from the host's stdin at once.
const READ_BYTES: usize = 64 << 10;

/// The host's stdout or stderr without a buffer of ours, which notes its first byte and whether
/// it is waited for.
struct Sink<F> {
    fd: F,
    first: Option<Arc<AtomicU64>>,
}

impl<F: AsFd> Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.fd, bytes) {
                Ok(written) => {
                    if let Some(first) = self.first.take() {
                        // Only the first of stdout and stderr counts.
                        let now = Timeline::now();
                        let _ =
                            first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
                    }
                    return Ok(written);
                }
                Err(rustix::io::Errno::INTR) => {}
                // A descriptor that somebody else made non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    let mut polled = [rustix::event::PollFd::new(
                        &self.fd,
                        rustix::event::PollFlags::OUT,
                    )];
                    rustix::event::poll(&mut polled, None)?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How an output stream ended.
pub(crate) type OutputEnd = Result<CopyEnd, virtcontainers::stream::Error>;

/// An output of the command on its way.
pub(crate) struct Output {
    pub(crate) end: oneshot::Receiver<OutputEnd>,
    pub(crate) wait: GuestWait,
}

/// Copies an output of the command to `fd` on a thread. `first` gets the time of the first byte.
///
/// # Errors
///
/// When there can be no more threads.
pub(crate) fn output(
    name: &str,
    stream: Incoming,
    fd: impl AsFd + Send + 'static,
    first: Arc<AtomicU64>,
) -> io::Result<Output> {
    let (done, end) = oneshot::channel();
    let wait = GuestWait::default();
    let waiting = wait.clone();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let ended = stream.copy_to(
                &mut Sink {
                    fd,
                    first: Some(first),
                },
                &waiting,
            );
            // Nobody waits any more when the machine has ended.
            let _ = done.send(ended);
        })?;
    Ok(Output { end, wait })
}

/// Copies the host's stdin to the command on a thread, for as long as both last. The answer is
/// the escape of a terminal that has one; none comes when stdin or the command ends.
///
/// # Errors
///
/// When there can be no more threads.
pub(crate) fn input(mut stream: Outgoing, has_escape: bool) -> io::Result<oneshot::Receiver<()>> {
    let (escaped, escape) = oneshot::channel();
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut stdin = Stdin;
            if !has_escape {
                if let Err(error) = stream.copy_from(&mut stdin) {
                    tracing::debug!(%error, "stdin ended early");
                }
                // Kept, so that the receiver never hears anything.
                std::mem::forget(escaped);
                return;
            }
            let mut keys = Escape::new();
            let mut buffer = vec![0; READ_BYTES];
            while let Ok(read @ 1..) = stdin.read(&mut buffer) {
                let filtered = keys.filter(&buffer[..read]);
                if stream.send(&filtered.pass) == Sent::ReaderGone {
                    break;
                }
                if filtered.end {
                    let _ = escaped.send(());
                    return;
                }
            }
            std::mem::forget(escaped);
        })?;
    Ok(escape)
}

/// Stdin without the standard library's buffer and lock.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut *buffer) {
                Ok(read) => return Ok(read),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let stdin = rustix::stdio::stdin();
                    let mut polled = [rustix::event::PollFd::new(
                        &stdin,
                        rustix::event::PollFlags::IN,
                    )];
                    rustix::event::poll(&mut polled, None)?;
                }
                // A terminal whose foreground belongs to another job, or that hung up.
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
