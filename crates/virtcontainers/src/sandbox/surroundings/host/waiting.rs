//! What a machine of QEMU's is made of that waits before anybody asks for its sandbox.

use std::fs::metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vc_config::Physical;
use vc_types::BootId;

use super::HostPlan;
use crate::HOST_SYSTEM;
use crate::container::RootSource;
use crate::error::{Error, Result};
use crate::runtime::Shared;
use crate::sandbox::config::SandboxConfig;
use crate::sandbox::network::IntendedNetwork;

/// The mounts that the host's system is seen with.
const MOUNT_NAMESPACE: &str = "/proc/self/ns/mnt";

impl HostPlan {
    /// Everything that differs between machines, the digests of what they boot included. Disks and
    /// cards are of one sandbox, and so are networks that are not a namespace's.
    pub(super) fn key(&self, runtime: &Shared, config: &SandboxConfig) -> Result<Option<String>> {
        let is_own = |source: &RootSource| match source {
            RootSource::Disk(_) => true,
            RootSource::HostSystem => !config.throw_away,
            RootSource::Directory(_) => false,
        };
        let mut containers = config.containers.iter();
        let comes_later = |network: &IntendedNetwork| network.can_come_later();
        let own_devices = !self.network.as_ref().is_none_or(comes_later)
            || config.endpoints.physical == Physical::Pass
            || containers.any(|container| is_own(&container.root.source));
        let qemu = &runtime.config.hypervisor.qemu;
        let (Some(program), Some(firmware), false) =
            (qemu.find_path(), qemu.find_firmware(), own_devices)
        else {
            return Ok(None);
        };
        let manifest = self.assets.manifest();
        let mut parts = vec![
            format!("boot {}", BootId::current()?),
            format!("kernel {}", manifest.vmlinux.sha256),
            format!("initrd {}", manifest.initrd.sha256),
            format!("accelerator {}", self.boot.accelerator),
            format!("machine {:?}", config.vm.unasked()),
            format!("scratch {:?}", config.scratch),
            format!("throw-away {}", config.throw_away),
            format!("host system {}", self.shares.system.is_some()),
            format!("shared pids {}", config.shared_pids),
            format!("cgroup {}", config.cgroup.is_own()),
            format!("qemu {qemu:?}"),
            format!("share {:?}", runtime.config.share),
        ];
        for path in [&program, &firmware, &runtime.program] {
            parts.push(changing(path)?);
        }
        parts.push(present(&runtime.config.scratch.dir));
        let seen = HOST_SYSTEM.into_iter().chain([MOUNT_NAMESPACE]);
        parts.extend(seen.map(|path| present(Path::new(path))));
        Ok(Some(parts.join("\n")))
    }
}

/// By which a file that was replaced or changed is another one.
fn changing(path: &Path) -> Result<String> {
    let found = metadata(path).map_err(|source| Error::System {
        attempt: format!("look at {}", path.display()),
        source,
    })?;
    // Not by its name: a program knows itself by another one than others do.
    let changed = (found.size(), found.mtime(), found.mtime_nsec());
    Ok(format!("{}:{} {changed:?}", found.dev(), found.ino()))
}

/// Which file has this name, where one has.
fn present(path: &Path) -> String {
    let found = metadata(path).map(|found| format!("{}:{}", found.dev(), found.ino()));
    format!("{} {}", path.display(), found.unwrap_or_default())
}
