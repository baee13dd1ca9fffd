use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A Linux signal by number, 1 to 64, real-time signals included.
///
/// Read from a number, a name, or a name with `SIG`, in either case; `RTMIN+N` and `RTMAX-N`
/// count as in glibc (RTMIN is 34).
///
/// ```
/// use vc_types::Signal;
///
/// assert_eq!("TERM".parse::<Signal>()?, Signal::TERM);
/// assert_eq!("sigrtmin+3".parse::<Signal>()?.number(), 37);
/// # Ok::<(), vc_types::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

const NAMES: [(&str, u8); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    // Other names of the same numbers, and glibc's ends of the real-time range.
    ("IOT", 6),
    ("POLL", 29),
    ("RTMIN", RTMIN),
    ("RTMAX", RTMAX),
];

impl Signal {
    /// The terminal went away.
    pub const HUP: Self = Self(1);
    /// Ctrl-C.
    pub const INT: Self = Self(2);
    /// The end that cannot be refused.
    pub const KILL: Self = Self(9);
    /// The polite end.
    pub const TERM: Self = Self(15);

    /// The signal of this number.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSignal`] for 0 and for what is above 64.
    pub fn from_number(number: u8) -> Result<Self> {
        if (1..=RTMAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(Error::InvalidSignal {
                value: number.to_string(),
            })
        }
    }

    /// Its number on this architecture.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        let unknown = || Error::InvalidSignal {
            value: value.to_owned(),
        };
        let upper = value.trim().to_ascii_uppercase();
        if let Ok(number) = upper.parse::<u8>() {
            return Self::from_number(number);
        }
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        let offset = |text: &str| text.parse::<u8>().ok().filter(|n| *n <= RTMAX - RTMIN);
        if let Some(n) = name.strip_prefix("RTMIN+").and_then(offset) {
            return Ok(Self(RTMIN + n));
        }
        if let Some(n) = name.strip_prefix("RTMAX-").and_then(offset) {
            return Ok(Self(RTMAX - n));
        }
        Err(unknown())
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl TryFrom<u8> for Signal {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        Self::from_number(number)
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> u8 {
        signal.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_signal_reads_back_from_its_display() {
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for bad in [
            "0", "65", "-1", "", "SIG", "FOO", "RTMIN+31", "RTMAX-31", "RTMIN+",
        ] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,20}") {
            let _ = text.parse::<Signal>();
        }
    }
}
