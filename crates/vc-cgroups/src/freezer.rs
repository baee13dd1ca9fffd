//! Stopping all processes of a cgroup, and letting them go on.

use std::fmt;
use std::os::fd::OwnedFd;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Error, Result, io};
use crate::limits::{FREEZE_LIMIT, LOOK_AGAIN};
use crate::members::timespec;
use crate::place::Place;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Frozen,
    Thawed,
}

impl Wanted {
    fn verb(self) -> &'static str {
        match self {
            Self::Frozen => "freeze",
            Self::Thawed => "thaw",
        }
    }
}

impl Cgroup {
    /// Stops all processes in it and below it, until [`Cgroup::thaw`]. On a hybrid host version 1
    /// does it.
    ///
    /// # Errors
    ///
    /// [`Error::FreezerTimedOut`] when it took longer than [`FREEZE_LIMIT`]: all go on then.
    /// [`Error::CallerInside`] when the calling process is in it, [`Error::NotOurs`] when it was
    /// there before, [`Error::NoFreezer`], [`Error::Gone`], and [`Error::Io`].
    pub fn freeze(&self) -> Result<()> {
        self.freeze_within(FREEZE_LIMIT)
    }

    /// Lets all processes go on. That they do already is fine.
    ///
    /// # Errors
    ///
    /// [`Error::FreezerTimedOut`] when they did not within [`FREEZE_LIMIT`], as when a cgroup
    /// above is frozen; otherwise those of [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.thaw_within(FREEZE_LIMIT)
    }

    pub(crate) fn thaw_within(&self, limit: Duration) -> Result<()> {
        let place = self.freezer(Wanted::Thawed)?;
        set(place, &place.existing()?, Wanted::Thawed, limit)
    }

    pub(crate) fn freeze_within(&self, limit: Duration) -> Result<()> {
        let place = self.freezer(Wanted::Frozen)?;
        let caller = i32::try_from(process::id()).unwrap_or_default();
        if place.pids()?.contains(&caller) {
            return Err(Error::CallerInside {
                path: self.path.to_string(),
            });
        }
        let dir = place.existing()?;
        set(place, &dir, Wanted::Frozen, limit).inspect_err(|_| {
            // Half of the processes may be frozen. The first error is the one to report.
            if let Err(error) = write(place, &dir, Wanted::Thawed) {
                tracing::warn!(cgroup = %self.path, "after a failed freeze: {error}");
            }
        })
    }

    /// Where it is frozen.
    fn freezer(&self, wanted: Wanted) -> Result<&Place> {
        let attempt = wanted.verb();
        let v1 = self.places.iter().find(|one| one.hierarchy.has("freezer"));
        let place = v1.or_else(|| self.places.iter().find(|one| one.is_v2()));
        match place {
            Some(place) if place.is_ours() => Ok(place),
            Some(_) => Err(Error::NotOurs {
                attempt,
                path: self.path.to_string(),
            }),
            None => Err(Error::NoFreezer {
                attempt,
                path: self.path.to_string(),
            }),
        }
    }
}

fn set(place: &Place, dir: &Dir, wanted: Wanted, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let reached = if place.is_v2() {
        set_v2(place, dir, wanted, deadline)?
    } else {
        set_v1(place, dir, wanted, deadline)?
    };
    if reached {
        return Ok(());
    }
    Err(Error::FreezerTimedOut {
        attempt: wanted.verb(),
        path: dir.path().to_owned(),
        limit,
    })
}

fn write(place: &Place, dir: &Dir, wanted: Wanted) -> Result<()> {
    let (name, value) = match (place.is_v2(), wanted) {
        (true, Wanted::Frozen) => ("cgroup.freeze", "1"),
        (true, Wanted::Thawed) => ("cgroup.freeze", "0"),
        (false, Wanted::Frozen) => ("freezer.state", "FROZEN"),
        (false, Wanted::Thawed) => ("freezer.state", "THAWED"),
    };
    if dir.write(name, value)? {
        Ok(())
    } else {
        Err(dir.gone())
    }
}

/// Version 1 announces nothing, and stays at FREEZING when a process is made meanwhile: it is told
/// again each time.
fn set_v1(place: &Place, dir: &Dir, wanted: Wanted, deadline: Instant) -> Result<bool> {
    loop {
        write(place, dir, wanted)?;
        let state = dir.read("freezer.state")?.ok_or_else(|| dir.gone())?;
        match (state.trim(), wanted) {
            ("FROZEN", Wanted::Frozen) | ("THAWED", Wanted::Thawed) => return Ok(true),
            ("FROZEN" | "FREEZING" | "THAWED", _) => {}
            (other, _) => return Err(unexpected(dir, "freezer.state", &other)),
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Version 2 announces a change of `cgroup.events`.
fn set_v2(place: &Place, dir: &Dir, wanted: Wanted, deadline: Instant) -> Result<bool> {
    let name = "cgroup.events";
    let path = dir.path().join(name);
    let events = dir.file(name, OFlags::RDONLY)?.ok_or_else(|| dir.gone())?;
    write(place, dir, wanted)?;
    loop {
        if is_frozen(dir, name, &events)? == (wanted == Wanted::Frozen) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(io("wait for", path)(errno)),
        }
    }
}

/// Reads the same open file again: a later poll waits for what comes after.
fn is_frozen(dir: &Dir, name: &str, events: &OwnedFd) -> Result<bool> {
    // Two short lines.
    let mut buffer = [0; 256];
    let length = match rustix::io::pread(events, &mut buffer, 0) {
        Ok(length) => length,
        Err(Errno::NODEV) => return Err(dir.gone()),
        Err(errno) => return Err(io("read", dir.path().join(name))(errno)),
    };
    let text = String::from_utf8_lossy(&buffer[..length]);
    let frozen = text.lines().find_map(|line| line.strip_prefix("frozen "));
    match frozen {
        Some("1") => Ok(true),
        Some("0") => Ok(false),
        _ => Err(unexpected(dir, name, &text)),
    }
}

fn unexpected(dir: &Dir, name: &str, found: &dyn fmt::Display) -> Error {
    Error::Unexpected {
        path: dir.path().join(name),
        found: found.to_string(),
    }
}
