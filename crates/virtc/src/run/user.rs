//! Who the command is: looked up in the root's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2};
use vc_config::syntax::{UserPart, UserSpec};

use super::environment::Identity;
use crate::error::{Failure, RUN_FAILED};

/// Bytes of a user or group file that are read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Groups that one user can have (NGROUPS_MAX of Linux).
const GROUPS_MAX: usize = 65_536;

/// Where distributions begin to give ids to people (UID_MIN of login.defs).
const PEOPLE_UID_MIN: u32 = 1000;

/// A user as the command will be it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) identity: Identity,
}

/// The users and groups of one root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads them below `root`, following no link out of it.
    pub(crate) fn read(root: &Path) -> Self {
        let file = |path| read_below(root, path).unwrap_or_default();
        Self {
            passwd: file("etc/passwd"),
            group: file("etc/group"),
        }
    }

    /// Finds a user.
    ///
    /// # Errors
    ///
    /// When a name is not there.
    pub(crate) fn find(&self, spec: &UserSpec) -> Result<User, Failure> {
        let missing = |what, name: &str| {
            Failure::new(RUN_FAILED, format!("the root has no {what} {name:?}"))
                .hint("give its number instead")
        };
        let line = match &spec.user {
            UserPart::Id(uid) => self.passwd_line(|fields| fields[2] == uid.to_string()),
            UserPart::Name(name) => Some(
                self.passwd_line(|fields| fields[0] == *name)
                    .ok_or_else(|| missing("user", name))?,
            ),
        };
        let number = |text: &str| text.parse::<u32>().ok();
        let uid = match (&spec.user, &line) {
            (UserPart::Id(uid), _) => *uid,
            (UserPart::Name(name), Some(fields)) => {
                number(fields[2]).ok_or_else(|| missing("user", name))?
            }
            (UserPart::Name(name), None) => return Err(missing("user", name)),
        };
        let gid = match &spec.group {
            Some(UserPart::Id(gid)) => *gid,
            Some(UserPart::Name(name)) => self
                .groups(|fields| fields[0] == *name)
                .first()
                .copied()
                .ok_or_else(|| missing("group", name))?,
            None => line
                .as_ref()
                .and_then(|fields| number(fields[3]))
                .unwrap_or_default(),
        };
        let name = line
            .as_ref()
            .map_or_else(|| uid.to_string(), |fields| fields[0].to_owned());
        // A group of one's own choice has no further ones, as with podman.
        let groups = match &spec.group {
            Some(_) => Vec::new(),
            None => self.groups(|fields| fields[3].split(',').any(|member| member == name)),
        };
        let field = |index: usize, default: &str| {
            let value = line
                .as_ref()
                .map(|fields| fields[index])
                .filter(|v| !v.is_empty());
            value.unwrap_or(default).to_owned()
        };
        let identity = Identity {
            home: field(5, "/"),
            shell: field(6, "/bin/sh"),
            name,
        };
        Ok(User {
            uid,
            gid,
            groups,
            identity,
        })
    }

    /// The homes of people: of root, and of those whose ids distributions give to people.
    pub(crate) fn homes(&self) -> Vec<PathBuf> {
        self.passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|fields| fields.len() >= 7)
            .filter(|fields| {
                let uid = fields[2].parse::<u32>();
                uid.is_ok_and(|uid| uid == 0 || uid >= PEOPLE_UID_MIN)
            })
            .map(|fields| fields[5])
            .filter(|home| home.starts_with('/') && *home != "/")
            .map(Into::into)
            .collect()
    }

    /// The home of a user of that name.
    pub(crate) fn home(&self, name: &str) -> Option<PathBuf> {
        let line = self.passwd_line(|fields| fields[0] == name)?;
        Some(PathBuf::from(line[5]))
    }

    #[cfg(test)]
    pub(crate) fn from_passwd(passwd: &str) -> Self {
        Self {
            passwd: passwd.to_owned(),
            group: String::new(),
        }
    }

    fn passwd_line(&self, wanted: impl Fn(&[&str]) -> bool) -> Option<Vec<&str>> {
        let mut lines = self
            .passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|fields| fields.len() >= 7 && wanted(fields))
    }

    fn groups(&self, wanted: impl Fn(&[&str]) -> bool) -> Vec<u32> {
        self.group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|fields| fields.len() >= 4 && wanted(fields))
            .filter_map(|fields| fields[2].parse().ok())
            .take(GROUPS_MAX)
            .collect()
    }
}

fn read_below(root: &Path, path: &str) -> io::Result<String> {
    let directory = openat(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Only looked at first: opening a device for reading is a thing in itself, and a pipe's reader
    // waits.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = openat2(directory, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    if !FileType::from_raw_mode(fstat(&place)?.st_mode).is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let by_descriptor = format!("/proc/self/fd/{}", place.as_raw_fd());
    let file = open(by_descriptor, flags, Mode::empty())?;
    let mut text = Vec::new();
    File::from(file)
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:\nbroken:x\n"
                .into(),
            group: "root:x:0:\nann:x:1000:\nwheel:x:10:ann,root\naudio:x:29:ann\n".into(),
        }
    }

    fn find(text: &str) -> Result<User, Failure> {
        accounts().find(&text.parse().unwrap())
    }

    #[test]
    fn a_name_brings_its_groups_home_and_shell() {
        let ann = find("ann").unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups), (1000, 1000, vec![10, 29]));
        assert_eq!(
            (ann.identity.home.as_str(), ann.identity.shell.as_str()),
            ("/home/ann", "/bin/sh")
        );
    }

    #[test]
    fn a_number_need_not_be_there() {
        let user = find("4711").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.identity.home.as_str()),
            (4711, 0, "/")
        );
        assert_eq!(find("1000").unwrap().identity.name, "ann");
    }

    #[test]
    fn a_group_of_ones_own_is_the_only_one() {
        let user = find("ann:audio").unwrap();
        assert_eq!((user.gid, user.groups), (29, vec![]));
    }

    #[test]
    fn a_name_that_is_not_there_is_an_error() {
        assert!(find("bob").is_err() && find("ann:nogroup").is_err() && find("broken").is_err());
    }

    #[test]
    fn a_link_out_of_the_root_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("etc/passwd")).unwrap();
        // In the root, the link points to itself.
        assert!(Accounts::read(dir.path()).passwd.is_empty());
    }

    #[test]
    fn only_a_regular_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = dir.path().join("etc/passwd");
        std::fs::write(dir.path().join("passwd"), "root:x:0:0::/root:\n").unwrap();
        std::os::unix::fs::symlink("/passwd", &passwd).unwrap();
        assert!(read_below(dir.path(), "etc/passwd").is_ok());

        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(CWD, &passwd, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // Opened for reading, a pipe without a writer would read as an empty file.
        let refused = read_below(dir.path(), "etc/passwd").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Other);
    }
}
