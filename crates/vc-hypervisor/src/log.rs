//! The bounded file that a guest's console or a VMM's messages go to.
//!
//! Both are written by the enemy, without an end. A [`BoundedLog`] keeps the newest part; what is
//! shown of it is escaped, so that it cannot speak to a terminal.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use tokio::net::unix::pipe;
use tracing::{debug, warn};

/// What a guest's console says when the guest ends by a fault, the most telling first.
const LAST_WORDS: [&str; 2] = ["virtc-agent: fatal:", "Kernel panic - not syncing"];

/// Bytes at the end of a log that are looked at for an error message.
const TAIL_BYTES: u64 = 16 << 10;

/// Characters of one line that are shown.
const LINE_CHARS_MAX: usize = 400;

/// What is read at once.
const READ_BYTES: usize = 16 << 10;

/// Stands where older output was dropped.
const DROPPED: &[u8] = b"[older output was dropped here]\n";

/// A file that grows to a largest size and then drops its older half.
#[derive(Debug)]
pub struct BoundedLog {
    file: File,
    len: u64,
    bytes_max: u64,
}

impl BoundedLog {
    /// Goes on at the end of `file`, which must be open for reading and writing.
    ///
    /// # Errors
    ///
    /// What the system says about the file.
    pub fn new(file: File, bytes_max: u64) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            len,
            bytes_max,
        })
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    ///
    /// What the system says, a full disk above all.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let half = self.bytes_max / 2;
        // One piece never takes more than the half that is free after a drop.
        let skipped = bytes.len().saturating_sub(half as usize);
        let bytes = &bytes[skipped..];
        if self.len + bytes.len() as u64 > self.bytes_max {
            self.drop_older_half()?;
        }
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn drop_older_half(&mut self) -> io::Result<()> {
        let keep = (self.bytes_max / 2)
            .saturating_sub(DROPPED.len() as u64)
            .min(self.len);
        let mut newest = vec![0; keep as usize];
        self.file.read_exact_at(&mut newest, self.len - keep)?;
        let line = newest.iter().position(|byte| *byte == b'\n');
        let newest = &newest[line.map_or(0, |at| at + 1)..];
        self.file.set_len(0)?;
        self.file.write_all_at(DROPPED, 0)?;
        self.file.write_all_at(newest, DROPPED.len() as u64)?;
        self.len = (DROPPED.len() + newest.len()) as u64;
        Ok(())
    }
}

/// The last lines of a log, for an error message: escaped, shortened, without empty ones.
///
/// # Errors
///
/// What the system says about reading the file.
pub fn last_lines(file: &File, lines_max: usize) -> io::Result<Vec<String>> {
    let lines = tail(file)?;
    Ok(lines[lines.len().saturating_sub(lines_max)..].to_vec())
}

/// The lines of a guest's console that say why it ended: from the agent's last words or the
/// kernel's panic on, whose traces would fill the last lines alone; else the last ones.
///
/// # Errors
///
/// What the system says about reading the file.
pub fn telling_lines(file: &File, lines_max: usize) -> io::Result<Vec<String>> {
    let lines = tail(file)?;
    let told = LAST_WORDS
        .iter()
        .find_map(|words| lines.iter().position(|line| line.contains(words)));
    let from = told.unwrap_or(lines.len().saturating_sub(lines_max));
    Ok(lines.into_iter().skip(from).take(lines_max).collect())
}

fn tail(file: &File) -> io::Result<Vec<String>> {
    let len = file.metadata()?.len();
    let mut tail = vec![0; len.min(TAIL_BYTES) as usize];
    file.read_exact_at(&mut tail, len.saturating_sub(TAIL_BYTES))?;
    let text = String::from_utf8_lossy(&tail);
    Ok(text
        .lines()
        .map(escape)
        .filter(|line| !line.is_empty())
        .collect())
}

/// One line of a stranger's as it may be shown: no control characters, not too long.
pub fn escape(line: &str) -> String {
    let shown = vc_types::one_line(line);
    match shown.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// Reads a pipe to its end into `log`, and reports each line to this process's own log as
/// `source`. A log that cannot be written does not stop the reading: a full pipe would stop the
/// guest.
pub async fn drain(
    pipe: OwnedFd,
    mut log: BoundedLog,
    sandbox: vc_types::SandboxId,
    source: &'static str,
) {
    let receiver = match pipe::Receiver::from_owned_fd(pipe) {
        Ok(receiver) => receiver,
        Err(error) => {
            warn!(%sandbox, source, %error, "cannot read the pipe");
            return;
        }
    };
    let mut buffer = vec![0; READ_BYTES];
    let mut is_writable = true;
    loop {
        if receiver.readable().await.is_err() {
            return;
        }
        let read = match receiver.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => {
                warn!(%sandbox, source, %error, "cannot read on");
                return;
            }
        };
        if tracing::enabled!(tracing::Level::DEBUG) {
            for line in String::from_utf8_lossy(read).lines() {
                debug!(%sandbox, source, line = escape(line));
            }
        }
        if let Err(error) = log.append(read)
            && std::mem::take(&mut is_writable)
        {
            warn!(%sandbox, source, %error, "cannot write the log; its rest may be missing");
        }
        // A guest that never stops printing must not keep the others of this thread waiting.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(bytes_max: u64) -> (File, BoundedLog) {
        let file = tempfile::tempfile().unwrap();
        let log = BoundedLog::new(file.try_clone().unwrap(), bytes_max).unwrap();
        (file, log)
    }

    #[test]
    fn what_tells_of_the_end_is_quoted_from_where_it_begins() {
        let (file, mut log) = log(4096);
        log.append(b"one\ntwo\nthree\n").unwrap();
        assert_eq!(telling_lines(&file, 2).unwrap(), ["two", "three"]);
        log.append(b"[1] Kernel panic - not syncing: x\ntrace\ntrace\n")
            .unwrap();
        let told = telling_lines(&file, 2).unwrap();
        assert_eq!(told, ["[1] Kernel panic - not syncing: x", "trace"]);
    }

    #[test]
    fn the_newest_lines_stay() {
        let (file, mut log) = log(4096);
        for number in 0..2_000 {
            log.append(format!("line {number}\r\n").as_bytes()).unwrap();
            assert!(file.metadata().unwrap().len() <= 4096);
        }
        assert_eq!(last_lines(&file, 2).unwrap(), ["line 1998", "line 1999"]);
        let mut text = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut text, 0).unwrap();
        assert!(text.starts_with(DROPPED));
    }

    #[test]
    fn nothing_of_a_stranger_reaches_a_terminal_as_it_is() {
        let (file, mut log) = log(4096);
        log.append(b"\x1b[2Jgone\x07\n\n\xff\xfe\n").unwrap();
        log.append(&[b'x'; 1000]).unwrap();
        let lines = last_lines(&file, 10).unwrap();
        assert_eq!(lines[0], "\\u{1b}[2Jgone\\u{7}");
        assert!(!lines.concat().chars().any(char::is_control));
        assert!(
            lines
                .iter()
                .all(|line| line.chars().count() <= LINE_CHARS_MAX + 1)
        );
    }

    proptest! {
        #[test]
        fn a_log_never_outgrows_its_limit(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..40),
            bytes_max in 128u64..1024,
        ) {
            let (file, mut log) = log(bytes_max);
            for piece in pieces {
                log.append(&piece).unwrap();
                let len = file.metadata().unwrap().len();
                prop_assert!(len <= bytes_max && len == log.len);
            }
            prop_assert!(last_lines(&file, 10).unwrap().len() <= 10);
        }
    }
}
