//! The files of version 1.

use super::{BlkioStats, CpuStats, MemoryStats, Stats, number, pids, read_as, value};
use crate::dir::Dir;
use crate::error::Result;
use crate::hierarchies::Hierarchy;

/// No limit is the largest number of whole pages, of at most 64 KiB, that an `i64` holds.
const UNLIMITED: u64 = i64::MAX as u64 - (64 << 10);

/// Reads what the controllers of one hierarchy say.
pub(super) fn read(dir: &Dir, hierarchy: &Hierarchy) -> Result<Stats> {
    let mut stats = Stats::default();
    if hierarchy.has("cpuacct") {
        stats.cpu = cpu(dir)?;
    }
    if hierarchy.has("memory") {
        stats.memory = memory(dir)?;
    }
    if hierarchy.has("pids") {
        stats.pids = pids(dir)?;
    }
    if hierarchy.has("blkio") {
        stats.blkio = blkio(dir)?;
    }
    Ok(stats)
}

fn cpu(dir: &Dir) -> Result<Option<CpuStats>> {
    let total = number(dir, "cpuacct.usage")?;
    let user = number(dir, "cpuacct.usage_user")?;
    let system = number(dir, "cpuacct.usage_sys")?;
    let (Some(total_ns), Some(user_ns), Some(system_ns)) = (total, user, system) else {
        return Ok(None);
    };
    Ok(Some(CpuStats {
        total_ns,
        user_ns,
        system_ns,
    }))
}

fn memory(dir: &Dir) -> Result<Option<MemoryStats>> {
    let usage = number(dir, "memory.usage_in_bytes")?;
    let cache = read_as(dir, "memory.stat", |text| value(text, "total_cache"))?;
    let (Some(usage), Some(cache)) = (usage, cache) else {
        return Ok(None);
    };
    let limit = number(dir, "memory.limit_in_bytes")?;
    Ok(Some(MemoryStats {
        usage,
        limit: limit.filter(|limit| *limit < UNLIMITED),
        max_usage: number(dir, "memory.max_usage_in_bytes")?,
        cache,
    }))
}

/// The recursive file counts the cgroups below too; old kernels have it only with a scheduler's.
fn blkio(dir: &Dir) -> Result<Option<BlkioStats>> {
    let recursive = "blkio.throttle.io_service_bytes_recursive";
    match read_as(dir, recursive, parse_blkio)? {
        Some(found) => Ok(Some(found)),
        None => read_as(dir, "blkio.throttle.io_service_bytes", parse_blkio),
    }
}

/// Adds up the lines `major:minor Read bytes` and `… Write bytes`.
fn parse_blkio(text: &str) -> Option<BlkioStats> {
    let mut found = BlkioStats {
        read: 0,
        written: 0,
    };
    for line in text.lines() {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let sum = match fields[..] {
            [_, "Read", _] => &mut found.read,
            [_, "Write", _] => &mut found.written,
            [_, _, _] | ["Total", _] => continue,
            _ => return None,
        };
        *sum = sum.saturating_add(fields[2].parse().ok()?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_of_all_devices_are_added_up() {
        let text = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 5\n8:0 Total 35\n8:16 Read 1\nTotal 36\n";
        let found = parse_blkio(text).unwrap();
        assert_eq!((found.read, found.written), (11, 20));
        let none = parse_blkio("Total 0\n").unwrap();
        assert_eq!((none.read, none.written), (0, 0));
        assert!(parse_blkio("8:0 Read x\n").is_none());
        assert!(parse_blkio("garbage\n").is_none());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "([0-9:]{0,4} (Read|Write|x) [0-9]{0,24}\n){0,3}|\\PC{0,60}") {
            parse_blkio(&text);
        }
    }
}
