use crate::limits::GUEST_TEXT_BYTES_MAX;

/// A stranger's text as a person may see it: one line, bounded, and without anything that a
/// terminal obeys or that changes the order in which text reads. What is taken out is escaped.
///
/// ```
/// assert_eq!(vc_types::one_line("a\u{1b}[2Jb\tc\nvirtc: d"), "a\\u{1b}[2Jb c\\nvirtc: d");
/// ```
pub fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(GUEST_TEXT_BYTES_MAX));
    for c in text.trim_end().chars() {
        if shown.len() >= GUEST_TEXT_BYTES_MAX {
            shown.push('…');
            break;
        }
        match c {
            '\t' => shown.push(' '),
            c if c.is_control() || turns_text(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// The characters of Unicode's bidirectional algorithm that are seen by their effect alone.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_that_is_turned_round_is_shown_as_it_is() {
        assert_eq!(one_line("a\u{202e}b"), "a\\u{202e}b");
    }

    proptest! {
        #[test]
        fn it_is_always_one_bounded_line(text in ".{0,2000}\n?.{0,3000}") {
            let shown = one_line(&text);
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert!(shown.len() <= GUEST_TEXT_BYTES_MAX + 16);
        }
    }
}
