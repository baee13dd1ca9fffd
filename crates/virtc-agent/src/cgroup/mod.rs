//! The guest's cgroups: one for all containers, which leaves the agent some memory whatever they
//! do, and in it one for each. Only the second version exists in the guest.

mod devices;
mod events;
mod memory;
mod stats;

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use libcgroups::common::{CgroupManager as _, ControllerOpt};
use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::time::timeout;

use crate::error::{Attempt as _, Error, Result};

use devices::DeviceProgram;

pub(crate) use devices::DeviceRules;
pub(crate) use events::OomEvents;
pub(crate) use memory::MemoryOfContainers;

const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The cgroup of all containers. Their paths are below it, so that no path reaches the agent.
const CONTAINERS: &str = "virtc";

/// How long a cgroup's processes may take to freeze or to end.
const EVENT_LIMIT: Duration = Duration::from_secs(10);

/// Makes the cgroup of all containers.
pub(crate) fn prepare() -> Result<MemoryOfContainers> {
    let root = Path::new(MOUNT_POINT);
    let available = fs::read_to_string(root.join("cgroup.controllers"))
        .attempt(|| "list the cgroup controllers".into())?;
    let all = root.join(CONTAINERS);
    fs::create_dir(&all).attempt(|| format!("create {}", all.display()))?;
    let enable: String = available
        .split_whitespace()
        .map(|name| format!("+{name} "))
        .collect();
    write(&root.join("cgroup.subtree_control"), enable.trim())?;
    write(&all.join("cgroup.subtree_control"), enable.trim())?;
    MemoryOfContainers::now()
}

/// The guest's memory.
pub(crate) fn memory_total_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// What the kernel could give to programs just now.
fn memory_available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").attempt(|| "read /proc/meminfo".into())?;
    Ok(parse_available(&text).unwrap_or_else(memory_total_bytes))
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The cgroup of one container.
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// Below the mount point, as the container library wants it.
    relative: PathBuf,
    path: PathBuf,
    devices: DeviceProgram,
}

