//! The files of version 2.

use super::{
    BlkioStats, CpuStats, MemoryStats, Stats, number, number_or_max, pids, read_as, value,
};
use crate::dir::Dir;
use crate::error::Result;

/// Reads what the controllers that are switched on say.
pub(super) fn read(dir: &Dir) -> Result<Stats> {
    Ok(Stats {
        // Time of processors is counted without its controller too.
        cpu: read_as(dir, "cpu.stat", parse_cpu)?,
        memory: memory(dir)?,
        pids: pids(dir)?,
        blkio: read_as(dir, "io.stat", parse_io)?,
    })
}

fn parse_cpu(text: &str) -> Option<CpuStats> {
    let ns = |key| value::<u64>(text, key)?.checked_mul(1000);
    Some(CpuStats {
        total_ns: ns("usage_usec")?,
        user_ns: ns("user_usec")?,
        system_ns: ns("system_usec")?,
    })
}

fn memory(dir: &Dir) -> Result<Option<MemoryStats>> {
    let usage = number(dir, "memory.current")?;
    let cache = read_as(dir, "memory.stat", |text| value(text, "file"))?;
    let (Some(usage), Some(cache)) = (usage, cache) else {
        return Ok(None);
    };
    Ok(Some(MemoryStats {
        usage,
        limit: number_or_max(dir, "memory.max")?,
        max_usage: number(dir, "memory.peak")?,
        cache,
    }))
}

/// Adds up the lines `major:minor rbytes=… wbytes=… …`. A line may have no values.
fn parse_io(text: &str) -> Option<BlkioStats> {
    let mut found = BlkioStats {
        read: 0,
        written: 0,
    };
    for field in text.split_ascii_whitespace() {
        let sum = match field.split_once('=') {
            Some(("rbytes", _)) => &mut found.read,
            Some(("wbytes", _)) => &mut found.written,
            _ => continue,
        };
        let (_, bytes) = field.split_once('=')?;
        *sum = sum.saturating_add(bytes.parse().ok()?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn microseconds_become_nanoseconds() {
        let text = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 0\n";
        let found = parse_cpu(text).unwrap();
        assert_eq!(
            (found.total_ns, found.user_ns, found.system_ns),
            (30_000, 20_000, 10_000)
        );
        assert!(parse_cpu("usage_usec 30\n").is_none());
    }

    #[test]
    fn bytes_of_all_devices_are_added_up() {
        let text = "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=9 dios=0\n7:0\n8:16 rbytes=1\n";
        let found = parse_io(text).unwrap();
        assert_eq!((found.read, found.written), (11, 20));
        let none = parse_io("").unwrap();
        assert_eq!((none.read, none.written), (0, 0));
        assert!(parse_io("8:0 rbytes=x\n").is_none());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "([rw]bytes=[0-9]{0,24} ){0,3}|[a-z_ 0-9\n]{0,80}|\\PC{0,60}") {
            parse_cpu(&text);
            parse_io(&text);
        }
    }
}
