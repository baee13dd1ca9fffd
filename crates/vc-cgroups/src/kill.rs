//! Ending all processes of a cgroup.

use std::collections::BTreeSet;
use std::process;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result, io};
use crate::limits::{KILL_FREEZE, KILL_LIMIT, KILL_ROUND, PIDFDS_MAX};
use crate::members::{open_pidfd, pids_of, wait_for_one};
use crate::place::Place;

impl Cgroup {
    /// Kills all processes in it and below it, and waits until none is left. A frozen cgroup is
    /// thawed. That it is empty or not there is fine.
    ///
    /// Version 2 kills them by itself (`cgroup.kill`, Linux 5.14). Elsewhere they are frozen, so
    /// that none makes another, and each gets its signal by a pidfd after its membership was
    /// checked again. The calling process and pid 1 are left alone, and do not count as left.
    ///
    /// # Errors
    ///
    /// [`Error::StillAlive`] when a process lives longer than [`KILL_LIMIT`],
    /// [`Error::NotOurs`] when the cgroup was there before and has processes, and [`Error::Io`].
    pub fn kill_all(&self) -> Result<()> {
        if !self.is_ours() {
            return self.refuse_foreign();
        }
        let deadline = Instant::now() + KILL_LIMIT;
        loop {
            let killed = self.kill_v2()?;
            let others = &self.targets()? - &killed;
            if !others.is_empty() {
                self.kill_by_pidfd()?;
            }
            // A signal reaches what is frozen only then.
            self.thaw_quietly();
            let left = self.wait_until_empty(deadline.min(Instant::now() + KILL_ROUND))?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::StillAlive {
                    path: self.path.to_string(),
                    pids: left,
                    limit: KILL_LIMIT,
                });
            }
        }
    }

    fn refuse_foreign(&self) -> Result<()> {
        if self.pids()?.is_empty() {
            return Ok(());
        }
        Err(Error::NotOurs {
            attempt: "kill the processes of",
            path: self.path.to_string(),
        })
    }

    /// The processes that are to end.
    fn targets(&self) -> Result<BTreeSet<i32>> {
        let mut pids = pids_of(self.places.iter().filter(|place| place.is_ours()))?;
        pids.retain(|pid| !is_spared(*pid));
        Ok(pids)
    }

    /// Has version 2 kill what is in its hierarchy, and says what that was.
    fn kill_v2(&self) -> Result<BTreeSet<i32>> {
        let none = Ok(BTreeSet::new());
        let is_v2 = |place: &&Place| place.is_v2() && place.is_ours();
        let Some(place) = self.places.iter().find(is_v2) else {
            return none;
        };
        let pids = place.pids()?;
        // It would not spare them.
        if pids.is_empty() || pids.iter().any(|pid| is_spared(*pid)) {
            return none;
        }
        let Some(dir) = place.leaf()? else {
            return none;
        };
        match dir.write("cgroup.kill", "1") {
            Ok(true) => Ok(pids),
            // The kernel is older.
            Ok(false) => none,
            Err(error) => {
                tracing::debug!(cgroup = %self.path, "killing by pidfd instead: {error}");
                none
            }
        }
    }

    fn kill_by_pidfd(&self) -> Result<()> {
        // It is only less tidy without: new processes are found in the next round.
        if let Err(error) = self.freeze_within(KILL_FREEZE) {
            tracing::debug!(cgroup = %self.path, "killing without a freeze: {error}");
        }
        let killed = self.signal_members();
        self.thaw_quietly();
        killed
    }

    fn signal_members(&self) -> Result<()> {
        let targets: Vec<i32> = self.targets()?.into_iter().collect();
        for pids in targets.chunks(PIDFDS_MAX) {
            let mut pidfds = Vec::with_capacity(pids.len());
            for pid in pids {
                if let Some(pidfd) = open_pidfd(*pid)? {
                    pidfds.push((*pid, pidfd));
                }
            }
            // A pid may have become another process's before its pidfd was opened. What has it
            // now and is a member is what the pidfd is of, or that has ended.
            let members = self.targets()?;
            for (pid, pidfd) in pidfds {
                if !members.contains(&pid) {
                    continue;
                }
                match pidfd_send_signal(&pidfd, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => {
                        let object = format!("/proc/{pid}");
                        return Err(io("kill the process of", object)(errno));
                    }
                }
            }
        }
        Ok(())
    }

    fn thaw_quietly(&self) {
        match self.thaw_within(KILL_FREEZE) {
            Ok(()) | Err(Error::Gone { .. } | Error::NoFreezer { .. } | Error::NotOurs { .. }) => {}
            Err(error) => tracing::warn!(cgroup = %self.path, "{error}"),
        }
    }

    /// Waits until no process is left that is to end, and gives those that are.
    fn wait_until_empty(&self, deadline: Instant) -> Result<BTreeSet<i32>> {
        loop {
            let left = self.targets()?;
            if left.is_empty() || Instant::now() >= deadline {
                return Ok(left);
            }
            wait_for_one(&left, deadline)?;
        }
    }
}

/// Whether this is nothing that is ever killed: many, init, or the calling process.
fn is_spared(pid: i32) -> bool {
    pid <= 1 || u32::try_from(pid).is_ok_and(|pid| pid == process::id())
}
