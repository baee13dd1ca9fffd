//! A directory of a cgroup file system, held open.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, XattrFlags, fgetxattr, fsetxattr, fstatfs,
    mkdirat, openat2, unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::error::{Error, Result, io};
use crate::hierarchies::Version;
use crate::limits::{DEPTH_MAX, DESCENDANTS_MAX, FILE_BYTES_MAX};

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const MAGIC_V1: i128 = 0x0027_e0eb;
const MAGIC_V2: i128 = 0x6367_7270;

/// No link is followed, no mount crossed, and nothing above is reached.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// What a parent has that was made for cgroups of ours. It lasts as long as the directory.
const MADE_HERE: &str = "trusted.virtcontainers.made";

#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens the root of a hierarchy, and checks that it is one.
    pub(crate) fn open_mount(mount_point: &Path, version: Version) -> Result<Self> {
        let dir = Self::open_root(mount_point)?;
        let magic = match version {
            Version::V1 => MAGIC_V1,
            Version::V2 => MAGIC_V2,
        };
        let stat = fstatfs(&dir.fd).map_err(io("look at", mount_point))?;
        if i128::from(stat.f_type) != magic {
            return Err(Error::NotMounted { path: dir.path });
        }
        Ok(dir)
    }

    /// Opens a directory as the root of what follows. The kernel's mount points have no links.
    fn open_root(path: &Path) -> Result<Self> {
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(CWD, path, DIRECTORY, Mode::empty(), resolve) {
            Ok(fd) => Ok(Self {
                fd,
                path: path.to_owned(),
            }),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(Error::NotMounted {
                path: path.to_owned(),
            }),
            Err(errno) => Err(io("open", path)(errno)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below this one, or nothing when it is not there.
    pub(crate) fn open(&self, below: impl Arg + Copy) -> Result<Option<Self>> {
        let path = self.path.join(&*below.to_string_lossy());
        match openat2(&self.fd, below, DIRECTORY, Mode::empty(), BENEATH) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(io("open", path)(errno)),
        }
    }

    /// Makes the directory `name`, and says whether it was missing; nothing when this one has
    /// been removed.
    pub(crate) fn make(&self, name: &str) -> Result<Option<bool>> {
        match mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(Some(true)),
            Err(Errno::EXIST) => Ok(Some(false)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(io("make", self.path.join(name))(errno)),
        }
    }

    /// Marks it as made for cgroups of ours, whoever of them leaves it last.
    pub(crate) fn mark(&self) {
        // Where no mark can be set, only its maker removes it.
        if let Err(error) = fsetxattr(&self.fd, MADE_HERE, b"1", XattrFlags::empty()) {
            tracing::debug!(cgroup = %self.path.display(), %error, "not marked");
        }
    }

    /// Whether it was marked.
    pub(crate) fn is_marked(&self) -> bool {
        fgetxattr(&self.fd, MADE_HERE, &mut [0_u8; 1]).is_ok()
    }

    /// Removes the directory `name`, unless something is in it. That it is not there is fine.
    pub(crate) fn remove(&self, name: impl Arg) -> Result<(), Errno> {
        match unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Opens a control file, or nothing when it or the cgroup is not there.
    pub(crate) fn file(&self, name: &str, flags: OFlags) -> Result<Option<OwnedFd>> {
        let flags = flags | OFlags::CLOEXEC;
        match openat2(&self.fd, name, flags, Mode::empty(), BENEATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(io("open", self.path.join(name))(errno)),
        }
    }

    /// Reads a control file, or nothing when it or the cgroup is not there.
    ///
    /// A threaded cgroup of version 2 has no list of processes: that is nothing too.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>> {
        let Some(file) = self.file(name, OFlags::RDONLY)? else {
            return Ok(None);
        };
        let path = self.path.join(name);
        let mut text = String::new();
        let read = File::from(file)
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text);
        match read {
            Ok(_) if text.len() as u64 > FILE_BYTES_MAX => Err(Error::TooMany {
                path,
                what: "bytes",
                max: FILE_BYTES_MAX,
            }),
            Ok(_) => Ok(Some(text)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
                _ => Err(io("read", path)(error)),
            },
        }
    }

    /// Writes a control file in one piece, as the kernel wants it; false when it or the cgroup is
    /// not there.
    pub(crate) fn write(&self, name: &str, value: &str) -> Result<bool> {
        let Some(file) = self.file(name, OFlags::WRONLY)? else {
            return Ok(false);
        };
        match rustix::io::write(file, value.as_bytes()) {
            Ok(_) => Ok(true),
            Err(Errno::NODEV) => Ok(false),
            Err(errno) => Err(io("write", self.path.join(name))(errno)),
        }
    }

    /// The error that says that it is not there any more.
    pub(crate) fn gone(&self) -> Error {
        Error::Gone {
            path: self.path.clone(),
        }
    }

    /// The names of the directories in it.
    pub(crate) fn children(&self) -> Result<Vec<CString>> {
        let fail = |errno| io("list", &self.path)(errno);
        let mut names = Vec::new();
        let entries = match rustix::fs::Dir::read_from(&self.fd) {
            Ok(entries) => entries,
            // It was removed meanwhile.
            Err(Errno::NOENT | Errno::NODEV) => return Ok(names),
            Err(errno) => return Err(fail(errno)),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT | Errno::NODEV) => break,
                Err(errno) => return Err(fail(errno)),
            };
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..")
            {
                names.push(name.to_owned());
            }
            if names.len() > DESCENDANTS_MAX {
                return Err(self.too_many("cgroups", DESCENDANTS_MAX));
            }
        }
        Ok(names)
    }

    /// Calls `visit` with each directory below this one, children first, and with its parent and
    /// name; then with the next.
    pub(crate) fn descend(&self, visit: &mut Visit<'_>) -> Result<()> {
        let mut left = DESCENDANTS_MAX;
        self.descend_to(DEPTH_MAX, &mut left, visit)
    }

    fn descend_to(&self, depth: usize, left: &mut usize, visit: &mut Visit<'_>) -> Result<()> {
        for name in self.children()? {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| self.too_many("cgroups", DESCENDANTS_MAX))?;
            let deeper = depth
                .checked_sub(1)
                .ok_or_else(|| self.too_many("levels", DEPTH_MAX))?;
            if let Some(child) = self.open(name.as_c_str())? {
                child.descend_to(deeper, left, visit)?;
                visit(self, &name, &child)?;
            }
        }
        Ok(())
    }

    fn too_many(&self, what: &'static str, max: usize) -> Error {
        Error::TooMany {
            path: self.path.clone(),
            what,
            max: max as u64,
        }
    }
}

