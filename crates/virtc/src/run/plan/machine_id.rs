//! The machine's own id, in the form of machine-id(5).

use std::path::PathBuf;

use rustix::rand::{GetRandomFlags, getrandom};
use virtcontainers::GeneratedFile;

use crate::error::{Failure, RUN_FAILED};

const PATH: &str = "/etc/machine-id";

/// A file with a new id. That of the host's system is the host's, which it is to tell nobody, and
/// would be the same in each machine.
pub(super) fn file() -> Result<GeneratedFile, Failure> {
    let mut random = [0; 16];
    let filled = getrandom(&mut random, GetRandomFlags::empty());
    filled.map_err(|error| {
        Failure::plain(RUN_FAILED, &error).note("random bytes make the machine's id")
    })?;
    Ok(GeneratedFile {
        destination: PathBuf::from(PATH),
        contents: format!("{:032x}\n", as_uuid(random)).into_bytes(),
    })
}

/// A random UUID, as the format asks for: version 4, variant 1.
fn as_uuid(random: [u8; 16]) -> u128 {
    let fixed = (0xf_u128 << 76) | (0b11_u128 << 62);
    let version = (4_u128 << 76) | (0b10_u128 << 62);
    (u128::from_be_bytes(random) & !fixed) | version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_random_uuid_of_version_4() {
        let digits = |random| format!("{:032x}", as_uuid([random; 16]));
        assert_eq!(digits(0), "00000000000040008000000000000000");
        assert_eq!(digits(0xff), "ffffffffffff4fffbfffffffffffffff");
    }

    #[test]
    fn each_file_has_an_id_of_its_own() {
        let (one, other) = (file().unwrap(), file().unwrap());
        assert_eq!(one.contents.len(), 33);
        assert_ne!(one.contents, other.contents);
    }
}
