//! What the host asks to be copied.

use std::path::{Path, PathBuf};

use agent_protocol::virtc::{self, PackPathRequest, UnpackPathRequest};
use tree_archive::{Incoming, Pack};

use crate::error::{Error, Result};
use crate::launch::Copy;

/// Bytes of a path, as the kernel's.
const PATH_BYTES_MAX: usize = 4096;

pub(super) fn copy_out(request: &PackPathRequest) -> Result<Copy> {
    Ok(Copy::Out(Pack {
        path: path(&request.path)?,
        root: match request.root.as_str() {
            "." => ".".into(),
            root => name(root)?.into(),
        },
        follow: request.follow,
    }))
}

pub(super) fn copy_in(request: &UnpackPathRequest) -> Result<Copy> {
    let incoming = match request.incoming.enum_value() {
        Ok(virtc::Incoming::ARCHIVE) => Incoming::Archive,
        Ok(virtc::Incoming::NAMED) => Incoming::Named(name(&request.root)?.to_owned()),
        Ok(virtc::Incoming::CONTENTS) => Incoming::Contents,
        Err(number) => {
            return Err(Error::Invalid {
                field: "incoming",
                value: number.to_string(),
                reason: "is not known",
            });
        }
    };
    Ok(Copy::In {
        path: path(&request.path)?,
        incoming,
        owners: request.owners,
    })
}

/// A path from the container's root.
fn path(text: &str) -> Result<PathBuf> {
    let reason = match text {
        "" => "is empty",
        text if text.len() >= PATH_BYTES_MAX => "is too long",
        text if text.contains('\0') => "has a NUL byte",
        text => return Ok(Path::new("/").join(text)),
    };
    Err(Error::Invalid {
        field: "path",
        value: text.chars().take(64).collect(),
        reason,
    })
}

/// A name without directories.
fn name(text: &str) -> Result<&str> {
    match text {
        "" | "." | ".." => {}
        text if text.len() > 255 || text.contains(['/', '\0']) => {}
        text => return Ok(text),
    }
    Err(Error::Invalid {
        field: "root",
        value: text.chars().take(64).collect(),
        reason: "is not a name",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_containers_root_and_odd_ones_are_refused_by_name() {
        assert_eq!(path("a/").unwrap().as_os_str(), "/a/");
        assert_eq!(path("/a/.").unwrap().as_os_str(), "/a/.");
        for odd in ["", "a\0b", &"a".repeat(PATH_BYTES_MAX)] {
            assert!(path(odd).unwrap_err().to_string().contains("path"));
        }
        for odd in ["", ".", "..", "a/b", "a\0", &"a".repeat(256)] {
            assert!(name(odd).unwrap_err().to_string().contains("root"));
        }
    }
}
