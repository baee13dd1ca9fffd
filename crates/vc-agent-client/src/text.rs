use vc_types::limits::GUEST_TEXT_BYTES_MAX;

/// A guest's text as a person may see it: bounded, and without characters that a terminal obeys.
///
/// ```
/// assert_eq!(vc_agent_client::clean("a\u{1b}[2Jb\tc\n"), "a\u{fffd}[2Jb\tc\n");
/// ```
pub fn clean(text: &str) -> String {
    let mut end = text.len().min(GUEST_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|c| {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "ä".repeat(GUEST_TEXT_BYTES_MAX);
        assert!(clean(&long).len() <= GUEST_TEXT_BYTES_MAX);
    }
}
