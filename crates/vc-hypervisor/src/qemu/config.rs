use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, Result};

/// Where distributions put QEMU.
const BINARIES: [&str; 3] = [
    "/usr/bin/qemu-system-x86_64",
    "/usr/local/bin/qemu-system-x86_64",
    "/usr/libexec/qemu-kvm",
];

/// Where distributions put qboot. QEMU carries it under two names.
const FIRMWARES: [&str; 6] = [
    "/usr/share/qemu/qboot.rom",
    "/usr/share/qemu/bios-microvm.bin",
    "/usr/local/share/qemu/qboot.rom",
    "/usr/local/share/qemu/bios-microvm.bin",
    "/usr/share/qemu-kvm/qboot.rom",
    "/usr/share/qboot/qboot.rom",
];

/// The driver's own options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuConfig {
    /// The program; looked for at the usual places when not set.
    pub binary: Option<PathBuf>,
    /// The qboot firmware; looked for at the usual places when not set.
    pub firmware: Option<PathBuf>,
    /// The unprivileged user that QEMU runs as.
    pub user: VmmUser,
    /// The most MiB of translated code that TCG keeps. A boot is slower with 32, and no faster
    /// with more than 128.
    pub tcg_buffer_mib: u32,
    /// On how many threads TCG emulates a machine's processors.
    pub tcg_threads: TcgThreads,
    /// How long things may take.
    pub limits: QemuLimits,
}

/// On how many threads of the host TCG emulates the processors of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcgThreads {
    /// One for each where that is safe ([`QemuVersion::REWRITES_SAFELY`]), otherwise one.
    ///
    /// [`QemuVersion::REWRITES_SAFELY`]: super::QemuVersion::REWRITES_SAFELY
    #[default]
    Auto,
    /// One: they take turns.
    Single,
    /// One for each.
    Multi,
}

/// The user that a VMM runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmmUser {
    /// Its own: nothing on the host belongs to it.
    Own {
        /// The user id.
        uid: u32,
        /// The group id.
        gid: u32,
    },
    /// The invoking one, who then must not be root for the VMM to be without rights.
    Invoking,
}

/// How long the parts of a VM's start and of a command may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QemuLimits {
    /// From executing QEMU to its first answer.
    pub start: Duration,
    /// One QMP command, connecting included.
    pub command: Duration,
    /// For a guest to let go of a device.
    pub unplug: Duration,
}

impl Default for QemuLimits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(20),
            command: Duration::from_secs(5),
            unplug: Duration::from_secs(10),
        }
    }
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            binary: None,
            firmware: None,
            // A number that distributions leave free and that container images use as "nobody".
            user: VmmUser::Own {
                uid: 65532,
                gid: 65532,
            },
            tcg_buffer_mib: 128,
            tcg_threads: TcgThreads::default(),
            limits: QemuLimits::default(),
        }
    }
}

impl QemuConfig {
    /// The program's path.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] with every place that was looked at.
    pub fn find_binary(&self) -> Result<PathBuf> {
        find("QEMU", "qemu-system-x86", self.binary.as_ref(), &BINARIES)
    }

    /// The firmware's path.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] with every place that was looked at.
    pub fn find_firmware(&self) -> Result<PathBuf> {
        find(
            "the qboot firmware",
            "qemu-system-data",
            self.firmware.as_ref(),
            &FIRMWARES,
        )
    }
}

fn find(
    what: &'static str,
    package: &'static str,
    configured: Option<&PathBuf>,
    usual: &[&str],
) -> Result<PathBuf> {
    let tried = match configured {
        Some(path) => vec![path.clone()],
        None => usual.iter().map(PathBuf::from).collect(),
    };
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::Missing {
            what,
            tried,
            package,
        }),
    }
}

#[cfg(test)]
mod tests {
    use vc_types::Hint;

    use super::*;

    #[test]
    fn a_missing_firmware_names_the_place_and_the_cure() {
        let config = QemuConfig {
            firmware: Some("/nonexistent/qboot.rom".into()),
            ..QemuConfig::default()
        };
        let error = config.find_firmware().unwrap_err();
        assert!(error.to_string().contains("/nonexistent/qboot.rom"));
        assert!(error.hint().unwrap().contains("qemu-system-data"));
    }
}
