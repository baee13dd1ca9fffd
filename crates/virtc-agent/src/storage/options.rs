//! Mount options as words, split into what the kernel takes as flags and what the file system
//! takes as text.

use std::ffi::CString;

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::error::{Error, Result};

/// Bytes of a file system's options: the kernel takes one page.
const DATA_BYTES_MAX: usize = 4095;

/// Options that were split.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) flags: MountFlags,
    pub(super) recursive: bool,
    pub(super) propagation: Option<MountPropagationFlags>,
    pub(super) data: CString,
}

impl Options {
    /// Splits `words`. A later word undoes an earlier one of its kind.
    pub(super) fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self {
            flags: MountFlags::empty(),
            recursive: false,
            propagation: None,
            data: CString::default(),
        };
        let mut data: Vec<&str> = Vec::new();
        for word in words
            .iter()
            .flat_map(|word| word.split(','))
            .filter(|word| !word.is_empty())
        {
            if let Some((flag, set)) = flag(word) {
                options.flags.set(flag, set);
            } else if let Some(propagation) = propagation(word) {
                options.propagation = Some(propagation);
            } else {
                match word {
                    "defaults" | "bind" => {}
                    "rbind" => options.recursive = true,
                    word => data.push(word),
                }
            }
        }
        let data = data.join(",");
        let refuse = |reason| Error::Invalid {
            field: "mount options",
            value: data.clone(),
            reason,
        };
        if data.len() > DATA_BYTES_MAX {
            return Err(refuse("are longer than a page"));
        }
        options.data =
            CString::new(data.as_bytes()).map_err(|_| refuse("have a NUL byte in them"))?;
        Ok(options)
    }
}

fn flag(word: &str) -> Option<(MountFlags, bool)> {
    Some(match word {
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        "dirsync" => (MountFlags::DIRSYNC, true),
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "norelatime" => (MountFlags::RELATIME, false),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "lazytime" => (MountFlags::LAZYTIME, true),
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    let (word, recursive) = match word.strip_prefix('r') {
        Some(rest) if word != "ro" => (rest, MountPropagationFlags::REC),
        _ => (word, MountPropagationFlags::empty()),
    };
    let kind = match word {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&words).unwrap()
    }

    #[test]
    fn flags_and_text_are_told_apart() {
        let options = parse(&["ro", "nodev,noexec", "lowerdir=/a:/b", "size=10%", "dev"]);
        assert_eq!(options.flags, MountFlags::RDONLY | MountFlags::NOEXEC);
        assert_eq!(options.data.to_str().unwrap(), "lowerdir=/a:/b,size=10%");
        assert!(!options.recursive);
    }

    #[test]
    fn binds_and_propagation_are_no_text() {
        let options = parse(&["rbind", "rprivate", "rw"]);
        assert!(options.recursive);
        assert_eq!(
            options.propagation,
            Some(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        );
        assert_eq!(options.data.to_bytes(), b"");
        assert_eq!(
            parse(&["slave"]).propagation,
            Some(MountPropagationFlags::DOWNSTREAM)
        );
    }

    #[test]
    fn more_than_the_kernel_takes_is_refused() {
        assert!(Options::parse(&["x".repeat(DATA_BYTES_MAX + 1)]).is_err());
        assert!(Options::parse(&["a\0b".to_owned()]).is_err());
    }
}
