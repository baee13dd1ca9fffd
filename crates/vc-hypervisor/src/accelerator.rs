//! What executes a guest's code, and whether it can be used on this host.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What executes a guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor itself, by the host's kernel.
    Kvm,
    /// QEMU's translator: slower, and possible everywhere.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// What a configuration may say about the accelerator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceleratorChoice {
    /// KVM where it can be used, TCG otherwise.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// TCG.
    Tcg,
}

/// An accelerator, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChosenAccelerator {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Words for a person: `virtc check` shows them.
    pub why: String,
}

/// The files of the host that say what it can do. Tests make their own.
///
/// ```
/// use vc_hypervisor::{Accelerator, AcceleratorChoice, HostDevices};
///
/// let chosen = HostDevices::default().accelerator(AcceleratorChoice::Tcg)?;
/// assert_eq!(chosen.accelerator, Accelerator::Tcg);
/// # Ok::<(), vc_hypervisor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HostDevices {
    /// Where KVM is opened.
    pub kvm: PathBuf,
    /// The processors' descriptions.
    pub cpuinfo: PathBuf,
    /// Where vhost-vsock is opened.
    pub vhost_vsock: PathBuf,
    /// The name of the clock that the host's kernel trusts.
    pub clocksource: PathBuf,
}

impl Default for HostDevices {
    fn default() -> Self {
        Self {
            kvm: "/dev/kvm".into(),
            cpuinfo: "/proc/cpuinfo".into(),
            vhost_vsock: "/dev/vhost-vsock".into(),
            clocksource: "/sys/devices/system/clocksource/clocksource0/current_clocksource".into(),
        }
    }
}

impl HostDevices {
    /// Chooses the accelerator.
    ///
    /// # Errors
    ///
    /// [`Error::Accelerator`] when KVM was asked for and cannot be used.
    pub fn accelerator(&self, choice: AcceleratorChoice) -> Result<ChosenAccelerator> {
        let (accelerator, why) = match (choice, self.kvm_is_usable()) {
            (AcceleratorChoice::Tcg, _) => (Accelerator::Tcg, "the configuration says so".into()),
            (AcceleratorChoice::Auto | AcceleratorChoice::Kvm, Ok(why)) => (Accelerator::Kvm, why),
            (AcceleratorChoice::Auto, Err(why)) => {
                (Accelerator::Tcg, format!("KVM cannot be used: {why}"))
            }
            (AcceleratorChoice::Kvm, Err(reason)) => {
                return Err(Error::Accelerator {
                    wanted: Accelerator::Kvm,
                    reason,
                });
            }
        };
        Ok(ChosenAccelerator { accelerator, why })
    }

    /// Opens the host's vsock for one VM.
    ///
    /// # Errors
    ///
    /// What `open` says; where the host has no such device, the kind is `NotFound`.
    pub fn open_vhost_vsock(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.vhost_vsock)
    }

    /// Whether the host's kernel itself counts time by the processor's time stamp counter, so
    /// that a guest may do so unchecked.
    pub(crate) fn tsc_is_reliable(&self) -> bool {
        let clock = fs::read_to_string(&self.clocksource);
        clock.is_ok_and(|clock| matches!(clock.trim(), "tsc" | "kvm-clock"))
    }

    /// Whether KVM can run a stock kernel, and in either case why.
    fn kvm_is_usable(&self) -> Result<String, String> {
        let kvm = self.kvm.display();
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.kvm)
            .map_err(|error| format!("cannot open {kvm}: {error}"))?;
        let cpuinfo = fs::read_to_string(&self.cpuinfo)
            .map_err(|error| format!("cannot read {}: {error}", self.cpuinfo.display()))?;
        match virtualization_flag(&cpuinfo) {
            Some(flag) => Ok(format!("{kvm} opens, the processor has {flag}")),
            // A KVM without the processor's help emulates too little for a kernel that was not
            // made for it.
            None => Err(format!(
                "the processor has neither vmx nor svm, so {kvm} is a software KVM"
            )),
        }
    }
}

fn virtualization_flag(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "flags")?
        .1;
    ["vmx", "svm"]
        .into_iter()
        .find(|wanted| flags.split_ascii_whitespace().any(|flag| flag == *wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(flags: Option<&str>, kvm: bool) -> (tempfile::TempDir, HostDevices) {
        let dir = tempfile::tempdir().unwrap();
        let devices = HostDevices {
            kvm: dir.path().join("kvm"),
            cpuinfo: dir.path().join("cpuinfo"),
            vhost_vsock: dir.path().join("vhost-vsock"),
            clocksource: dir.path().join("clocksource"),
        };
        if let Some(flags) = flags {
            let text = format!("processor\t: 0\nmodel name\t: a vmx svm\nflags\t\t: {flags}\n");
            fs::write(&devices.cpuinfo, text).unwrap();
        }
        if kvm {
            fs::write(&devices.kvm, "").unwrap();
        }
        (dir, devices)
    }

    #[test]
    fn auto_takes_kvm_only_where_the_processor_helps() {
        for (flags, kvm, wanted) in [
            (Some("fpu vmx sse"), true, Accelerator::Kvm),
            (Some("svm"), true, Accelerator::Kvm),
            (Some("fpu svm_lock avmx"), true, Accelerator::Tcg),
            (Some("vmx"), false, Accelerator::Tcg),
            (None, true, Accelerator::Tcg),
        ] {
            let (_dir, devices) = host(flags, kvm);
            let chosen = devices.accelerator(AcceleratorChoice::Auto).unwrap();
            assert_eq!(chosen.accelerator, wanted, "{flags:?} {kvm} {}", chosen.why);
        }
    }

    #[test]
    fn kvm_that_was_asked_for_is_an_error_with_the_reason() {
        let (_dir, software) = host(Some("fpu"), true);
        let error = software.accelerator(AcceleratorChoice::Kvm).unwrap_err();
        assert!(error.to_string().contains("neither vmx nor svm"), "{error}");

        let (_dir, absent) = host(Some("vmx"), false);
        let error = absent.accelerator(AcceleratorChoice::Kvm).unwrap_err();
        assert!(error.to_string().contains("cannot open"), "{error}");
    }

    #[test]
    fn tcg_needs_nothing() {
        let (_dir, devices) = host(None, false);
        let chosen = devices.accelerator(AcceleratorChoice::Tcg).unwrap();
        assert_eq!(chosen.accelerator, Accelerator::Tcg);
    }

    #[test]
    fn a_clock_that_the_host_does_not_trust_is_not_reliable() {
        let (_dir, devices) = host(None, false);
        assert!(!devices.tsc_is_reliable());
        for (clock, reliable) in [("tsc\n", true), ("kvm-clock\n", true), ("hpet\n", false)] {
            fs::write(&devices.clocksource, clock).unwrap();
            assert_eq!(devices.tsc_is_reliable(), reliable);
        }
    }

    #[test]
    fn a_host_without_vhost_vsock_says_so() {
        let (_dir, devices) = host(None, false);
        let error = devices.open_vhost_vsock().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        fs::write(&devices.vhost_vsock, "").unwrap();
        assert!(devices.open_vhost_vsock().is_ok());
    }
}
