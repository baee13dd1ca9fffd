//! Whether this guest has anything that waits to be written to where it lies, and the writing of what
//! the host is to have.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::block;

/// What the kernel's counters of each processor hold back is added to those of all when this is
/// written to (admin-guide/sysctl/vm.rst).
const REFRESH: &str = "/proc/sys/vm/stat_refresh";
const COUNTERS: &str = "/proc/vmstat";

/// Pages that are to be written, and those on their way. Memory file systems count none.
const WAITING: [&str; 3] = ["nr_dirty", "nr_writeback", "nr_writeback_temp"];

/// Whether a page of any file waits to be written, or is being written. It takes less than `sync`,
/// which goes through every file system and asks the host about each share.
///
/// # Errors
///
/// When the kernel does not tell: it has to be assumed then.
pub(crate) fn has_unwritten() -> io::Result<bool> {
    fs::write(REFRESH, "1")?;
    let counters = fs::read_to_string(COUNTERS)?;
    any_waits(&counters).ok_or_else(|| {
        let reason = format!("{COUNTERS} does not count {WAITING:?}");
        io::Error::new(io::ErrorKind::InvalidData, reason)
    })
}

/// What of a sandbox's storages reaches the host, and what does not.
#[derive(Debug)]
pub(crate) struct Reaching {
    /// Where the shares are to which a guest can write.
    pub(super) shares: Vec<PathBuf>,
    /// How many disks go with the guest.
    pub(super) scratch_disks: usize,
}

impl Reaching {
    /// Writes back what reaches the host: the shares, and everything where there are other disks than
    /// scratch space. To write that alone would be for nobody.
    pub(crate) fn write_back(&self) {
        let each = || -> io::Result<()> {
            for share in &self.shares {
                rustix::fs::syncfs(File::open(share)?)?;
            }
            Ok(())
        };
        let others = block::count().map_or(true, |disks| disks > self.scratch_disks);
        if others || each().is_err() {
            rustix::fs::sync();
        }
    }
}

/// Nothing if one of the counters is missing.
fn any_waits(counters: &str) -> Option<bool> {
    let count = |name: &&str| {
        let mut lines = counters.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.parse::<u64>().ok()
    };
    let counts: Option<Vec<u64>> = WAITING.iter().map(count).collect();
    counts.map(|counts| counts.iter().any(|count| *count > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_that_waits_is_enough() {
        let counters = |dirty, writeback, temp| {
            format!(
                "nr_free_pages 9\nnr_dirty {dirty}\nnr_writeback {writeback}\n\
                 nr_writeback_temp {temp}\nnr_dirty_threshold 7\nnr_dirtied 5\n"
            )
        };
        assert_eq!(any_waits(&counters("0", "0", "0")), Some(false));
        for (dirty, writeback, temp) in [("1", "0", "0"), ("0", "3", "0"), ("0", "0", "2")] {
            assert_eq!(any_waits(&counters(dirty, writeback, temp)), Some(true));
        }
    }

    #[test]
    fn a_counter_that_is_missing_is_not_nought() {
        for counters in [
            "",
            "nr_dirty 0\nnr_writeback 0\n",
            "nr_dirty x\nnr_writeback 0\nnr_writeback_temp 0\n",
        ] {
            assert_eq!(any_waits(counters), None);
        }
    }
}
