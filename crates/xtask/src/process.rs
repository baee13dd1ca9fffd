//! Processes of this host, as `/proc` shows them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// One process that runs.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Its share of the memory that it maps, in KiB.
    pub(crate) pss_kib: u64,
    /// What of it is shared memory: of a device process, pages of the guest.
    pub(crate) shared_kib: u64,
}

impl Process {
    /// `root` and everything that descends from it; what has ended already is left out.
    pub(crate) fn tree(root: u32) -> Result<Vec<Self>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // It may end while it is looked at.
            if let Some(parent) = parent_of(pid) {
                parents.push((pid, parent));
            }
        }
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(&parent) = pids.get(next) {
            pids.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(c, _)| c));
            next += 1;
        }
        Ok(pids
            .into_iter()
            .filter_map(|pid| Self::read(pid).ok())
            .collect())
    }

    fn read(pid: u32) -> Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let of = |name: &str| -> Result<u64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            Ok(kib
                .with_context(|| format!("smaps_rollup has no {name}"))?
                .parse()?)
        };
        let args = fs::read(format!("/proc/{pid}/cmdline"))?;
        Ok(Self {
            pid,
            program: fs::read_link(format!("/proc/{pid}/exe"))?,
            args: args
                .split(|byte| *byte == 0)
                .map(|arg| String::from_utf8_lossy(arg).into_owned())
                .collect(),
            pss_kib: of("Pss:")?,
            shared_kib: of("Pss_Shmem:")?,
        })
    }

    /// The last part of its program's path.
    pub(crate) fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Its name, and which of its kind it is where one program is several.
    pub(crate) fn title(&self) -> String {
        let mut words = self.args.iter().skip(1).map(String::as_str);
        match (words.next(), words.next()) {
            (Some("internal"), Some(part)) => format!("{} {part}", self.name()),
            _ => self.name(),
        }
    }

    /// The file behind one of its descriptors.
    pub(crate) fn file(&self, descriptor: &str) -> Result<PathBuf> {
        let link = format!("/proc/{}/fd/{descriptor}", self.pid);
        fs::read_link(&link).with_context(|| format!("cannot read {link}"))
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_the_root_of_its_tree() {
        let tree = Process::tree(std::process::id()).unwrap();
        assert_eq!(tree[0].pid, std::process::id());
        assert!(tree[0].pss_kib > 0 && tree[0].name().starts_with("xtask"));
    }
}
