//! The lists of the guest's own kernel against what is asked of them: what container software looks
//! for, what our own parts need, and what became of them in the kernel that the cache has.
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Options in the form of the kernel's own configuration, by name.
type Options = BTreeMap<String, String>;

/// Options that a start needs and that our own command lines and agent use.
const NEEDED_BY_A_START: &[&str] = &[
    "PVH",
    "KVM_GUEST",
    "HYPERVISOR_GUEST",
    "BLK_DEV_INITRD",
    "SERIAL_8250_CONSOLE",
    "VIRTIO_PCI",
    "VIRTIO_MMIO",
    "VIRTIO_FS",
    "NET_9P_VIRTIO",
    "9P_FS",
    "VIRTIO_VSOCKETS",
    "VIRTIO_CONSOLE",
    "VIRTIO_BLK",
    "VIRTIO_NET",
    "HW_RANDOM_VIRTIO",
    "VIRTIO_MEM",
    "VIRTIO_BALLOON",
    "PAGE_REPORTING",
    "PVPANIC_MMIO",
    "OVERLAY_FS",
    "EROFS_FS",
    "EXT4_FS",
    "HOTPLUG_CPU",
    "ACPI_HOTPLUG_MEMORY",
    "HOTPLUG_PCI_ACPI",
    "MODULE_DECOMPRESS",
];

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn list(name: &str) -> String {
    fs::read_to_string(tree().join("guest/kernel").join(name)).unwrap()
}

/// Reads `CONFIG_NAME=value` lines; an option that is off says so in a comment and is left out.
fn options(text: &str) -> Options {
    let mut found = Options::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, value) = line
            .strip_prefix("CONFIG_")
            .and_then(|option| option.split_once('='))
            .unwrap_or_else(|| panic!("{line:?} is no option"));
        let again = found.insert(name.to_owned(), value.to_owned());
        assert_eq!(again, None, "{name} is there twice");
    }
    found
}

fn lists() -> Options {
    options(&(list("builtin.config") + &list("modules.config")))
}

#[test]
fn each_option_is_named_once_below_a_reason() {
    lists();
    for name in ["builtin.config", "modules.config", "required.config"] {
        let text = list(name);
        for group in text.split("\n\n") {
            assert!(group.starts_with('#'), "{name}: {group:?} has no reason");
        }
    }
}

#[test]
fn a_module_is_in_the_list_of_modules_only() {
    let builtin = options(&list("builtin.config"));
    let module = builtin.iter().find(|(_, value)| *value == "m");
    assert_eq!(module, None);
}

#[test]
fn the_lists_have_what_container_software_looks_for() {
    let lists = lists();
    for (name, wanted) in options(&list("required.config")) {
        let is = lists.get(&name).map_or("n", String::as_str);
        let fits = is == "y" || (is == "m" && wanted == "m");
        assert!(fits, "{name} is {is}, and {wanted} is asked for");
    }
}

#[test]
fn what_a_start_needs_is_built_in() {
    let builtin = options(&list("builtin.config"));
    for name in NEEDED_BY_A_START {
        assert_eq!(builtin.get(*name).map(String::as_str), Some("y"), "{name}");
    }
}

#[test]
fn the_kernel_in_the_cache_has_what_the_lists_say() {
    let output = Command::new(tree().join("scripts/guest-kernel.sh"))
        .arg("--find")
        .output()
        .unwrap();
    if !output.status.success() {
        eprintln!("skipped: the cache has no kernel of these lists (make guest-kernel)");
        return;
    }
    let dir = String::from_utf8(output.stdout).unwrap();
    let is = options(&fs::read_to_string(Path::new(dir.trim()).join("config")).unwrap());
    for (name, wanted) in lists() {
        let value = is.get(&name).map_or("n", String::as_str);
        assert_eq!(value, wanted, "{name}");
    }
}
