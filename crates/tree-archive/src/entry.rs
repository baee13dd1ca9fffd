//! One entry of an archive, as both directions know it.

use std::path::PathBuf;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    /// Another name of a file before it.
    HardLink,
    Fifo,
    CharDevice,
    BlockDevice,
}

/// A file's description, without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) name: PathBuf,
    /// What a link leads to.
    pub(crate) link: Option<PathBuf>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Time,
    /// Bytes that follow.
    pub(crate) size: u64,
    /// The numbers of a device.
    pub(crate) device: (u32, u32),
}

/// A time since 1970, as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    /// Below a second; counts forward before 1970 too.
    pub(crate) nanoseconds: u32,
}

const SECOND: u32 = 1_000_000_000;

impl Time {
    /// Reads the form of pax: seconds with a fraction.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let fraction: String = fraction
            .chars()
            .chain("000000000".chars())
            .take(9)
            .collect();
        let nanoseconds: u32 = fraction.parse().ok()?;
        Some(match (negative, nanoseconds) {
            (false, nanoseconds) => Self {
                seconds,
                nanoseconds,
            },
            (true, 0) => Self {
                seconds: -seconds,
                nanoseconds: 0,
            },
            (true, nanoseconds) => Self {
                seconds: -seconds - 1,
                nanoseconds: SECOND - nanoseconds,
            },
        })
    }

    /// Writes the form of pax; nothing where a header's whole seconds say as much.
    pub(crate) fn to_pax(self) -> Option<String> {
        let Self {
            seconds,
            nanoseconds,
        } = self;
        match (seconds, nanoseconds) {
            (0.., 0) => None,
            (0.., _) => Some(format!("{seconds}.{nanoseconds:09}")),
            (_, 0) => Some(seconds.to_string()),
            (_, _) => Some(format!("-{}.{:09}", -(seconds + 1), SECOND - nanoseconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_being_written() {
        for (seconds, nanoseconds) in [
            (0, 1),
            (1_700_000_000, 123_456_789),
            (-1, 0),
            (-2, 500_000_000),
            (-1, 1),
        ] {
            let time = Time {
                seconds,
                nanoseconds,
            };
            assert_eq!(Time::parse(&time.to_pax().unwrap()), Some(time));
        }
        assert_eq!(Time::parse("5").unwrap().to_pax(), None);
        for odd in ["", "-", "1.x", "x", "99999999999999999999", "1e5", "--1"] {
            assert_eq!(Time::parse(odd), None, "{odd}");
        }
    }
}