impl Cgroup {
    /// The cgroup that a specification names, or the container's own. It is made with the
    /// container.
    pub(crate) fn of_container(container_id: &str, cgroups_path: Option<&Path>) -> Result<Self> {
        let mut relative = Path::new("/").join(CONTAINERS);
        let wanted = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        for component in wanted.unwrap_or(Path::new(container_id)).components() {
            match component {
                Component::Normal(name) => relative.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Error::Invalid {
                        field: "cgroups path",
                        value: wanted.unwrap_or(Path::new("")).display().to_string(),
                        reason: "leads upwards",
                    });
                }
            }
        }
        if relative == Path::new("/").join(CONTAINERS) {
            relative.push(container_id);
        }
        let path = Path::new(MOUNT_POINT).join(relative.strip_prefix("/").unwrap_or(&relative));
        Ok(Self {
            relative,
            path,
            devices: DeviceProgram::default(),
        })
    }

    /// The path that goes into the container's specification.
    pub(crate) fn relative(&self) -> &Path {
        &self.relative
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many of its processes the OOM killer has killed. Zero when there is no such cgroup.
    pub(crate) fn oom_kills(&self) -> u64 {
        let events = self.numbers("memory.events");
        events.get("oom_kill").copied().unwrap_or(0)
    }

    /// Lets its processes use no other devices than these.
    pub(crate) fn restrict_devices(&self, rules: &DeviceRules) -> Result<()> {
        self.devices.set(&self.path, rules)
    }

    /// Changes limits. Device rules take the place of those before; without any, those stay.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<()> {
        if let Some(rules) = DeviceRules::of(resources.devices().as_deref())? {
            self.restrict_devices(&rules)?;
        }
        let attempt = || format!("change the limits in {}", self.path.display());
        let options = ControllerOpt {
            resources,
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        };
        libcgroups::v2::manager::Manager::new(MOUNT_POINT.into(), self.relative.clone())
            .and_then(|manager| manager.apply(&options))
            .map_err(|source| Error::Cgroup {
                attempt: attempt(),
                source: source.into(),
            })
    }

    /// Stops or continues its processes, and waits until they do.
    pub(crate) async fn set_frozen(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        write(&self.path.join("cgroup.freeze"), value)?;
        self.wait_event("frozen", u64::from(frozen)).await
    }

    /// Kills its processes, and waits until all were collected.
    pub(crate) async fn kill(&self) -> Result<()> {
        // Where there is no process, none can come; and a cgroup that is gone has no such file.
        if !self.is_populated() {
            return Ok(());
        }
        write(&self.path.join("cgroup.kill"), "1")?;
        self.wait_event("populated", 0).await
    }

    /// Whether it has processes; false when it is gone.
    pub(crate) fn is_populated(&self) -> bool {
        self.numbers("cgroup.events").get("populated") == Some(&1)
    }

    /// Its processes, those of cgroups that the container made in it included.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        collect_pids(&self.path, &mut pids)?;
        Ok(pids)
    }

    /// Removes it where nothing is in it.
    pub(crate) fn remove_empty(&self) {
        // The kernel says whether that is so.
        let _ = fs::remove_dir(&self.path);
    }

    /// Removes it with those in it. That it is gone already is no error.
    pub(crate) fn remove(&self) -> Result<()> {
        remove_tree(&self.path)
    }

    /// Waits until a line of `cgroup.events` has this value. The kernel wakes whoever polls.
    async fn wait_event(&self, name: &str, value: u64) -> Result<()> {
        let attempt = || format!("watch {}", self.path.display());
        let file = fs::File::open(self.path.join("cgroup.events")).attempt(attempt)?;
        let events = crate::sys::watch(file.into(), Interest::PRIORITY).attempt(attempt)?;
        let reached = async {
            loop {
                if self.numbers("cgroup.events").get(name) == Some(&value) {
                    return Ok(());
                }
                events
                    .ready(Interest::PRIORITY)
                    .await
                    .attempt(attempt)?
                    .clear_ready();
            }
        };
        timeout(EVENT_LIMIT, reached).await.unwrap_or_else(|_| {
            let what = format!("{} until {name} is {value}", self.path.display());
            Err(Error::Timeout {
                what,
                limit: EVENT_LIMIT,
            })
        })
    }

    /// A file of lines `NAME NUMBER`; empty when it cannot be read.
    fn numbers(&self, file: &str) -> HashMap<String, u64> {
        parse_numbers(&self.text(file))
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }
}

fn parse_numbers(text: &str) -> HashMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn collect_pids(path: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let attempt = || format!("list the processes of {}", path.display());
    let text = fs::read_to_string(path.join("cgroup.procs")).attempt(attempt)?;
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in children(path).attempt(attempt)? {
        collect_pids(&child, pids)?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    let attempt = || format!("remove {}", path.display());
    match children(path) {
        Ok(children) => children.iter().try_for_each(|child| remove_tree(child))?,
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).attempt(attempt),
    }
    fs::remove_dir(path).attempt(attempt)
}

fn children(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).attempt(|| format!("write {value:?} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_is_below_the_one_cgroup() {
        let path = |wanted: Option<&str>| {
            Cgroup::of_container("c1", wanted.map(Path::new)).map(|cgroup| cgroup.path)
        };
        assert_eq!(path(None).unwrap(), Path::new("/sys/fs/cgroup/virtc/c1"));
        assert_eq!(
            path(Some("/pod/c1")).unwrap(),
            Path::new("/sys/fs/cgroup/virtc/pod/c1")
        );
        assert_eq!(
            path(Some("/")).unwrap(),
            Path::new("/sys/fs/cgroup/virtc/c1")
        );
        assert!(path(Some("/../x")).is_err());
    }

    #[test]
    fn available_memory_is_read_in_bytes() {
        assert_eq!(
            parse_available("MemTotal: 9 kB\nMemAvailable:   1024 kB\n"),
            Some(1 << 20)
        );
        assert_eq!(parse_available("MemTotal: 9 kB\n"), None);
    }
}
