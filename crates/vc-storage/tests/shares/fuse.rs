//! A FUSE client that asks what no kernel would ask.

use std::os::unix::net::UnixStream;

use crate::queue::Queue;

pub(crate) const ROOT: u64 = 1;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const SETATTR: u32 = 4;
const READLINK: u32 = 5;
const SYMLINK: u32 = 6;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const RMDIR: u32 = 11;
const LINK: u32 = 13;
const OPEN: u32 = 14;
const READ: u32 = 15;
const SETXATTR: u32 = 21;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const CREATE: u32 = 35;
const RENAME2: u32 = 45;

/// Of the flags of an opened file.
const KEEP_CACHE: u64 = 1 << 1;

/// What is to be set.
const SET_MODE: u32 = 1;

const HEADER_BYTES: usize = 40;
const ANSWER_HEADER_BYTES: usize = 16;
/// Where the attributes are in the answer to a lookup, and the mode and owner in them.
const ENTRY_ATTRIBUTES: usize = 40;
const MODE: usize = ENTRY_ATTRIBUTES + 60;
const OWNER: usize = MODE + 8;

/// A system's error number.
pub(crate) type Errno = i32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    /// How long its name and its attributes are believed, in seconds.
    pub(crate) valid_s: [u64; 2],
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
}

pub(crate) struct Client {
    queue: Queue,
    /// As whom requests are made.
    pub(crate) uid: u32,
    number: u64,
}

impl Client {
    pub(crate) fn connect(socket: UnixStream) -> Self {
        let mut client = Self {
            queue: Queue::connect(socket),
            uid: 0,
            number: 0,
        };
        let mut body = Vec::new();
        for word in [7u32, 31, 1 << 16, 0] {
            body.extend(word.to_le_bytes());
        }
        client.ask(INIT, 0, &body).unwrap();
        client
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &str) -> Result<Entry, Errno> {
        self.ask(LOOKUP, parent, &text(&[name])).map(|a| entry(&a))
    }

    /// Follows plain names from the root.
    pub(crate) fn walk(&mut self, path: &str) -> Result<Entry, Errno> {
        let root = Entry {
            node: ROOT,
            valid_s: [0; 2],
            inode: 0,
            mode: 0,
            uid: 0,
        };
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(root, |at, name| self.lookup(at.node, name))
    }

    pub(crate) fn readlink(&mut self, node: u64) -> Result<String, Errno> {
        let answer = self.ask(READLINK, node, &[])?;
        Ok(String::from_utf8(answer).unwrap())
    }

    pub(crate) fn open(&mut self, node: u64, flags: u32) -> Result<u64, Errno> {
        let answer = self.ask(OPEN, node, &words(&[flags, 0]))?;
        Ok(number(&answer, 0))
    }

    /// Whether content that is known may be kept when the file is opened.
    pub(crate) fn keeps(&mut self, node: u64) -> Result<bool, Errno> {
        let answer = self.ask(OPEN, node, &words(&[0, 0]))?;
        Ok(number(&answer, 8) & KEEP_CACHE != 0)
    }

    pub(crate) fn read(&mut self, node: u64) -> Result<Vec<u8>, Errno> {
        let handle = self.open(node, 0)?;
        self.read_with(READ, node, handle)
    }

