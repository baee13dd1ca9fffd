//! Which devices the processes of a container may use.
//!
//! The second version of cgroups has no files for it: the kernel asks a BPF program that is attached
//! to the cgroup, at each opening and making of a device node. The program is made here of the
//! specification's rules.

mod program;
mod rules;

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use oci_spec::runtime::LinuxDeviceCgroup;

use crate::error::{Attempt as _, Result};

pub(crate) use rules::DeviceRules;

impl DeviceRules {
    /// The rules of a specification's resources; `None` when there are none, which restricts
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::error::Error::Invalid) for a rule that is none, or too many of them.
    pub(crate) fn of(devices: Option<&[LinuxDeviceCgroup]>) -> Result<Option<Self>> {
        match devices {
            None | Some([]) => Ok(None),
            Some(devices) => Self::parse(devices).map(Some),
        }
    }
}

/// How often loading a program is begun again. The kernel gives its check up when a signal waits
/// for the thread, as the one of a child that ended does; the signal is gone the next time.
const LOADS_MAX: usize = 16;

fn load(instructions: &[[u8; 8]]) -> std::io::Result<OwnedFd> {
    let mut loaded = crate::sys::load_device_program(instructions);
    for _ in 1..LOADS_MAX {
        match &loaded {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                loaded = crate::sys::load_device_program(instructions);
            }
            _ => break,
        }
    }
    loaded
}

/// The program that is attached to one cgroup, if any is. It stays there until the cgroup goes.
#[derive(Debug, Default)]
pub(super) struct DeviceProgram {
    attached: Mutex<Option<OwnedFd>>,
}

impl DeviceProgram {
    /// Lets the processes of the cgroup at `path`, and of those in it, use what `rules` allow. Takes
    /// the place of what was set before, with no moment in between.
    pub(super) fn set(&self, path: &Path, rules: &DeviceRules) -> Result<()> {
        let attempt = || format!("restrict devices in {}", path.display());
        let program = load(&program::compile(rules)).attempt(attempt)?;
        let cgroup = File::open(path).attempt(attempt)?;
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = attached.as_ref().map(|program| program.as_fd());
        crate::sys::attach_device_program(&cgroup, &program, replaced).attempt(attempt)?;
        *attached = Some(program);
        Ok(())
    }
}
