use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::observer::Observer;

/// Bytes of a process's `stat` that are read: more than its some 50 numbers can have.
const STAT_BYTES: usize = 2048;

/// Which boot of the host something belongs to, from `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BootId(String);

impl BootId {
    /// The boot that this process runs in.
    ///
    /// # Errors
    ///
    /// [`Error::Proc`] when the file cannot be read.
    pub fn current() -> Result<Self> {
        let path = "/proc/sys/kernel/random/boot_id";
        fs::read_to_string(path)
            .map(|text| Self(text.trim().to_owned()))
            .map_err(|source| Error::Proc {
                path: path.into(),
                source,
            })
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One process of this host for good: a pid that was given again, or another boot's, is not it.
///
/// ```
/// use vc_types::ProcessIdentity;
///
/// let me = ProcessIdentity::current()?;
/// assert!(me.is_alive());
/// # Ok::<(), vc_types::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pid: i32,
    /// In clock ticks since boot, as `/proc/<pid>/stat` has it.
    start_time: u64,
    boot_id: BootId,
    /// The inode of the pid namespace in which it has this pid.
    pid_namespace: u64,
}

/// What can be said of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It lives.
    Alive,
    /// It has ended, or is a zombie.
    Ended,
    /// It is of another pid namespace, or the system does not say. Who removes things takes it
    /// for alive.
    Unknown,
}

impl ProcessIdentity {
    /// The calling process.
    ///
    /// # Errors
    ///
    /// [`Error::Proc`] when `/proc` cannot be read.
    pub fn current() -> Result<Self> {
        Self::of(i32::try_from(std::process::id()).unwrap_or_default())
    }

    /// The process that has this pid now.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPid`] for pids that do not stand for one process of ours (1 and less);
    /// [`Error::Proc`] when there is no such process.
    pub fn of(pid: i32) -> Result<Self> {
        if pid <= 1 {
            return Err(Error::InvalidPid { pid });
        }
        Ok(Self {
            pid,
            start_time: start_time(pid)?,
            boot_id: BootId::current()?,
            pid_namespace: pid_namespace()?,
        })
    }

    /// Its pid, for messages and for files that others read. Signals go by [`Self::open`].
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it lives.
    ///
    /// ```
    /// use vc_types::{Liveness, ProcessIdentity};
    ///
    /// assert_eq!(ProcessIdentity::current()?.liveness(), Liveness::Alive);
    /// # Ok::<(), vc_types::Error>(())
    /// ```
    pub fn liveness(&self) -> Liveness {
        Observer::of_this_process().liveness(self)
    }

    /// Whether it is of this boot.
    pub(crate) fn is_of_boot(&self, boot_id: &BootId) -> bool {
        self.boot_id == *boot_id
    }

    /// Whether it lives, for one of this boot, by a process of this pid namespace.
    pub(crate) fn liveness_in(&self, pid_namespace: u64) -> Liveness {
        match pid_namespace == self.pid_namespace {
            true => self.judge(stat(self.pid)),
            false => Liveness::Unknown,
        }
    }

    /// Whether it is known to live; a zombie does not.
    pub fn is_alive(&self) -> bool {
        self.liveness() == Liveness::Alive
    }

    /// Whether it is known to have ended.
    pub fn has_ended(&self) -> bool {
        self.liveness() == Liveness::Ended
    }

    /// A pidfd of it, or nothing when it has ended.
    ///
    /// The identity is checked again after the descriptor was opened, so the descriptor is of
    /// this process and no other.
    ///
    /// # Errors
    ///
    /// When it is not known whether it lives, and any error of `pidfd_open` but "no such
    /// process".
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let unknown = || {
            let text = "it is of another pid namespace, or /proc cannot be read";
            io::Error::new(io::ErrorKind::Unsupported, text)
        };
        // Asked first too: the pid may be another process's.
        let pid = match (self.liveness(), self.raw_pid()) {
            (Liveness::Alive, Some(pid)) => pid,
            (Liveness::Unknown, _) => return Err(unknown()),
            (Liveness::Ended, _) | (_, None) => return Ok(None),
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        match self.liveness() {
            Liveness::Alive => Ok(Some(pidfd)),
            Liveness::Ended => Ok(None),
            Liveness::Unknown => Err(unknown()),
        }
    }

    /// What `/proc` said of its pid, as a judgement of it.
    fn judge(&self, stat: Result<Stat>) -> Liveness {
        match stat {
            Ok(stat) if self.matches(&stat) => Liveness::Alive,
            Ok(_) => Liveness::Ended,
            Err(Error::Proc { source, .. }) if says_gone(&source) && !self.has_hidden_process() => {
                Liveness::Ended
            }
            Err(_) => Liveness::Unknown,
        }
    }

