use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Bytes of the digest that make an id: enough for no two to be alike by chance.
const BYTES: usize = 16;

/// The form of a template's files and of the guest that waits. Another one is another template.
const FORM: &str = concat!("form 2 virtcontainers ", env!("CARGO_PKG_VERSION"), "\n");

/// The digest of all that a template is made of: 32 digits of hexadecimal.
///
/// ```
/// let id: virtcontainers::factory::TemplateId = "00112233445566778899aabbccddeeff".parse()?;
/// assert!("../etc".parse::<virtcontainers::factory::TemplateId>().is_err());
/// # Ok::<(), virtcontainers::factory::NoTemplateId>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateId(String);

/// A text that is no template's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no template's id: 32 digits of hexadecimal")]
pub struct NoTemplateId(String);

impl TemplateId {
    pub(super) fn of(parts: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(FORM)
            .chain_update(parts)
            .finalize();
        Self(hex(&digest[..BYTES]))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lower-case hexadecimal.
pub(in crate::factory) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FromStr for TemplateId {
    type Err = NoTemplateId;

    fn from_str(text: &str) -> Result<Self, NoTemplateId> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.len() == 2 * BYTES && text.bytes().all(digit) {
            true => Ok(Self(text.to_owned())),
            false => Err(NoTemplateId(text.to_owned())),
        }
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
