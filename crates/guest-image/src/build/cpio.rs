//! The archive that the kernel unpacks as its first root: cpio, the form "newc".
//!
//! By hand, since it is forty lines, and the crates for it put times and owners of the host in.

/// The kind of an entry, with its content.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// A directory.
    Directory,
    /// A file that may be executed or not.
    File {
        /// Its bytes.
        content: &'a [u8],
        /// Whether it is a program.
        executable: bool,
    },
    /// A character device.
    CharDevice {
        /// The driver's number.
        major: u32,
        /// The device's number.
        minor: u32,
    },
}

/// Makes an archive. All owners are root, all times zero, and the order is that of the calls.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// Padding of the whole, as the kernel's own tool has it.
const ARCHIVE_ALIGNMENT: usize = 512;

impl Archive {
    /// Adds an entry; its directory must have been added before.
    pub fn add(&mut self, path: &str, entry: Entry<'_>) {
        match entry {
            Entry::Directory => self.append(path, S_IFDIR | 0o755, 2, (0, 0), &[]),
            Entry::File {
                content,
                executable,
            } => {
                let mode = if executable { 0o755 } else { 0o644 };
                self.append(path, S_IFREG | mode, 1, (0, 0), content);
            }
            Entry::CharDevice { major, minor } => {
                self.append(path, S_IFCHR | 0o600, 1, (major, minor), &[]);
            }
        }
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.append("TRAILER!!!", 0, 1, (0, 0), &[]);
        self.pad(ARCHIVE_ALIGNMENT);
        self.bytes
    }

    fn append(&mut self, name: &str, mode: u32, links: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        // Inode, mode, uid, gid, links, mtime, size, device of the file, device it stands for,
        // size of the name with its zero, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            content.len() as u32,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, alignment: usize) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(alignment), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_form_says() {
        let mut archive = Archive::default();
        archive.add("dev", Entry::Directory);
        archive.add("dev/console", Entry::CharDevice { major: 5, minor: 1 });
        archive.add(
            "init",
            Entry::File {
                content: b"abc",
                executable: true,
            },
        );
        let bytes = archive.finish();
        assert_eq!(bytes.len() % ARCHIVE_ALIGNMENT, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("07070100000001000041ed0000000000000000000000020000000000000000"));
        assert!(text.contains("00000005000000010000000c00000000dev/console\0"));
        assert!(text.contains("init\0\0abc\0"));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}
