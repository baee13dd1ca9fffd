//! Whether this host can run sandboxes, and how well.

use std::path::Path;
use std::time::Duration;

use guest_image::GuestAssets;
use rustix::process::geteuid;
use serde::Serialize;
use vc_config::{HostFacts, ScratchKind, TcgThreads};
use vc_hypervisor::qemu::QemuVersion;
use vc_hypervisor::{Accelerator, HostDevices};
use vc_types::{ByteSize, Hint};

use crate::factory::{Library, Pool};
use crate::runtime::{Runtime, accelerator_choice};
use crate::sandbox::MKFS;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckItem {
    /// What it is.
    pub name: &'static str,
    /// How it is.
    pub status: CheckStatus,
    /// What was found.
    pub found: String,
    /// The command or setting that mends it, where it is not right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How something is that a sandbox needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// A sandbox starts, but slower or with less than it could have.
    Degraded,
    /// No sandbox starts.
    Missing,
}

impl CheckStatus {
    /// The status as users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// How long QEMU may take to print its version.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// Below this, a usual guest is short of memory.
const MEMORY_COMFORTABLE: ByteSize = ByteSize::from_mib(1024);

/// Below this, no guest boots.
const MEMORY_MIN: ByteSize = ByteSize::from_mib(256);

/// The versions of the parts that are not this library's own; nothing where one is not found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// QEMU.
    pub qemu: Option<String>,
    /// The guest's kernel.
    pub guest_kernel: Option<String>,
    /// The beginning of the digest of the guest's assets.
    pub guest_assets: Option<String>,
}

impl Runtime {
    /// The versions of the parts.
    pub fn versions(&self) -> Versions {
        let qemu = self.config().hypervisor.qemu.find_path();
        let assets = self.config().guest.find_assets();
        let assets = assets.and_then(|dir| GuestAssets::open(&dir).ok());
        Versions {
            qemu: qemu
                .and_then(|path| QemuVersion::of(&path, VERSION_LIMIT).ok())
                .map(|version| version.to_string()),
            guest_kernel: assets.as_ref().map(|a| a.manifest().kernel_release.clone()),
            guest_assets: assets.as_ref().map(GuestAssets::id),
        }
    }

    /// Looks at everything that a sandbox needs. Changes nothing.
    pub fn check(&self) -> Vec<CheckItem> {
        let mut items = vec![rights(), self.accelerator(), transport()];
        items.extend(self.qemu());
        items.push(self.assets());
        let mkfs_path = MKFS.into_iter().find(|path| Path::new(path).is_file());
        items.push(mkfs(mkfs_path, self.config().scratch.kind));
        items.push(cgroups());
        items.push(self.templates());
        items.push(self.waiting());
        items.extend(host());
        items
    }

    fn accelerator(&self) -> CheckItem {
        let choice = accelerator_choice(self.config().runtime.accelerator);
        match HostDevices::default().accelerator(choice) {
            Ok(chosen) => {
                let found = format!("{}: {}", chosen.accelerator, chosen.why);
                match chosen.accelerator {
                    Accelerator::Kvm => ok("accelerator", found),
                    Accelerator::Tcg => degraded(
                        "accelerator",
                        found,
                        "use a machine with VT-x or AMD-V whose /dev/kvm can be opened",
                    ),
                }
            }
            Err(error) => missing("accelerator", error.to_string(), error.hint()),
        }
    }

    /// Without templates, VMs start all the same.
    fn templates(&self) -> CheckItem {
        let name = "templates";
        let settings = &self.config().factory;
        if !settings.auto && !settings.enable_template {
            return ok(name, "off: every VM boots".into());
        }
        let library = Library::open(settings);
        let found = library.bytes_max().and_then(|bytes_max| {
            let templates = library.list()?;
            let bytes: u64 = templates.iter().map(|template| template.bytes).sum();
            Ok(format!(
                "{}, {} of at most {} MiB in {}",
                templates.len(),
                bytes >> 20,
                bytes_max >> 20,
                library.root().display()
            ))
        });
        match found {
            Ok(found) => ok(name, found),
            Err(error) => degraded(
                name,
                error.to_string(),
                "set factory.dir to a directory that nobody else can use",
            ),
        }
    }

    /// Where none waits, VMs start all the same.
    fn waiting(&self) -> CheckItem {
        let name = "waiting VMs";
        let pool = Pool::of(self.config());
        match pool.list() {
            Ok(waiting) => {
                let bytes: u64 = waiting.iter().map(|vm| vm.bytes).sum();
                let wanted = self.config().factory.vm_cache_number;
                let root = pool.root().display();
                let found = format!(
                    "{} of {wanted} wanted, {} MiB, in {root}",
                    waiting.len(),
                    bytes >> 20
                );
                ok(name, found)
            }
            Err(error) => degraded(
                name,
                error.to_string(),
                "see to it that nobody else can write to runtime.root",
            ),
        }
    }

    fn emulates(&self) -> bool {
        let choice = accelerator_choice(self.config().runtime.accelerator);
        HostDevices::default()
            .accelerator(choice)
            .is_ok_and(|chosen| chosen.accelerator == Accelerator::Tcg)
    }

