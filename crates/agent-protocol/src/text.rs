//! Texts are bounded like everything else.

/// The longest beginning of `text` that has at most `bytes_max` bytes and ends with a whole
/// character.
///
/// ```
/// assert_eq!(agent_protocol::text_prefix("häuser", 2), "h");
/// assert_eq!(agent_protocol::text_prefix("haus", 9), "haus");
/// ```
#[must_use]
pub fn text_prefix(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