    pub(crate) fn names(&mut self, node: u64) -> Result<Vec<String>, Errno> {
        let answer = self.ask(OPENDIR, node, &words(&[0, 0]))?;
        let listing = self.read_with(READDIR, node, number(&answer, 0))?;
        let mut names = Vec::new();
        let mut rest = &listing[..];
        while rest.len() >= 24 {
            let length = u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
            names.push(String::from_utf8_lossy(&rest[24..24 + length]).into_owned());
            rest = &rest[(24 + length).next_multiple_of(8).min(rest.len())..];
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    fn read_with(&mut self, what: u32, node: u64, handle: u64) -> Result<Vec<u8>, Errno> {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(0u64.to_le_bytes());
        body.extend(words(&[64 << 10, 0]));
        body.extend(0u64.to_le_bytes());
        body.extend(words(&[0, 0]));
        self.ask(what, node, &body)
    }

    pub(crate) fn create(&mut self, parent: u64, name: &str) -> Result<Entry, Errno> {
        let create_and_write = 0o101;
        let mut body = words(&[create_and_write, 0o644, 0, 0]);
        body.extend(text(&[name]));
        self.ask(CREATE, parent, &body).map(|a| entry(&a))
    }

    pub(crate) fn mkdir(&mut self, parent: u64, name: &str) -> Result<Entry, Errno> {
        let mut body = words(&[0o755, 0]);
        body.extend(text(&[name]));
        self.ask(MKDIR, parent, &body).map(|a| entry(&a))
    }

    pub(crate) fn mknod(
        &mut self,
        parent: u64,
        name: &str,
        mode: u32,
        device: u32,
    ) -> Result<Entry, Errno> {
        let mut body = words(&[mode, device, 0, 0]);
        body.extend(text(&[name]));
        self.ask(MKNOD, parent, &body).map(|a| entry(&a))
    }

    pub(crate) fn symlink(
        &mut self,
        parent: u64,
        name: &str,
        target: &str,
    ) -> Result<Entry, Errno> {
        self.ask(SYMLINK, parent, &text(&[name, target]))
            .map(|a| entry(&a))
    }

    pub(crate) fn unlink(&mut self, parent: u64, name: &str) -> Result<(), Errno> {
        self.ask(UNLINK, parent, &text(&[name])).map(drop)
    }

    pub(crate) fn rmdir(&mut self, parent: u64, name: &str) -> Result<(), Errno> {
        self.ask(RMDIR, parent, &text(&[name])).map(drop)
    }

    pub(crate) fn set_mode(&mut self, node: u64, mode: u32) -> Result<(), Errno> {
        let mut body = vec![0; 88];
        body[0..4].copy_from_slice(&SET_MODE.to_le_bytes());
        body[68..72].copy_from_slice(&mode.to_le_bytes());
        self.ask(SETATTR, node, &body).map(drop)
    }

    pub(crate) fn set_attribute(&mut self, node: u64, name: &str) -> Result<(), Errno> {
        let value = [b'x'];
        let mut body = words(&[1, 0]);
        body.extend(text(&[name]));
        body.extend(value);
        self.ask(SETXATTR, node, &body).map(drop)
    }

    /// The share says nothing to that.
    pub(crate) fn forget(&mut self, node: u64, times: u64) {
        let request = self.request(FORGET, node, &times.to_le_bytes());
        let answer = self.queue.ask(&request);
        assert!(answer.is_empty());
    }

    pub(crate) fn link(&mut self, node: u64, parent: u64, name: &str) -> Result<Entry, Errno> {
        let mut body = node.to_le_bytes().to_vec();
        body.extend(text(&[name]));
        self.ask(LINK, parent, &body).map(|a| entry(&a))
    }

    pub(crate) fn rename(&mut self, parent: u64, from: &str, to: &str) -> Result<(), Errno> {
        let mut body = parent.to_le_bytes().to_vec();
        body.extend(words(&[0, 0]));
        body.extend(text(&[from, to]));
        self.ask(RENAME2, parent, &body).map(drop)
    }

    fn request(&mut self, what: u32, node: u64, body: &[u8]) -> Vec<u8> {
        self.number += 1;
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap();
        let mut request = words(&[length, what]);
        request.extend(self.number.to_le_bytes());
        request.extend(node.to_le_bytes());
        request.extend(words(&[self.uid, self.uid, 1, 0]));
        request.extend(body);
        request
    }

    fn ask(&mut self, what: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let request = self.request(what, node, body);
        let answer = self.queue.ask(&request);
        let error = i32::from_le_bytes(answer[4..8].try_into().unwrap());
        assert_eq!(number(&answer, 8), self.number);
        if error == 0 {
            Ok(answer[ANSWER_HEADER_BYTES..].to_vec())
        } else {
            Err(-error)
        }
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn text(texts: &[&str]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .collect()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn entry(answer: &[u8]) -> Entry {
    let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
    Entry {
        node: number(answer, 0),
        valid_s: [16, 24].map(|at| number(answer, at)),
        inode: number(answer, ENTRY_ATTRIBUTES),
        mode: word(MODE),
        uid: word(OWNER),
    }
}
