use std::io;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use virtcontainers::stream::{CopyEnd, GuestWait, HangUp, Incoming, Outgoing, Streams};

use super::sink::Release;
use super::{Opened, Sink, Source, Wake};

/// Stack of a thread that copies: it calls little.
const STACK_BYTES: usize = 128 << 10;

/// The streams of a process on their way, each on a thread of its own. They end with this.
#[derive(Debug)]
pub(crate) struct Carried {
    cancel: Wake,
    close_stdin: Wake,
    outputs: Vec<oneshot::Receiver<()>>,
    /// Those of outputs whose readers were not there at first.
    readers: Vec<Release>,
    /// The guest's ends: what the process left running may hold them open for ever.
    guest: Vec<HangUp>,
}

impl Carried {
    /// Begins.
    ///
    /// # Errors
    ///
    /// When there can be no more threads.
    pub(crate) fn begin(streams: Streams, opened: Opened) -> io::Result<Self> {
        let Opened {
            stdin,
            stdout,
            stderr,
            cancel,
            close_stdin,
        } = opened;
        let mut carried = Self {
            cancel,
            close_stdin,
            outputs: Vec::new(),
            readers: Vec::new(),
            guest: Vec::new(),
        };
        carried.output("stdout", streams.stdout, stdout)?;
        if let Some(stream) = streams.stderr {
            carried.output("stderr", stream, stderr)?;
        }
        carried.guest.push(streams.stdin.hang_up());
        input(streams.stdin, stdin)?;
        Ok(carried)
    }

    fn output(&mut self, name: &'static str, stream: Incoming, mut sink: Sink) -> io::Result<()> {
        let (done, end) = oneshot::channel();
        self.guest.push(stream.hang_up());
        self.readers.extend(sink.release());
        thread(name, move || {
            if let Err(error) = sink.begin() {
                tracing::warn!(%error, name, "nobody takes the output");
                return;
            }
            match stream.copy_to(&mut sink, &GuestWait::default()) {
                Ok(CopyEnd::End) => {}
                Ok(CopyEnd::ReaderGone) => tracing::debug!(name, "nobody takes the output"),
                // Its machine has ended.
                Err(error) => tracing::debug!(%error, name, "the output ended early"),
            }
            drop(sink);
            let _ = done.send(());
        })?;
        self.outputs.push(end);
        Ok(())
    }

    /// What ends stdin when what is in its pipe by then has been read.
    pub(crate) fn stdin_end(&self) -> Wake {
        self.close_stdin.clone()
    }

    /// Waits until all output is where it belongs, at most for `limit`: then the rest is lost.
    pub(crate) async fn drained(&mut self, limit: Duration) {
        let all = async {
            for output in &mut self.outputs {
                let _ = output.await;
            }
        };
        if timeout(limit, all).await.is_err() {
            tracing::warn!("output is lost: nobody takes it, or the process left its streams open");
            self.end();
        }
        self.outputs.clear();
    }

    /// Ends all that still waits, at the host's ends and at the guest's.
    fn end(&self) {
        self.cancel.wake();
        self.readers.iter().for_each(Release::now);
        self.guest.iter().for_each(HangUp::now);
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.end();
    }
}

/// One without a pipe is at its end at once.
fn input(stream: Outgoing, source: Option<Source>) -> io::Result<()> {
    thread("stdin", move || {
        let sent = match source {
            Some(mut source) => stream.copy_from(&mut source),
            None => stream.finish(),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "stdin ended early");
        }
    })
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map(drop)
}
