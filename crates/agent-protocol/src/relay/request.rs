use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::text_prefix;

/// Bytes of a line, its end included.
pub const LINE_BYTES_MAX: usize = 256;

/// What a relayed connection is for.
///
/// ```
/// use agent_protocol::relay::Request;
///
/// let request: Request = "dial 127.0.0.1:8080".parse()?;
/// assert_eq!(request, Request::Dial("127.0.0.1:8080".parse()?));
/// assert!("dial 192.0.2.1:8080".parse::<Request>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Connect to this loopback address of the guest.
    Dial(SocketAddr),
    /// Take the queries that the guest sends to port 53 of this loopback address.
    Resolve(IpAddr),
}

/// A line that is none of the protocol's.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no request of a relay")]
pub struct BadLine(String);

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(address) => write!(f, "dial {address}"),
            Self::Resolve(address) => write!(f, "resolve {address}"),
        }
    }
}

impl FromStr for Request {
    type Err = BadLine;

    fn from_str(line: &str) -> Result<Self, BadLine> {
        let parsed = match line.split_once(' ') {
            Some(("dial", address)) => address.parse().ok().map(Self::Dial),
            Some(("resolve", address)) => address.parse().ok().map(Self::Resolve),
            _ => None,
        };
        let parsed = parsed.filter(|request| request.address().is_loopback());
        parsed.ok_or_else(|| BadLine(text_prefix(line, LINE_BYTES_MAX).to_owned()))
    }
}

impl Request {
    fn address(self) -> IpAddr {
        match self {
            Self::Dial(address) => address.ip(),
            Self::Resolve(address) => address,
        }
    }

    /// The line that says it.
    pub fn line(self) -> String {
        format!("{self}\n")
    }
}

/// What the agent says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Frames follow.
    Ok,
    /// Nothing does, and why.
    Error(String),
}

impl Answer {
    /// The line that says it, shortened to what a line may be.
    pub fn line(&self) -> String {
        match self {
            Self::Ok => "ok\n".to_owned(),
            Self::Error(reason) => {
                let line = format!("error {}", vc_types::one_line(reason));
                format!("{}\n", text_prefix(&line, LINE_BYTES_MAX - 1))
            }
        }
    }

    /// Reads such a line; what is neither is an error too.
    pub fn parse(line: &str) -> Self {
        match line.strip_prefix("error ") {
            Some(reason) => Self::Error(reason.to_owned()),
            None if line == "ok" => Self::Ok,
            None => Self::Error(format!("{line:?} is no answer")),
        }
    }
}

/// Reads a line, without its end, and nothing that follows it.
///
/// # Errors
///
/// `UnexpectedEof` at the end of the connection, `InvalidData` for a line that is too long or no
/// text, and those of the connection.
pub async fn read_line(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match reader.read_u8().await? {
            b'\n' => break,
            _ if line.len() + 1 == LINE_BYTES_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a long line"));
            }
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_asked_for() {
        for line in [
            "dial 127.0.0.1:80",
            "dial [::1]:80",
            "resolve 127.0.0.11",
            "resolve ::1",
        ] {
            let request: Request = line.parse().unwrap();
            assert_eq!(request.line(), format!("{line}\n"));
        }
        for line in [
            "dial 10.0.0.1:80",
            "dial 127.0.0.1",
            "resolve 8.8.8.8",
            "resolve 127.0.0.1:53",
            "dial",
            "",
        ] {
            assert!(line.parse::<Request>().is_err(), "{line}");
        }
    }

    #[test]
    fn an_answer_is_one_line_however_long_its_reason() {
        let reason = "no\nway ".repeat(200);
        let line = Answer::Error(reason).line();
        assert!(line.len() <= LINE_BYTES_MAX && line.ends_with('\n'));
        assert_eq!(line.matches('\n').count(), 1);
        let answer = Answer::parse(line.trim_end_matches('\n'));
        assert!(matches!(answer, Answer::Error(reason) if reason.starts_with("no")));
        assert_eq!(Answer::parse("ok"), Answer::Ok);
    }

    #[tokio::test]
    async fn a_line_is_read_alone_and_not_for_ever() {
        let mut bytes = &b"ok\nrest"[..];
        assert_eq!(read_line(&mut bytes).await.unwrap(), "ok");
        assert_eq!(bytes, b"rest");
        let long = [b'x'; LINE_BYTES_MAX];
        let error = read_line(&mut &long[..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
