//! Processors and memory that were plugged in are put to use: `OnlineCPUMem`, and our own `Grow`.

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
const MEMORY_MODULE: &str = "virtio_mem";

/// What is there where the kernel has that driver.
const MEMORY_DRIVER: &str = "/sys/bus/virtio/drivers/virtio_mem";

/// How long plugged processors may take to appear.
const APPEAR_LIMIT: Duration = Duration::from_secs(20);

/// Puts everything to use that is there, and, when asked, waits for as many processors as the host
/// has plugged. Blocks.
pub(super) fn online(request: &OnlineCPUMemRequest, modules: &Modules) -> Result<()> {
    let events = Uevents::listen()?;
    if !request.cpu_only {
        // Others plug memory in by other means.
        let _ = require_memory(modules);
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

/// Makes sure of the driver of the memory device.
pub(super) fn require_memory(modules: &Modules) -> Result<()> {
    modules.require(MEMORY_MODULE)?;
    match Path::new(MEMORY_DRIVER).exists() {
        true => Ok(()),
        false => Err(Error::State {
            object: format!("the driver {MEMORY_MODULE}"),
            state: "not in this kernel",
        }),
    }
}

/// Brings processors online until so many work. Blocks.
pub(super) fn bring_processors(wanted: u32, limit: Duration) -> Result<()> {
    let events = Uevents::listen()?;
    let possible = count(&read_cpus("possible")?);
    if possible < wanted {
        return Err(Error::State {
            object: format!("processor {wanted}"),
            state: "beyond what this kernel has made room for",
        });
    }
    let found = events.wait_until(limit, || {
        let online = switch_each(Path::new(CPU_DIR), "cpu", "online", "0", "1")
            .and_then(|_| read_cpus("online"));
        match online {
            Ok(online) => (count(&online) >= wanted).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    })?;
    found.unwrap_or_else(|| {
        Err(Error::Timeout {
            what: format!("{wanted} processors"),
            limit,
        })
    })
}

fn read_cpus(list: &str) -> Result<String> {
    let path = Path::new(CPU_DIR).join(list);
    fs::read_to_string(&path).attempt(|| format!("read {}", path.display()))
}

/// How many a list of the kernel's has, such as `0-2,4`.
fn count(list: &str) -> u32 {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        Some(last.checked_sub(first)?.saturating_add(1))
    });
    ranges.fold(0, u32::saturating_add)
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

    #[test]
    fn a_list_of_the_kernels_is_counted() {
        assert_eq!(count("0\n"), 1);
        assert_eq!(count("0-2,4,8-9\n"), 6);
        assert_eq!(count("\n"), 0);
        assert_eq!(count("3-1,x,0-4294967295"), u32::MAX);
    }
}
