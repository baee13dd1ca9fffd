//! The line with which a host program names the guest's port.

use crate::limits::CONNECT_LINE_BYTES_MAX;

/// The line is not `CONNECT <port>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Collects the line `CONNECT <port>\n`, which may come in pieces.
///
/// Bytes behind the line belong to the stream and are not taken.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    line: Vec<u8>,
}

/// What a piece of the line gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes of the piece that belong to the line.
    pub(crate) bytes: usize,
    /// The port, once the line is complete.
    pub(crate) port: Option<u32>,
}

impl Handshake {
    /// Bytes that can still belong to the line.
    pub(crate) fn room(&self) -> usize {
        CONNECT_LINE_BYTES_MAX - self.line.len()
    }

    /// Takes the part of `piece` that belongs to the line.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when no continuation can make it a line with a port.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<Taken, Malformed> {
        let piece = &piece[..piece.len().min(self.room())];
        match piece.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                self.line.extend_from_slice(&piece[..end]);
                let port = parse(&self.line)?;
                Ok(Taken {
                    bytes: end + 1,
                    port: Some(port),
                })
            }
            None => {
                self.line.extend_from_slice(piece);
                if self.room() == 0 {
                    return Err(Malformed);
                }
                Ok(Taken {
                    bytes: piece.len(),
                    port: None,
                })
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<u32, Malformed> {
    let digits = line.strip_prefix(b"CONNECT ").ok_or(Malformed)?;
    let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let port = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    // The highest number means "any port" and is nobody's.
    port.filter(|&port| port != u32::MAX).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_behind_the_line_are_left() {
        let mut handshake = Handshake::default();
        let taken = handshake.take(b"CONNECT 1024\nhello").unwrap();
        assert_eq!(
            taken,
            Taken {
                bytes: 13,
                port: Some(1024)
            }
        );
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "\n",
            "CONNECT\n",
            "CONNECT \n",
            "CONNECT -1\n",
            "CONNECT +1\n",
            "CONNECT 1 \n",
            "CONNECT 4294967295\n",
            "CONNECT 4294967296\n",
            "connect 1\n",
            "GET / HTTP/1.1\r\n",
            "CONNECT 00000000000000000000000000000001\n",
        ] {
            assert_eq!(
                Handshake::default().take(line.as_bytes()),
                Err(Malformed),
                "{line:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_line_may_come_in_pieces(port in 0..u32::MAX, cuts in prop::collection::vec(1usize..9, 0..40)) {
            let text = format!("CONNECT {port}\n");
            let mut rest = text.as_bytes();
            let mut handshake = Handshake::default();
            let mut cuts = cuts.into_iter();
            loop {
                let (piece, _) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
                let taken = handshake.take(piece).unwrap();
                rest = &rest[taken.bytes..];
                if let Some(found) = taken.port {
                    prop_assert_eq!(found, port);
                    prop_assert!(rest.is_empty());
                    break;
                }
                prop_assert!(!rest.is_empty());
            }
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut handshake = Handshake::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match handshake.take(rest) {
                    Err(Malformed) | Ok(Taken { port: Some(_), .. }) => break,
                    Ok(Taken { bytes, .. }) => {
                        prop_assert!(bytes > 0);
                        rest = &rest[bytes..];
                    }
                }
            }
        }
    }
}
