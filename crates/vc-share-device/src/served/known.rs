use std::collections::BTreeMap;
use std::ffi::CStr;

use virtiofsd::fuse::ROOT_ID;

use super::Inode;
use crate::slave::Slave;

/// The files and directories of slaves that the guest knows.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<Inode, Entry>);

#[derive(Debug)]
struct Entry {
    slave: Slave,
    /// How often the guest was told of it and has not forgotten it.
    times: u64,
}

impl Known {
    /// The slave that it is below.
    pub(super) fn of(&self, inode: Inode) -> Option<Slave> {
        self.0.get(&inode).map(|entry| entry.slave)
    }

    /// The slave that a name in a directory is below.
    pub(super) fn child_of(&self, parent: Inode, name: &CStr) -> Option<Slave> {
        match parent {
            ROOT_ID => Slave::of_name(name.to_str().ok()?),
            parent => self.of(parent),
        }
    }

    /// The guest is told of it. Returns whether it is a slave's.
    pub(super) fn learn(&mut self, inode: Inode, slave: Option<Slave>) -> bool {
        // One that is known is counted however it is found.
        let Some(slave) = slave.or_else(|| self.of(inode)) else {
            return false;
        };
        let entry = self.0.entry(inode).or_insert(Entry { slave, times: 0 });
        entry.slave.read_only |= slave.read_only;
        entry.times += 1;
        true
    }

    /// The guest has forgotten it.
    pub(super) fn forget(&mut self, inode: Inode, times: u64) {
        if let Some(entry) = self.0.get_mut(&inode) {
            entry.times = entry.times.saturating_sub(times);
            if entry.times == 0 {
                self.0.remove(&inode);
            }
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_slave_is_known_until_it_is_forgotten() {
        let mut known = Known::default();
        let slave = Slave { read_only: true };
        let name = std::ffi::CString::new(slave.name("a")).unwrap();
        assert_eq!(known.child_of(ROOT_ID, c"a"), None);
        assert_eq!(known.child_of(ROOT_ID, &name), Some(slave));
        assert!(known.learn(2, Some(slave)));
        // Only names at the top say something.
        assert_eq!(known.child_of(3, &name), None);
        assert_eq!(known.child_of(2, c"b"), Some(slave));
        assert!(!known.learn(3, None));
        // Whoever finds it by another way finds the same.
        assert!(known.learn(2, Some(Slave { read_only: false })));
        assert!(known.learn(2, None));
        known.forget(2, 2);
        assert_eq!(known.of(2), Some(slave));
        known.forget(2, u64::MAX);
        assert_eq!(known.of(2), None);
        known.forget(2, 1);
    }
}
