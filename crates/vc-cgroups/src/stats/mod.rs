//! What the processes of a cgroup have used.

mod v1;
mod v2;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::place::Place;

/// What the processes in a cgroup and below it have used. Nothing stands for a controller that the
/// host does not have, or has not switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Time of processors.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Processes and threads.
    pub pids: Option<PidsStats>,
    /// Block devices.
    pub blkio: Option<BlkioStats>,
}

/// Time of processors, in nanoseconds since the cgroup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// All time.
    pub total_ns: u64,
    /// In user mode, a VM's guest included.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use now, page cache included.
    pub usage: u64,
    /// The limit of this cgroup, unless it has none.
    pub limit: Option<u64>,
    /// The most that was in use; nothing where the kernel does not say (version 2 before Linux
    /// 5.19).
    pub max_usage: Option<u64>,
    /// Page cache.
    pub cache: u64,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be, unless there is no limit.
    pub limit: Option<u64>,
}

/// Block devices, in bytes over all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioStats {
    /// Read from them.
    pub read: u64,
    /// Written to them.
    pub written: u64,
}

impl Cgroup {
    /// Reads all statistics.
    ///
    /// On a hybrid host those of version 1 are read, and of version 2 what version 1 lacks.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] when the cgroup is not there any more in one of the hierarchies,
    /// [`Error::Io`] and [`Error::Unexpected`] when a file cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        // Version 1 first, see above.
        let mut places: Vec<&Place> = self.places.iter().collect();
        places.sort_by_key(|place| place.is_v2());
        for place in places {
            let dir = place.existing()?;
            let found = if place.is_v2() {
                v2::read(&dir)?
            } else {
                v1::read(&dir, &place.hierarchy)?
            };
            stats.cpu = stats.cpu.or(found.cpu);
            stats.memory = stats.memory.or(found.memory);
            stats.pids = stats.pids.or(found.pids);
            stats.blkio = stats.blkio.or(found.blkio);
        }
        Ok(stats)
    }
}

/// Both versions have the same files for this.
fn pids(dir: &Dir) -> Result<Option<PidsStats>> {
    let Some(current) = number(dir, "pids.current")? else {
        return Ok(None);
    };
    let limit = number_or_max(dir, "pids.max")?;
    Ok(Some(PidsStats { current, limit }))
}

/// Reads a file with one number; nothing when it is not there.
fn number(dir: &Dir, name: &str) -> Result<Option<u64>> {
    let parse = |text: &str| text.trim().parse().ok();
    read_as(dir, name, parse)
}

/// Reads a file with one number or `max`, which is nothing, as is a file that is not there.
fn number_or_max(dir: &Dir, name: &str) -> Result<Option<u64>> {
    let parse = |text: &str| match text.trim() {
        "max" => Some(None),
        number => number.parse().ok().map(Some),
    };
    read_as(dir, name, parse).map(Option::flatten)
}

/// Reads a file; nothing when it is not there.
fn read_as<T>(dir: &Dir, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(text) = dir.read(name)? else {
        return Ok(None);
    };
    match parse(&text) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::Unexpected {
            path: dir.path().join(name),
            found: text.chars().take(200).collect(),
        }),
    }
}

/// The value of `key` in lines of `key value`.
fn value<T: FromStr>(text: &str, key: &str) -> Option<T> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_matched_whole() {
        let text = "total_cache_x 1\ncache 2\ntotal_cache 3\n";
        assert_eq!(value(text, "total_cache"), Some(3));
        assert_eq!(value(text, "cache"), Some(2));
        assert_eq!(value::<u64>(text, "total"), None);
        assert_eq!(value::<u64>("a b\n", "a"), None);
    }

    #[test]
    fn what_is_missing_is_written_as_nothing() {
        let stats = Stats {
            pids: Some(PidsStats {
                current: 1,
                limit: None,
            }),
            ..Stats::default()
        };
        let json = serde_json::to_string(&stats).unwrap();
        assert_eq!(
            json,
            r#"{"cpu":null,"memory":null,"pids":{"current":1,"limit":null},"blkio":null}"#
        );
        assert_eq!(serde_json::from_str::<Stats>(&json).unwrap(), stats);
    }
}