/// What is done with a directory: its parent, its name, and itself.
pub(crate) type Visit<'a> = dyn FnMut(&Dir, &CString, &Dir) -> Result<()> + 'a;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// `root` with `a/b`, a file in it, and beside it `secret`.
    fn tree() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("root/a/b")).unwrap();
        fs::create_dir_all(temp.path().join("secret/inner")).unwrap();
        fs::write(temp.path().join("root/a/file"), "text").unwrap();
        fs::write(temp.path().join("secret/file"), "secret").unwrap();
        let dir = Dir::open_root(&temp.path().join("root")).unwrap();
        (temp, dir)
    }

    #[test]
    fn no_name_leads_out() {
        let (temp, dir) = tree();
        symlink(temp.path().join("secret"), temp.path().join("root/link")).unwrap();
        symlink("../../secret/file", temp.path().join("root/a/file-link")).unwrap();
        symlink("b", temp.path().join("root/a/inside")).unwrap();
        let absolute = temp.path().join("secret");
        let absolute = absolute.to_str().unwrap();
        for name in [
            "link",
            "link/inner",
            "../secret",
            "a/../../secret",
            "a/inside",
            absolute,
        ] {
            assert!(dir.open(name).is_err(), "{name}");
        }
        let a = dir.open("a").unwrap().unwrap();
        assert!(a.read("file-link").is_err());
        assert!(a.write("file-link", "x").is_err());
        assert_eq!(a.read("file").unwrap().unwrap(), "text");
        assert_eq!(
            fs::read_to_string(temp.path().join("secret/file")).unwrap(),
            "secret"
        );
    }

    #[test]
    fn a_link_is_no_child_and_is_not_removed() {
        let (temp, dir) = tree();
        symlink(temp.path().join("secret"), temp.path().join("root/link")).unwrap();
        let mut seen = Vec::new();
        dir.descend(&mut |_, name, child| {
            seen.push((name.to_str().unwrap().to_owned(), child.path().to_owned()));
            Ok(())
        })
        .unwrap();
        let root = temp.path().join("root");
        assert_eq!(
            seen,
            [("b".into(), root.join("a/b")), ("a".into(), root.join("a"))]
        );
        assert!(dir.remove("link").is_err());
        assert!(temp.path().join("secret/inner").exists());
    }

    #[test]
    fn what_is_missing_is_nothing_and_no_error() {
        let (_temp, dir) = tree();
        assert!(dir.open("x").unwrap().is_none());
        assert!(dir.open("x/y").unwrap().is_none());
        assert!(dir.read("x").unwrap().is_none());
        assert!(dir.remove("x").is_ok());
        assert!(!dir.write("x", "1").unwrap());
        assert_eq!(dir.make("a").unwrap(), Some(false));
        assert_eq!(dir.make("c").unwrap(), Some(true));
        // It is removed while it is held open.
        let c = dir.open("c").unwrap().unwrap();
        dir.remove("c").unwrap();
        assert!(c.children().unwrap().is_empty());
        assert_eq!(c.make("d").unwrap(), None);
    }

    #[test]
    fn what_is_no_cgroup_file_system_is_refused() {
        let (temp, _dir) = tree();
        for path in [temp.path().join("root"), temp.path().join("none")] {
            let error = Dir::open_mount(&path, Version::V2).unwrap_err();
            assert!(matches!(error, Error::NotMounted { .. }));
        }
    }

    #[test]
    fn a_tree_without_an_end_is_left() {
        let (temp, dir) = tree();
        let deep: PathBuf = (0..=DEPTH_MAX).map(|_| "d").collect();
        fs::create_dir_all(temp.path().join("root").join(deep)).unwrap();
        let error = dir.descend(&mut |_, _, _| Ok(())).unwrap_err();
        assert!(matches!(error, Error::TooMany { what: "levels", .. }));
    }
}
