//! How a guest learns what its vsock and its shares are: by their class, where its kernel knows that, and
//! otherwise by their numbers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::factory::Factory;
use super::own_kernel::RELEASE_END;

/// Lists each device of PCI: bus, slot and function, class and number.
const LIST: &str =
    "for at in /sys/bus/pci/devices/*; do echo ${at##*/} $(cat $at/class $at/device); done";

/// The key of a manifest that says that the kernel knows classes.
const KEY: &str = "types_by_class";

/// The guest that the tests have.
fn assets() -> PathBuf {
    let given = std::env::var_os("VIRTC_GUEST_ASSETS").map(PathBuf::from);
    given.unwrap_or_else(|| "/var/cache/virtcontainers/guest/current".into())
}

/// A guest that is said to know no classes, whether it does, and its release.
fn without_classes(assets: &Path, dir: &TempDir) -> (PathBuf, bool, String) {
    let text = fs::read(assets.join("manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&text).unwrap();
    let knew = manifest.as_object_mut().unwrap().remove(KEY);
    let changed = dir.path().join("assets");
    fs::create_dir(&changed).unwrap();
    fs::write(changed.join("manifest.json"), manifest.to_string()).unwrap();
    for name in ["vmlinux", "initrd"] {
        let file = fs::canonicalize(assets.join(name)).unwrap();
        symlink(file, changed.join(name)).unwrap();
    }
    let release = manifest["kernel_release"].as_str().unwrap().to_owned();
    (changed, knew == Some(Value::Bool(true)), release)
}

/// The devices of a machine that boots, of one whose template is made, and of a clone.
fn devices(factory: &mut Factory, assets: &Path) -> [Vec<String>; 3] {
    let mut list = |auto: &str| {
        factory.host.env("VIRTC_GUEST_ASSETS", assets);
        factory.host.env("VIRTC_FACTORY_AUTO", auto);
        let outcome = factory.host.run(&["--timeline"], &["sh", "-c", LIST]);
        let outcome = outcome.expect_code(0);
        let cloned = outcome.err().contains("guest: handed over");
        assert_eq!(cloned.to_string(), auto, "{}", outcome.err());
        let lines = outcome.out();
        lines.lines().map(str::to_owned).collect()
    };
    [list("false"), list("true"), list("true")]
}

/// How many devices of a list have this in their line.
fn count(devices: &[String], what: &str) -> usize {
    devices.iter().filter(|line| line.contains(what)).count()
}

#[test]
fn devices_are_known_by_class_where_the_kernel_knows_that_and_are_there_from_a_clones_start() {
    let dir = TempDir::new().unwrap();
    let assets = assets();
    let (changed, knows, release) = without_classes(&assets, &dir);
    if knows {
        for devices in devices(&mut Factory::new(), &assets) {
            assert_eq!(
                count(&devices, "0000:00:02.0 0xff1300 0x1042"),
                1,
                "{devices:?}"
            );
            assert!(count(&devices, " 0xff1a00 0x1042") > 0, "{devices:?}");
            for own_number in [" 0x1053", " 0x105a"] {
                assert_eq!(count(&devices, own_number), 0, "{devices:?}");
            }
        }
    } else {
        assert!(
            !release.ends_with(RELEASE_END),
            "our own kernel knows classes"
        );
        eprintln!("skipped: the guest's kernel is not our own, which knows devices by class");
    }
    let [booted, first, second] = devices(&mut Factory::new(), &changed);
    for devices in [&booted, &first, &second] {
        // The vsock, and shares.
        assert_eq!(count(devices, " 0x1053"), 1, "{devices:?}");
        assert!(count(devices, " 0x105a") > 0, "{devices:?}");
        assert_eq!(count(devices, " 0xff1"), 0, "{devices:?}");
    }
    assert_eq!(count(&booted, "0000:00:02.0 "), 1, "{booted:?}");
    // A clone gets them behind a root port.
    assert_eq!(count(&second, "0000:00:02.0 "), 0, "{second:?}");
}
