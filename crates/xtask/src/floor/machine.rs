//! The machine of a running sandbox, to be started again without virtc.
//!
//! The command lines are read from the sandbox's processes, so that a floor is the same machine by
//! construction. What virtc holds by descriptor gets a path, and its monitors are left out.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::Process;

/// The start of the VMM's name, and the argument of the process that serves a share.
const VMM: &str = "qemu-system-";
const SHARE: &str = "share-device";

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(super) vmm: PathBuf,
    args: Vec<String>,
    pub(super) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(super) share: PathBuf,
    share_args: Vec<String>,
}

/// What a machine of the floor has in place of virtc's descriptors.
#[derive(Debug)]
pub(super) struct Replacement<'a> {
    pub(super) initrd: &'a Path,
    pub(super) vsock: &'a Path,
    pub(super) share: &'a Path,
    pub(super) scratch: &'a Path,
    /// Kernel parameters behind virtc's.
    pub(super) parameters: &'a str,
    /// The tap of the one network device, where there is one.
    pub(super) tap: Option<&'a Tap>,
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
    fn netdev(&self, value: &str) -> String {
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
        Ok(Self {
            vmm: vmm.program.clone(),
            args: vmm.args[1..].to_vec(),
            kernel: file_of("-kernel")?,
            initrd: file_of("-initrd")?,
            share: share.program.clone(),
            share_args: share.args[1..].to_vec(),
        })
    }

    /// Processors and memory, as the VMM was told.
    pub(crate) fn size(&self) -> String {
        let of = |option| value(&self.args, option).unwrap_or("?");
        format!("{} processors, {}", of("-smp"), of("-m"))
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
        let given = self.share_args.iter().filter(|arg| !arg.is_empty());
        given.map(replaced).collect()
    }

    /// The arguments of the VMM whose console is its standard input.
    pub(super) fn vmm_args(&self, with: &Replacement<'_>) -> Result<Vec<String>> {
        let mut args = Vec::new();
        let mut given = self.args.iter().filter(|arg| !arg.is_empty());
        while let Some(option) = given.next() {
            let mut value = || given.next().map_or("", String::as_str);
            let replaced = match option.as_str() {
                "-mon" | "-add-fd" => {
                    value();
                    continue;
                }
                "-chardev" => match chardev(value(), with)? {
                    Some(replaced) => replaced,
                    None => continue,
                },
                "-netdev" => match with.tap {
                    Some(tap) => tap.netdev(value()),
                    None => {
                        bail!("the sandbox's machine has a network device, and the floor no tap")
                    }
                },
                "-blockdev" => disk(value(), with.scratch),
                "-kernel" => {
                    value();
                    self.kernel.display().to_string()
                }
                "-initrd" => {
                    value();
                    with.initrd.display().to_string()
                }
                "-append" => format!("{} {}", value(), with.parameters),
                _ => {
                    args.push(option.clone());
                    continue;
                }
            };
            args.extend([option.clone(), replaced]);
        }
        Ok(args)
    }
}

fn chardev(value: &str, with: &Replacement<'_>) -> Result<Option<String>> {
    let id = part(value, "id=").unwrap_or_default();
    let socket = |path: &Path| Ok(Some(format!("socket,id={id},path={}", path.display())));
    match id {
        "events" | "commands" => Ok(None),
        "console" => Ok(Some("socket,id=console,fd=0".to_owned())),
        "vsock" => socket(with.vsock),
        "share0" => socket(with.share),
        _ => bail!("the sandbox's machine has `-chardev {value}`, which the floor does not know"),
    }
}

fn disk(value: &str, image: &Path) -> String {
    let replaced = value.split(',').map(|part| {
        if part.starts_with("filename=") {
            format!("filename={}", image.display())
        } else {
            part.to_owned()
        }
    });
    replaced.collect::<Vec<_>>().join(",")
}

/// What follows an option.
fn value<'a>(args: &'a [String], option: &str) -> Option<&'a str> {
    let at = args.iter().position(|arg| arg == option)?;
    args.get(at + 1).map(String::as_str)
}

/// The part of a comma-separated value that begins with `name`.
fn part<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(',').find_map(|part| part.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(args: &str) -> Machine {
        Machine {
            vmm: "/qemu".into(),
            args: args.split(' ').map(str::to_owned).collect(),
            kernel: "/vmlinux".into(),
            initrd: "/initrd".into(),
            share: "/virtc".into(),
            share_args: ["--fd=3", "--shared-dir=/share", "--cache=checked", ""]
                .map(str::to_owned)
                .into(),
        }
    }

    const WITH: fn() -> Replacement<'static> = || Replacement {
        initrd: Path::new("/w/initrd"),
        vsock: Path::new("/w/vsock"),
        share: Path::new("/w/share"),
        scratch: Path::new("/w/disk"),
        parameters: "rdinit=/floor",
        tap: None,
    };

    #[test]
    fn descriptors_become_paths_and_monitors_go() {
        let given = "-no-reboot -chardev socket,id=events,fd=3 -mon chardev=events,mode=control \
            -add-fd fd=5,set=5 -chardev file,id=console,path=/dev/fdset/5,append=on \
            -kernel /proc/self/fd/6 -append quiet -chardev socket,id=vsock,fd=8 \
            -blockdev driver=file,filename=/dev/fdset/9,locking=off -smp 2";
        let args = machine(given).vmm_args(&WITH()).unwrap().join(" ");
        assert_eq!(
            args,
            "-no-reboot -chardev socket,id=console,fd=0 -kernel /vmlinux \
             -append quiet rdinit=/floor -chardev socket,id=vsock,path=/w/vsock \
             -blockdev driver=file,filename=/w/disk,locking=off -smp 2"
        );
    }

    #[test]
    fn a_network_device_has_the_tap_of_the_floor() {
        let given = "-netdev tap,id=net0,fds=9,vhost=off -device virtio-net-pci,netdev=net0";
        let tap = Tap {
            namespace: "/run/netns/x".into(),
            name: "tap0".into(),
        };
        let with = Replacement {
            tap: Some(&tap),
            ..WITH()
        };
        let args = machine(given).vmm_args(&with).unwrap().join(" ");
        assert_eq!(
            args,
            "-netdev tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off \
             -device virtio-net-pci,netdev=net0"
        );
        assert!(machine(given).vmm_args(&WITH()).is_err());
    }

    #[test]
    fn a_device_that_the_floor_cannot_have_is_refused() {
        let args = machine("-chardev socket,id=share1,fd=9").vmm_args(&WITH());
        assert!(args.is_err());
    }

    #[test]
    fn the_share_is_served_from_elsewhere() {
        let args = machine("").share_args(Path::new("/w"));
        assert_eq!(args, ["--fd=0", "--shared-dir=/w", "--cache=checked"]);
    }
}
