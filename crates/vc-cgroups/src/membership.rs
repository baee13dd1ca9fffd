use serde::{Deserialize, Serialize};
use vc_types::ProcessIdentity;

use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::hierarchies::{Hierarchies, Hierarchy};
use crate::members::PROCS;

/// Where a process was before it joined a cgroup, to go back to.
///
/// It can be stored, as a [`crate::Cgroup`] can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cgroup in each hierarchy, from the mount point on; empty for the root.
    cgroups: Vec<(Hierarchy, String)>,
}

impl Membership {
    /// Where the calling process is, in each hierarchy in which that can be seen.
    pub fn of_caller(hierarchies: &Hierarchies) -> Self {
        let cgroups = hierarchies.own();
        Self {
            cgroups: cgroups
                .map(|(hierarchy, own)| (hierarchy.clone(), own.to_owned()))
                .collect(),
        }
    }

    /// Moves the process back.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the process has ended, [`Error::Gone`] when a cgroup is not there any
    /// more, [`Error::Io`] when the kernel refuses. The other hierarchies are restored all the
    /// same.
    pub fn restore(&self, process: &ProcessIdentity) -> Result<()> {
        if process.has_ended() {
            return Err(Error::Ended {
                pid: process.pid(),
                path: "its former cgroup".into(),
            });
        }
        let mut restored = Ok(());
        for (hierarchy, own) in &self.cgroups {
            restored = restored.and(restore(hierarchy, own, process));
        }
        restored
    }
}

fn restore(hierarchy: &Hierarchy, own: &str, process: &ProcessIdentity) -> Result<()> {
    let root = Dir::open_mount(hierarchy.mount_point(), hierarchy.version())?;
    let directory = match own {
        "" => Some(root),
        own => root.open(own)?,
    };
    let gone = || Error::Gone {
        path: hierarchy.mount_point().join(own),
    };
    let directory = directory.ok_or_else(gone)?;
    match directory.write(PROCS, &process.pid().to_string())? {
        true => Ok(()),
        false => Err(gone()),
    }
}
