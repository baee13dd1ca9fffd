//! The machine of a running sandbox, to be started again without virtc.
//!
//! The command lines are read from the sandbox's processes, so that a floor is the same machine by
//! construction.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::own_types::with_own_types;
use crate::process::Process;

/// The start of the VMM's name, and the argument of the process that serves a share.
const VMM: &str = "qemu-system-";
const SHARE: &str = "share-device";

/// The start of the argument by which that process knows its tag.
const TAG: &str = "--tag=";

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(super) vmm: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(super) share: PathBuf,
    share_args: Vec<String>,
}

/// A tap that is there, in a network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    pub(crate) namespace: PathBuf,
    pub(crate) name: String,
}

impl Tap {
    /// A program that finds it, in a session of its own as virtc's are: where the kernel shares processors out
    /// by sessions (`sched_autogroup_enabled`), it would have to share one with whoever reaches the guest.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setsid");
        let net = format!("--net={}", self.namespace.display());
        command.args(["nsenter", &net]).arg(program);
        command
    }

    /// In place of virtc's back end.
    pub(super) fn netdev(&self, value: &str) -> String {
        let id = part(value, "id=").unwrap_or_default();
        let vhost = part(value, "vhost=").unwrap_or("off");
        let name = &self.name;
        format!("tap,id={id},ifname={name},script=no,downscript=no,vhost={vhost}")
    }
}

impl Machine {
    /// Reads the machine of a sandbox with one share, a scratch disk and our vsock device.
    pub(crate) fn of(processes: &[Process]) -> Result<Self> {
        let only = |what: &str, is_one: &dyn Fn(&Process) -> bool| {
            let found: Vec<_> = processes.iter().filter(|p| is_one(p)).collect();
            match found.as_slice() {
                [one] => Ok(*one),
                more => bail!("the sandbox has {} processes {what}, not one", more.len()),
            }
        };
        let vmm = only(VMM, &Self::is_vmm)?;
        let share = only(SHARE, &|process| {
            process.args.iter().any(|arg| arg == SHARE)
        })?;
        let file_of = |option: &str| {
            let path = value(&vmm.args, option).with_context(|| format!("no {option}"))?;
            let descriptor = path.strip_prefix("/proc/self/fd/").unwrap_or_default();
            vmm.file(descriptor)
        };
        let mut told = share.args.iter();
        let tag = told.find_map(|arg| arg.strip_prefix(TAG));
        Ok(Self {
            vmm: vmm.program.clone(),
            args: with_own_types(&vmm.args[1..], tag),
            kernel: file_of("-kernel")?,
            initrd: file_of("-initrd")?,
            share: share.program.clone(),
            share_args: share.args[1..].to_vec(),
        })
    }

    /// Processors and memory, as the VMM was told.
    pub(crate) fn size(&self) -> String {
        let of = |option| self.at_first(option).unwrap_or("?");
        format!("{} processors, {}", of("-smp"), of("-m"))
    }

    /// What an option says of the VM's start; what it can grow to comes after it.
    fn at_first(&self, option: &str) -> Option<&str> {
        value(&self.args, option)?.split(',').next()
    }

    /// How much memory the guest has.
    pub(super) fn memory_bytes(&self) -> Result<u64> {
        let size = self.at_first("-m").unwrap_or_default();
        let mib = size
            .strip_suffix('M')
            .and_then(|mib| mib.parse::<u64>().ok());
        let mib = mib.with_context(|| format!("the memory is `{size}`, not in MiB"))?;
        Ok(mib << 20)
    }

    /// `kvm` or `tcg`.
    pub(crate) fn accelerator(&self) -> &str {
        let value = value(&self.args, "-accel").unwrap_or("?");
        value.split(',').next().unwrap_or_default()
    }

    /// Whether a process is a VMM.
    pub(crate) fn is_vmm(process: &Process) -> bool {
        process.name().starts_with(VMM)
    }

    /// The tag of the one share.
    pub(super) fn share_tag(&self) -> Result<&str> {
        self.args
            .iter()
            .find(|arg| arg.starts_with("vhost-user-fs-pci,"))
            .and_then(|arg| part(arg, "tag="))
            .context("the sandbox's machine has no share")
    }

    /// The arguments of the process that serves `directory` at the socket on its standard input.
    pub(super) fn share_args(&self, directory: &Path) -> Vec<String> {
        let replaced = |arg: &String| match arg.split_once('=') {
            Some(("--fd", _)) => "--fd=0".to_owned(),
            Some(("--shared-dir", _)) => format!("--shared-dir={}", directory.display()),
            _ => arg.clone(),
        };
        // The VMM says the tag.
        let passed_on = |arg: &&String| !arg.is_empty() && !arg.starts_with(TAG);
        self.share_args
            .iter()
            .filter(passed_on)
            .map(replaced)
            .collect()
    }
}

/// What follows an option.
pub(super) fn value<'a>(args: &'a [String], option: &str) -> Option<&'a str> {
    let at = args.iter().position(|arg| arg == option)?;
    args.get(at + 1).map(String::as_str)
}

/// The part of a comma-separated value that begins with `name`.
pub(super) fn part<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(',').find_map(|part| part.strip_prefix(name))
}

#[cfg(test)]
impl Machine {
    /// One whose VMM has these arguments.
    pub(super) fn with_args(args: &str) -> Self {
        Self {
            vmm: "/qemu".into(),
            args: args.split(' ').map(str::to_owned).collect(),
            kernel: "/vmlinux".into(),
            initrd: "/initrd".into(),
            share: "/virtc".into(),
            share_args: [
                "--fd=3",
                "--shared-dir=/share",
                "--tag=x",
                "--cache=checked",
                "",
            ]
            .map(str::to_owned)
            .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_served_from_elsewhere() {
        let args = Machine::with_args("").share_args(Path::new("/w"));
        assert_eq!(args, ["--fd=0", "--shared-dir=/w", "--cache=checked"]);
    }
}
