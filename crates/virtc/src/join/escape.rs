//! `Enter ~ .` at a terminal ends the machine, as it ends a connection of ssh.

/// What of the input the command gets, and whether the machine is to end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub(crate) pass: Vec<u8>,
    pub(crate) end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Tilde,
    Elsewhere,
}

/// Looks for the escape in what is typed. A tilde at the beginning of a line is held back until
/// the next key; two of them are one.
#[derive(Debug)]
pub(crate) struct Escape(State);

impl Escape {
    pub(crate) fn new() -> Self {
        Self(State::LineStart)
    }

    pub(crate) fn filter(&mut self, typed: &[u8]) -> Filtered {
        let mut pass = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            match (self.0, byte) {
                (State::LineStart, b'~') => {
                    self.0 = State::Tilde;
                    continue;
                }
                (State::Tilde, b'.') => return Filtered { pass, end: true },
                (State::Tilde, b'~') => {}
                (State::Tilde, _) => pass.push(b'~'),
                _ => {}
            }
            pass.push(*byte);
            self.0 = if matches!(byte, b'\r' | b'\n') {
                State::LineStart
            } else {
                State::Elsewhere
            };
        }
        Filtered { pass, end: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(parts: &[&str]) -> (String, bool) {
        let mut escape = Escape::new();
        let mut all = Vec::new();
        for part in parts {
            let filtered = escape.filter(part.as_bytes());
            all.extend(filtered.pass);
            if filtered.end {
                return (String::from_utf8(all).unwrap(), true);
            }
        }
        (String::from_utf8(all).unwrap(), false)
    }

    #[test]
    fn the_escape_counts_at_the_beginning_of_a_line_only() {
        assert_eq!(typed(&["~."]), (String::new(), true));
        assert_eq!(typed(&["ls\r~", "."]), ("ls\r".into(), true));
        assert_eq!(typed(&["ls ~."]), ("ls ~.".into(), false));
        assert_eq!(typed(&["~~.x"]), ("~.x".into(), false));
        assert_eq!(typed(&["~", "a"]), ("~a".into(), false));
    }

    proptest! {
        #[test]
        fn without_a_tilde_everything_passes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let bytes: Vec<u8> = bytes.into_iter().filter(|b| *b != b'~').collect();
            let filtered = Escape::new().filter(&bytes);
            prop_assert_eq!(filtered, Filtered { pass: bytes, end: false });
        }
    }
}
