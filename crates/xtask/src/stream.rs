//! How fast a stream is, each way.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Bytes that are moved at once, as the program in the guest moves them.
const BLOCK_BYTES: usize = 64 << 10;

/// MB/s out of a guest and into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) out: f64,
    pub(crate) into: f64,
}

impl Rates {
    pub(crate) fn new(bytes: u64, out: Duration, into: Duration) -> Self {
        let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
        Self {
            out: rate(out),
            into: rate(into),
        }
    }
}

/// Reads `bytes`; the time from the first of them to the last.
pub(crate) fn receive(from: &mut impl Read, bytes: u64) -> Result<Duration> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    let mut begin = None;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let n = from.read(&mut block[..room])?;
        ensure!(n > 0, "the stream ended {left} bytes early");
        begin.get_or_insert_with(Instant::now);
        left -= n as u64;
    }
    Ok(begin.context("nothing was to be read")?.elapsed())
}

/// Writes `bytes`.
pub(crate) fn send(to: &mut impl Write, bytes: u64) -> Result<()> {
    let block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        to.write_all(&block[..size])?;
        left -= size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_moved_and_an_early_end_is_told() {
        let mut moved = Vec::new();
        send(&mut moved, 100_000).unwrap();
        assert_eq!(moved.len(), 100_000);
        assert!(receive(&mut moved.as_slice(), 100_000).is_ok());
        let error = receive(&mut moved.as_slice(), 100_001).unwrap_err();
        assert_eq!(error.to_string(), "the stream ended 1 bytes early");
    }
}
