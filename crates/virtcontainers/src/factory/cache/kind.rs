use std::fmt;

use sha2::{Digest, Sha256};

use crate::factory::template::hex;

/// Bytes of the digest that make a kind: enough for no two to be alike by chance.
const BYTES: usize = 16;

/// The form of what a holder and a taker say to each other, and of what they share on disk. With
/// another one, nobody takes what waits.
pub(crate) const FORM: &str = concat!("form 1 virtcontainers ", env!("CARGO_PKG_VERSION"));

/// What a waiting machine is and has: the digest of it, 32 digits of hexadecimal. Only a sandbox of
/// the same kind gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(String);

impl Kind {
    pub(crate) fn of(key: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(FORM)
            .chain_update("\n")
            .chain_update(key)
            .finalize();
        Self(hex(&digest[..BYTES]))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_part_is_another_kind() {
        assert_eq!(Kind::of("a").as_str().len(), 2 * BYTES);
        assert_eq!(Kind::of("a"), Kind::of("a"));
        assert_ne!(Kind::of("a"), Kind::of("b"));
    }
}
