//! `OnlineCPUMem`: processors and memory that were plugged in are put to use.

use std::fs;
use std::path::Path;
use std::time::Duration;

use agent_protocol::agent::OnlineCPUMemRequest;

use crate::error::{Attempt as _, Error, Result};
use crate::modules::Modules;
use crate::uevents::Uevents;

const CPU_DIR: &str = "/sys/devices/system/cpu";
const MEMORY_DIR: &str = "/sys/devices/system/memory";

/// The driver of the device that gives a VM memory.
pub(super) const MEMORY_MODULE: &str = "virtio_mem";

/// How long plugged processors may take to appear.
const APPEAR_LIMIT: Duration = Duration::from_secs(20);

/// Puts everything to use that is there, and, when asked, waits for as many processors as the host
/// has plugged. Blocks.
pub(super) fn online(request: &OnlineCPUMemRequest, modules: &Modules) -> Result<()> {
    let events = Uevents::listen()?;
    if !request.cpu_only {
        modules.require(MEMORY_MODULE)?;
        switch_each(
            Path::new(MEMORY_DIR),
            "memory",
            "state",
            "offline",
            "online",
        )?;
    }
    let mut brought = 0;
    let enough = |brought: usize| !request.wait || brought >= request.nb_cpus as usize;
    let found = events.wait_until(APPEAR_LIMIT, || {
        match switch_each(Path::new(CPU_DIR), "cpu", "online", "0", "1") {
            Ok(count) => {
                brought += count;
                enough(brought).then_some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        }
    })?;
    found.unwrap_or_else(|| {
        Err(Error::Timeout {
            what: format!("{} of {} processors", brought, request.nb_cpus),
            limit: APPEAR_LIMIT,
        })
    })
}

/// Writes `to` into the file `switch` of each device that has `from` there. Returns how many.
fn switch_each(
    directory: &Path,
    prefix: &str,
    switch: &str,
    from: &str,
    to: &str,
) -> Result<usize> {
    let mut switched = 0;
    // A kernel without this kind of hot-plug has no such directory.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_device = name
            .strip_prefix(prefix)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        let path = entry.path().join(switch);
        if is_device && fs::read_to_string(&path).is_ok_and(|state| state.trim() == from) {
            fs::write(&path, to).attempt(|| format!("bring {name} online"))?;
            switched += 1;
        }
    }
    Ok(switched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_that_are_off_are_switched() {
        let directory = tempfile::tempdir().unwrap();
        for (name, state) in [
            ("cpu0", "1\n"),
            ("cpu1", "0\n"),
            ("cpufreq", "0\n"),
            ("cpu", "0"),
        ] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("online"), state).unwrap();
        }
        let count = switch_each(directory.path(), "cpu", "online", "0", "1").unwrap();
        assert_eq!(count, 1);
        let state =
            |name: &str| fs::read_to_string(directory.path().join(name).join("online")).unwrap();
        assert_eq!(
            (state("cpu1").as_str(), state("cpufreq").as_str()),
            ("1", "0\n")
        );
    }
}
