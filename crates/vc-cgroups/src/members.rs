//! The processes of a cgroup.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vc_types::ProcessIdentity;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Error, Result, io};
use crate::limits::{LOOK_AGAIN, MEMBER_WAIT};
use crate::place::Place;

/// The list of processes of a cgroup, and what joins it when a pid is written.
pub(crate) const PROCS: &str = "cgroup.procs";

impl Cgroup {
    /// The pids of all processes in it and in the cgroups below it, in any hierarchy. None when it
    /// is not there any more. A process of another pid namespace has no pid here and is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a list cannot be read, [`Error::TooMany`] for absurd ones.
    pub fn pids(&self) -> Result<BTreeSet<i32>> {
        pids_of(self.places.iter())
    }

    /// Its `cgroup.procs` in each hierarchy, opened for writing: for whoever starts a process, and
    /// lets that write `0` to each.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] when it is not there any more, [`Error::Io`] when one cannot be opened.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>> {
        let open = |place: &Place| {
            let dir = place.existing()?;
            let file = dir.file(PROCS, OFlags::WRONLY)?;
            file.ok_or_else(|| dir.gone())
        };
        self.places.iter().map(open).collect()
    }

    /// Moves a process and all its threads into it, in every hierarchy.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the process has ended, [`Error::Gone`] when the cgroup is not there
    /// any more, [`Error::Io`] when the kernel refuses. It may be in some hierarchies then.
    pub fn add(&self, process: &ProcessIdentity) -> Result<()> {
        let ended = || Error::Ended {
            pid: process.pid(),
            path: self.path.to_string(),
        };
        if process.has_ended() {
            return Err(ended());
        }
        for place in &self.places {
            let dir = place.existing()?;
            match dir.write(PROCS, &process.pid().to_string()) {
                Ok(true) => {}
                Ok(false) => return Err(dir.gone()),
                Err(Error::Io { source, .. })
                    if Errno::from_io_error(&source) == Some(Errno::SRCH) =>
                {
                    return Err(ended());
                }
                Err(error) => return Err(error),
            }
        }
        // The pid could have become another process's meanwhile.
        if process.has_ended() {
            return Err(ended());
        }
        Ok(())
    }
}

impl Place {
    /// The pids in it and below it.
    pub(crate) fn pids(&self) -> Result<BTreeSet<i32>> {
        match self.leaf()? {
            Some(leaf) => pids_below(&leaf),
            None => Ok(BTreeSet::new()),
        }
    }
}

/// The pids in any of these places.
pub(crate) fn pids_of<'a>(places: impl Iterator<Item = &'a Place>) -> Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    for place in places {
        pids.append(&mut place.pids()?);
    }
    Ok(pids)
}

/// The pids in a directory and below it.
pub(crate) fn pids_below(dir: &Dir) -> Result<BTreeSet<i32>> {
    let mut pids = pids_in(dir)?;
    dir.descend(&mut |_, _, child| {
        pids.append(&mut pids_in(child)?);
        Ok(())
    })?;
    Ok(pids)
}

fn pids_in(dir: &Dir) -> Result<BTreeSet<i32>> {
    let text = dir.read(PROCS)?.unwrap_or_default();
    parse_pids(&text).map_err(|found| Error::Unexpected {
        path: dir.path().join(PROCS),
        found: found.to_owned(),
    })
}

/// Reads a list of pids, or gives the line that is none. 0 stands for what has no pid here.
fn parse_pids(text: &str) -> Result<BTreeSet<i32>, &str> {
    let mut pids = BTreeSet::new();
    for line in text.lines() {
        match line.parse() {
            Ok(pid) if pid > 0 => {
                pids.insert(pid);
            }
            Ok(0) => {}
            _ => return Err(line),
        }
    }
    Ok(pids)
}

/// Opens a pidfd, or nothing when there is no such process any more.
pub(crate) fn open_pidfd(pid: i32) -> Result<Option<OwnedFd>> {
    let Some(raw) = Pid::from_raw(pid.max(0)) else {
        return Ok(None);
    };
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(io("open the process of", format!("/proc/{pid}"))(errno)),
    }
}

/// Waits for the end of one of these processes, and at most [`MEMBER_WAIT`]: the rest is looked at
/// again then, since a process can leave without ending.
pub(crate) fn wait_for_one(pids: &BTreeSet<i32>, deadline: Instant) -> Result<()> {
    let mut wait = MEMBER_WAIT.min(deadline.saturating_duration_since(Instant::now()));
    for pid in pids {
        if let Some(pidfd) = open_pidfd(*pid)? {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&timespec(wait))) {
                Ok(0) => wait = Duration::ZERO,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(io("wait for the process of", format!("/proc/{pid}"))(errno));
                }
            }
            break;
        }
    }
    // An ended process leaves its cgroup a moment before or after its end is announced.
    if !wait.is_zero() {
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_read_once_and_without_those_of_other_namespaces() {
        let pids = parse_pids("12\n0\n7\n12\n").unwrap();
        assert_eq!(pids, BTreeSet::from([7, 12]));
        assert_eq!(parse_pids(""), Ok(BTreeSet::new()));
    }

    #[test]
    fn what_is_no_pid_is_refused() {
        for text in ["-1\n", "a\n", "1 2\n", "99999999999\n", "\n"] {
            assert!(parse_pids(text).is_err(), "{text:?}");
        }
    }
}