    /// Whether there is a process of its pid, which `/proc` may hide (`hidepid`).
    fn has_hidden_process(&self) -> bool {
        self.raw_pid()
            .is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
    }

    /// The pid, unless it stands for many.
    fn raw_pid(&self) -> Option<Pid> {
        Pid::from_raw(self.pid.max(0))
    }

    fn matches(&self, stat: &Stat) -> bool {
        stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X' | 'x')
    }
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)
    }
}

/// The inode of the pid namespace of this process.
pub(crate) fn pid_namespace() -> Result<u64> {
    let path = "/proc/self/ns/pid";
    fs::metadata(path)
        .map(|namespace| namespace.ino())
        .map_err(|source| Error::Proc {
            path: path.into(),
            source,
        })
}

/// Whether reading a file of a process failed because there is no such process.
fn says_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

struct Stat {
    state: char,
    start_time: u64,
}

fn start_time(pid: i32) -> Result<u64> {
    stat(pid).map(|stat| stat.start_time)
}

fn stat(pid: i32) -> Result<Stat> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let read = File::open(&path).and_then(|mut file| {
        // The kernel gives it as a whole, or less for what does not fit.
        let mut bytes = [0; STAT_BYTES];
        let length = file.read(&mut bytes)?;
        parse_stat(&bytes[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    });
    read.map_err(|source| Error::Proc { path, source })
}

/// Reads fields 3 and 22 of proc(5)'s `stat`. The command in field 2 may hold anything, so the
/// fields are counted from the last `)`.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let after = bytes.iter().rposition(|b| *b == b')')?;
    let mut fields = std::str::from_utf8(bytes.get(after + 1..)?)
        .ok()?
        .split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_and_spaces_is_no_trouble() {
        let line = b"7 (a) Z 9 (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.start_time), ('S', 4711));
        assert!(parse_stat(b"").is_none());
        assert!(parse_stat(b"1 (x) S 1").is_none());
    }

    #[test]
    fn an_ended_process_is_not_alive_even_as_a_zombie() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        if let Ok(identity) = ProcessIdentity::of(pid) {
            let fd = rustix::process::waitid(
                rustix::process::WaitId::Pid(Pid::from_raw(pid).unwrap()),
                rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
            );
            assert!(fd.is_ok());
            assert!(!identity.is_alive());
        }
        child.wait().unwrap();
    }

    #[test]
    fn another_start_time_or_boot_is_another_process() {
        let me = ProcessIdentity::current().unwrap();
        let earlier = ProcessIdentity {
            start_time: me.start_time + 1,
            ..me.clone()
        };
        let rebooted = ProcessIdentity {
            boot_id: BootId("other".into()),
            ..me.clone()
        };
        assert!(me.open().unwrap().is_some());
        assert!(!earlier.is_alive() && earlier.open().unwrap().is_none());
        assert!(!rebooted.is_alive() && rebooted.open().unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_established_is_unknown_and_no_end() {
        let me = ProcessIdentity::current().unwrap();
        let elsewhere = ProcessIdentity {
            pid_namespace: me.pid_namespace + 1,
            ..me.clone()
        };
        assert_eq!(elsewhere.liveness(), Liveness::Unknown);
        assert!(elsewhere.open().is_err());
        // Of another boot it has ended, in whichever namespace it was.
        let rebooted = ProcessIdentity {
            boot_id: BootId("other".into()),
            ..elsewhere
        };
        assert_eq!(rebooted.liveness(), Liveness::Ended);

        let failed = |errno: Errno| {
            Err(Error::Proc {
                path: "/proc/1/stat".into(),
                source: errno.into(),
            })
        };
        let gone = ProcessIdentity {
            pid: i32::MAX,
            ..me.clone()
        };
        for errno in [Errno::NOENT, Errno::SRCH] {
            assert_eq!(gone.judge(failed(errno)), Liveness::Ended);
            // It is there, and only /proc hides it.
            assert_eq!(me.judge(failed(errno)), Liveness::Unknown);
        }
        for errno in [Errno::ACCESS, Errno::MFILE, Errno::NOMEM] {
            assert_eq!(gone.judge(failed(errno)), Liveness::Unknown);
        }
    }

    #[test]
    fn pids_that_mean_many_are_refused() {
        for pid in [-1, 0, 1] {
            assert!(matches!(
                ProcessIdentity::of(pid),
                Err(Error::InvalidPid { .. })
            ));
        }
    }
}