    fn qemu(&self) -> Vec<CheckItem> {
        let qemu = &self.config().hypervisor.qemu;
        let install = || Some("apt-get install qemu-system-x86".to_owned());
        let version = match qemu.find_path() {
            None => missing("qemu", "not found".into(), install()),
            Some(path) => match QemuVersion::of(&path, VERSION_LIMIT) {
                Ok(version) if version >= QemuVersion::OLDEST => {
                    let found = format!("{version} at {}", path.display());
                    let old = self.emulates() && version < QemuVersion::REWRITES_SAFELY;
                    match (old, qemu.tcg_threads) {
                        (false, _) | (true, TcgThreads::Single) => ok("qemu", found),
                        (true, TcgThreads::Auto) => degraded(
                            "qemu",
                            format!("{found}: without KVM, processors of a guest take turns"),
                            &format!("use QEMU {}", QemuVersion::REWRITES_SAFELY),
                        ),
                        (true, TcgThreads::Multi) => degraded(
                            "qemu",
                            format!("{found}: a guest with several processors may hang"),
                            "leave hypervisor.qemu.tcg_threads as it is by default",
                        ),
                    }
                }
                Ok(version) => missing(
                    "qemu",
                    format!("{version} is older than {}", QemuVersion::OLDEST),
                    install(),
                ),
                Err(error) => missing("qemu", error.to_string(), install()),
            },
        };
        let firmware = match qemu.find_firmware() {
            Some(path) => ok("firmware", path.display().to_string()),
            None => missing(
                "firmware",
                "qboot is not found".into(),
                Some("apt-get install qemu-system-data".into()),
            ),
        };
        vec![version, firmware]
    }

    fn assets(&self) -> CheckItem {
        let name = "guest kernel and initrd";
        let mend = || Some("make guest".to_owned());
        let Some(dir) = self.config().guest.find_assets() else {
            return missing(name, "not found".into(), mend());
        };
        match GuestAssets::open(&dir) {
            Ok(assets) => ok(
                name,
                format!(
                    "{} in {}",
                    assets.manifest().kernel_release,
                    assets.dir().display()
                ),
            ),
            Err(error) => missing(name, error.to_string(), mend()),
        }
    }
}

fn ok(name: &'static str, found: String) -> CheckItem {
    CheckItem {
        name,
        status: CheckStatus::Ok,
        found,
        mend: None,
    }
}

fn degraded(name: &'static str, found: String, mend: &str) -> CheckItem {
    CheckItem {
        name,
        status: CheckStatus::Degraded,
        found,
        mend: Some(mend.to_owned()),
    }
}

fn missing(name: &'static str, found: String, mend: Option<String>) -> CheckItem {
    CheckItem {
        name,
        status: CheckStatus::Missing,
        found,
        mend,
    }
}

fn rights() -> CheckItem {
    match geteuid().is_root() {
        true => ok("rights", "root".into()),
        false => missing("rights", "not root".into(), Some("run it with sudo".into())),
    }
}

fn transport() -> CheckItem {
    // Clones and the guest's own sockets are easier with a device process, and it is everywhere.
    ok(
        "transport",
        "hybrid vsock by a device process of virtc".into(),
    )
}

/// Only a scratch disk is formatted.
fn mkfs(path: Option<&str>, kind: ScratchKind) -> CheckItem {
    let mend = "apt-get install e2fsprogs";
    match (path, kind) {
        (Some(path), _) => ok("mkfs.ext4", path.into()),
        (None, ScratchKind::Disk) => missing("mkfs.ext4", "not found".into(), Some(mend.into())),
        (None, ScratchKind::Tmpfs) => {
            degraded("mkfs.ext4", "not found: no scratch disk".into(), mend)
        }
    }
}

fn cgroups() -> CheckItem {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists();
    let found = match (v2, hybrid) {
        (true, _) => "version 2",
        (false, true) => "version 1 with an empty version 2 beside it (hybrid)",
        (false, false) => "version 1",
    };
    ok("cgroups", found.into())
}

fn host() -> Vec<CheckItem> {
    let facts = match HostFacts::read() {
        Ok(facts) => facts,
        Err(error) => return vec![missing("host", error.to_string(), None)],
    };
    let found = format!(
        "{} MiB available of {} MiB",
        facts.memory_available.mib(),
        facts.memory_total.mib()
    );
    let memory = if facts.memory_available < MEMORY_MIN {
        missing(
            "memory",
            found,
            Some("end something that uses much memory".into()),
        )
    } else if facts.memory_available < MEMORY_COMFORTABLE {
        degraded(
            "memory",
            found,
            "end something that uses much memory, or use a small -m",
        )
    } else {
        ok("memory", found)
    };
    vec![
        memory,
        ok("processors", facts.cpus.to_string()),
        ok("host kernel", facts.kernel_release),
    ]
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn without_mkfs_there_is_no_disk_and_that_may_do() {
        let found = Some("/sbin/mkfs.ext4");
        assert_eq!(mkfs(found, ScratchKind::Disk).status, CheckStatus::Ok);
        assert_eq!(mkfs(None, ScratchKind::Disk).status, CheckStatus::Missing);
        assert_eq!(mkfs(None, ScratchKind::Tmpfs).status, CheckStatus::Degraded);
    }
}
