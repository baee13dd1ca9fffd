//! What a hook prints: the end of it is kept, for the message of its failure.

use std::os::fd::AsFd;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of an output that are kept: its last lines. The rest is read and thrown away, so that no
/// hook stands still because nobody reads.
const KEPT_BYTES: usize = 4 << 10;

/// Bytes of one read.
const READ_BYTES: usize = 4 << 10;

/// Reads that an output gets after the hook has ended: what a pipe can hold, which the hook wrote
/// before. What goes on after that is written by somebody whom it left in the background.
const LAST_READS: usize = (1 << 20) / READ_BYTES;

/// One of a hook's outputs.
#[derive(Debug)]
pub(super) struct Output<R> {
    pipe: Option<R>,
    kept: Vec<u8>,
}

impl<R: AsyncRead + AsFd + Unpin> Output<R> {
    pub(super) fn new(pipe: Option<R>) -> Self {
        let kept = Vec::new();
        Self { pipe, kept }
    }

    /// Reads until its end, and then waits for ever.
    pub(super) async fn follow(&mut self) -> std::convert::Infallible {
        let mut buffer = [0; READ_BYTES];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer).await {
                Ok(read @ 1..) => self.keep(&buffer[..read]),
                // An output that cannot be read is no reason to fail a hook.
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
        std::future::pending().await
    }

    /// Takes what is in the pipe now, and closes it. Waits for nobody: the pipe does not block.
    pub(super) fn finish(&mut self) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..LAST_READS {
            let Some(pipe) = &self.pipe else { return };
            match rustix::io::read(pipe, &mut buffer) {
                Ok(read @ 1..) => self.keep(&buffer[..read]),
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
        self.pipe = None;
    }

    /// The last line that is not empty, escaped.
    pub(super) fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.kept);
        let mut lines = text.lines().rev().map(str::trim);
        lines.find(|line| !line.is_empty()).map(vc_types::one_line)
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let excess = self.kept.len().saturating_sub(KEPT_BYTES);
        self.kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(chunks: &[&[u8]]) -> Output<tokio::process::ChildStderr> {
        let mut output = Output::new(None);
        chunks.iter().for_each(|chunk| output.keep(chunk));
        output
    }

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        let line = |text: &[u8]| output(&[text]).last_line();
        assert_eq!(line(b"one\ntwo\n \n\n").as_deref(), Some("two"));
        assert_eq!(line(b"\x1b[2Jtwo").as_deref(), Some("\\u{1b}[2Jtwo"));
        assert_eq!(line(b"\xff").as_deref(), Some("\u{fffd}"));
        assert_eq!(line(b"\n\n"), None);
        assert_eq!(line(b""), None);
    }

    #[test]
    fn only_the_end_is_kept() {
        let output = output(&[&[b'a'; 10_000], b"\nend\n", &[b'b'; KEPT_BYTES - 5], b"\nx"]);
        assert_eq!(output.kept.len(), KEPT_BYTES);
        assert_eq!(output.last_line().as_deref(), Some("x"));
    }
}
