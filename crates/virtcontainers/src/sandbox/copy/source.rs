//! What a source is called in its archive.

use std::path::Path;

use crate::error::Result;

/// The last name of a path; none for one that means what is in a directory.
pub(super) fn root_of(path: &str) -> Option<&str> {
    if path == "." || path.ends_with("/.") {
        return None;
    }
    Path::new(path).file_name()?.to_str()
}

/// The name of the archive's first entry.
pub(super) fn root_name(path: &str) -> &str {
    root_of(path).unwrap_or(".")
}

/// As [`root_of`], for a path of the host.
pub(super) fn local_root(path: &Path) -> Result<Option<&str>> {
    match path.to_str() {
        Some(text) => Ok(root_of(text)),
        None => Err(tree_archive::Error::Unsuitable {
            path: path.to_owned(),
            reason: "is not UTF-8, which the name of a copy has to be",
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_name_or_means_what_is_in_a_directory() {
        for (path, name) in [
            ("/etc", Some("etc")),
            ("etc/", Some("etc")),
            ("/a/b//", Some("b")),
            ("/a/.b", Some(".b")),
            ("/etc/.", None),
            (".", None),
            ("..", None),
            ("/a/..", None),
            ("/", None),
        ] {
            assert_eq!(root_of(path), name, "{path}");
        }
    }
}
