//! The devices that processes serve, as QEMU alone has them.
//!
//! Where virtc's own kernel knows such devices by their class, virtc has them as block devices, and in its
//! templates. That is virtc's doing, so a floor has them as anybody would: each of its own type, and
//! plugged into a clone.

use vc_types::guest;

use super::machine::{part, value};

/// As virtc has them.
const BY_CLASS: &str = "vhost-user-blk-pci,";

/// What virtc calls the back end of its vsock device.
const VSOCK: &str = "vsock";

/// The VMM's arguments with devices of their own types; those of a clone without them, as its template is.
/// The share has the tag that its process was told.
pub(super) fn with_own_types(args: &[String], tag: Option<&str>) -> Vec<String> {
    let is_clone = value(args, "-incoming").is_some();
    let mut typed = Vec::new();
    let mut given = args.iter();
    while let Some(option) = given.next() {
        match (option.as_str(), given.as_slice().first()) {
            ("-device", Some(device)) if device.starts_with(BY_CLASS) => {
                given.next();
                if !is_clone {
                    typed.extend([option.clone(), own_type(device, tag.unwrap_or_default())]);
                }
            }
            ("-append", Some(parameters)) => {
                given.next();
                let others = parameters.split(' ').filter(|it| !is_by_class(it));
                typed.extend([option.clone(), others.collect::<Vec<_>>().join(" ")]);
            }
            _ => typed.push(option.clone()),
        }
    }
    typed
}

/// Whether this is the kernel parameter that goes with it.
fn is_by_class(parameter: &str) -> bool {
    parameter
        .split_once('=')
        .is_some_and(|(name, _)| name == guest::TYPE_BY_CLASS_PARAM)
}

fn own_type(device: &str, tag: &str) -> String {
    let chardev = part(device, "chardev=").unwrap_or_default();
    let at = part(device, "addr=").unwrap_or_default();
    let own = match chardev {
        VSOCK => format!("vhost-user-vsock-pci,chardev={chardev},disable-legacy=on"),
        _ => format!("vhost-user-fs-pci,chardev={chardev},tag={tag},queue-size=1024"),
    };
    format!("{own},bus=pcie.0,addr={at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(args: &str) -> String {
        let args: Vec<_> = args.split(' ').map(str::to_owned).collect();
        with_own_types(&args, Some("virtc-system")).join(" ")
    }

    const DEVICES: &str = "-device virtio-rng-pci,addr=0x01 \
        -device vhost-user-blk-pci,chardev=vsock,class=65299,num-queues=3,bus=pcie.0,addr=0x02 \
        -device vhost-user-blk-pci,chardev=share0,class=65306,num-queues=2,bus=pcie.0,addr=0x0c";

    #[test]
    fn devices_have_their_own_types() {
        assert_eq!(
            typed(DEVICES),
            "-device virtio-rng-pci,addr=0x01 \
             -device vhost-user-vsock-pci,chardev=vsock,disable-legacy=on,bus=pcie.0,addr=0x02 \
             -device vhost-user-fs-pci,chardev=share0,tag=virtc-system,queue-size=1024,bus=pcie.0,addr=0x0c"
        );
    }

    #[test]
    fn a_clone_gets_them_later_and_the_kernel_knows_nothing_of_classes() {
        let args = vec![
            "-append".to_owned(),
            "quiet virtio_pci_modern_dev.type_by_class=1 nr_uarts=1".to_owned(),
        ];
        assert_eq!(with_own_types(&args, None), ["-append", "quiet nr_uarts=1"]);
        let clone = format!("{DEVICES} -incoming defer");
        assert_eq!(
            typed(&clone),
            "-device virtio-rng-pci,addr=0x01 -incoming defer"
        );
    }
}
