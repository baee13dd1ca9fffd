//! The command line of a sandbox's machine for the floor: what virtc holds by descriptor gets a path, and its
//! monitors are left out, but one of a template and its clones.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::machine::{Machine, Tap, part};

/// The monitor that virtc itself uses from the start on.
const MONITOR: &str = "events";

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
    /// What there is for a template and its clones only.
    pub(super) of_template: Option<&'a OfTemplate>,
}

/// What a template and its clones have besides.
#[derive(Debug)]
pub(super) struct OfTemplate {
    /// The file of the guest's memory.
    pub(super) memory: PathBuf,
    /// The socket at which the VMM offers its monitor.
    pub(super) monitor: PathBuf,
    /// The socket to which it connects the second serial line.
    pub(super) port: PathBuf,
}

impl Machine {
    /// The arguments of the VMM whose console is its standard input.
    pub(super) fn vmm_args(&self, with: &Replacement<'_>) -> Result<Vec<String>> {
        let mut args = Vec::new();
        let mut given = self.args.iter().filter(|arg| !arg.is_empty());
        while let Some(option) = given.next() {
            let mut value = || given.next().map_or("", String::as_str);
            let replaced = match option.as_str() {
                "-mon" => match (value(), with.of_template) {
                    (monitor, Some(_)) if part(monitor, "chardev=") == Some(MONITOR) => {
                        monitor.to_owned()
                    }
                    _ => continue,
                },
                "-add-fd" => {
                    value();
                    continue;
                }
                "-object" => object(value(), with),
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
        MONITOR => with.of_template.map_or(Ok(None), |of| socket(&of.monitor)),
        "commands" => Ok(None),
        "template" if let Some(of) = with.of_template => socket(&of.port),
        "console" => Ok(Some("socket,id=console,fd=0".to_owned())),
        "vsock" => socket(with.vsock),
        "share0" => socket(with.share),
        _ => bail!("the sandbox's machine has `-chardev {value}`, which the floor does not know"),
    }
}

fn disk(value: &str, image: &Path) -> String {
    with_path(value, "filename=", image)
}

/// The guest's memory has a path where it is a file that others have too.
fn object(value: &str, with: &Replacement<'_>) -> String {
    match with.of_template {
        Some(of) => with_path(value, "mem-path=", &of.memory),
        None => value.to_owned(),
    }
}

/// The value with another path in its part that begins with `name`.
fn with_path(value: &str, name: &str, path: &Path) -> String {
    let replaced = value.split(',').map(|part| {
        if part.starts_with(name) {
            format!("{name}{}", path.display())
        } else {
            part.to_owned()
        }
    });
    replaced.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: fn() -> Replacement<'static> = || Replacement {
        initrd: Path::new("/w/initrd"),
        vsock: Path::new("/w/vsock"),
        share: Path::new("/w/share"),
        scratch: Path::new("/w/disk"),
        parameters: "rdinit=/floor",
        tap: None,
        of_template: None,
    };

    #[test]
    fn descriptors_become_paths_and_monitors_go() {
        let given = "-no-reboot -chardev socket,id=events,fd=3 -mon chardev=events,mode=control \
            -add-fd fd=5,set=5 -chardev file,id=console,path=/dev/fdset/5,append=on \
            -kernel /proc/self/fd/6 -append quiet -chardev socket,id=vsock,fd=8 \
            -blockdev driver=file,filename=/dev/fdset/9,locking=off -smp 2";
        let args = Machine::with_args(given)
            .vmm_args(&WITH())
            .unwrap()
            .join(" ");
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
        let args = Machine::with_args(given).vmm_args(&with).unwrap().join(" ");
        assert_eq!(
            args,
            "-netdev tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off \
             -device virtio-net-pci,netdev=net0"
        );
        assert!(Machine::with_args(given).vmm_args(&WITH()).is_err());
    }

    #[test]
    fn a_template_and_its_clones_have_memory_monitor_and_port() {
        let given = "-chardev socket,id=events,fd=4 -mon chardev=events,mode=control \
            -chardev socket,id=commands,fd=5,server=on -mon chardev=commands,mode=control \
            -object memory-backend-file,id=memory,mem-path=/proc/self/fd/3 \
            -chardev socket,id=template,fd=9 -serial chardev:template";
        let with = Replacement {
            of_template: Some(&OfTemplate {
                memory: "/w/memory".into(),
                monitor: "/w/monitor".into(),
                port: "/w/port".into(),
            }),
            ..WITH()
        };
        let args = Machine::with_args(given).vmm_args(&with).unwrap().join(" ");
        assert_eq!(
            args,
            "-chardev socket,id=events,path=/w/monitor -mon chardev=events,mode=control \
             -object memory-backend-file,id=memory,mem-path=/w/memory \
             -chardev socket,id=template,path=/w/port -serial chardev:template"
        );
        assert!(Machine::with_args(given).vmm_args(&WITH()).is_err());
    }

    #[test]
    fn a_device_that_the_floor_cannot_have_is_refused() {
        let args = Machine::with_args("-chardev socket,id=share1,fd=9").vmm_args(&WITH());
        assert!(args.is_err());
    }
}
