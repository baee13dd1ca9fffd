//! Whole sets, made from small kernels and modules.
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

use std::fs;
use std::path::{Path, PathBuf};

use guest_image::build::list::ModuleList;
use guest_image::build::{Inputs, build};
use guest_image::{Error, GuestAssets};
use tempfile::TempDir;

const RELEASE: &str = "6.1.0-test";

/// The parts of an ELF file: program headers as (type, offset, size), sections as (name, bytes).
fn elf(segments: &[(u32, u64, u64)], sections: &[(&str, &[u8])]) -> Vec<u8> {
    let body_at = 64 + 56 * segments.len();
    let mut names = vec![0];
    let mut body: Vec<u8> = Vec::new();
    let mut headers = vec![section(0, 0, 0, 0)];
    for (name, bytes) in sections {
        headers.push(section(names.len(), 1, body_at + body.len(), bytes.len()));
        names.extend(name.bytes().chain([0]));
        body.extend(*bytes);
    }
    let named = names.len();
    names.extend(b".shstrtab\0");
    headers.push(section(named, 3, body_at + body.len(), names.len()));
    body.extend(&names);

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    file.extend(0u64.to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend((body_at as u64 + body.len() as u64).to_le_bytes());
    file.extend(0u32.to_le_bytes());
    for field in [64, 56, segments.len(), 64, headers.len(), headers.len() - 1] {
        file.extend((field as u16).to_le_bytes());
    }
    for (kind, offset, size) in segments {
        file.extend(kind.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for field in [*offset, 0, 0, *size, *size, 4] {
            file.extend(field.to_le_bytes());
        }
    }
    file.extend(body);
    headers.iter().for_each(|header| file.extend(header));
    file
}

fn section(name: usize, kind: u32, at: usize, size: usize) -> Vec<u8> {
    let mut header = (name as u32).to_le_bytes().to_vec();
    header.extend(kind.to_le_bytes());
    for field in [0, 0, at as u64, size as u64] {
        header.extend(field.to_le_bytes());
    }
    header.extend(0u64.to_le_bytes());
    header.extend(1u64.to_le_bytes());
    header.extend(0u64.to_le_bytes());
    header
}

struct Workshop(TempDir);

impl Workshop {
    fn new(modules: &[(&str, &str)]) -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        let note = b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\0\x01";
        let size = note.len() as u64;
        let kernel = elf(
            &[(1, 64 + 112, size), (4, 64 + 112, size)],
            &[(".notes", note)],
        );
        fs::write(shop.path("vmlinux"), kernel).unwrap();
        fs::write(shop.path("agent"), elf(&[(1, 0, 64)], &[])).unwrap();
        let dir = shop.path(RELEASE).join("kernel");
        fs::create_dir_all(&dir).unwrap();
        for (name, info) in modules {
            let info = info.replace('|', "\0");
            let module = elf(&[], &[(".modinfo", info.as_bytes())]);
            fs::write(dir.join(format!("{name}.ko")), module).unwrap();
        }
        fs::write(
            shop.path(RELEASE).join("modules.builtin"),
            "kernel/fs/ext4/ext4.ko\n",
        )
        .unwrap();
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn build(&self, list: &str, out: &str) -> guest_image::Result<GuestAssets> {
        self.build_with(list, out, false)
    }

    fn build_with(&self, list: &str, out: &str, archive: bool) -> guest_image::Result<GuestAssets> {
        let list = ModuleList::parse(list, Path::new("modules.toml"))?;
        let inputs = Inputs {
            kernel: &self.path("vmlinux"),
            modules: &self.path(RELEASE),
            list: &list,
            agent: &self.path("agent"),
            archive,
        };
        GuestAssets::open(&build(&inputs, &self.path(out))?)
    }
}

const MODULES: &[(&str, &str)] = &[
    ("virtio", "depends=virtio-ring|"),
    ("virtio-ring", "depends=|"),
    ("virtio_pci", "depends=virtio,virtio_ring|"),
    ("fuse", "depends=|"),
    ("virtiofs", "depends=fuse,virtio|"),
    ("libcrc", "softdep=pre: crypto-crc|depends=|"),
    ("crc-fast", "alias=crypto-crc|alias=cpu:*|"),
    ("erofs", "depends=libcrc,ext4|"),
];

const LIST: &str = r#"
    boot = ["virtio_pci"]
    background = ["virtiofs", "ext4"]
    on_demand = ["erofs", "other"]
    optional = ["other"]
"#;

#[test]
fn modules_are_found_with_all_they_need_in_load_order() {
    let shop = Workshop::new(MODULES);
    let assets = shop.build(LIST, "out").unwrap();
    let modules = &assets.manifest().modules;
    assert_eq!(modules.boot, ["virtio_ring", "virtio", "virtio_pci"]);
    assert_eq!(modules.background, ["fuse", "virtiofs"]);
    assert_eq!(modules.on_demand["erofs"], ["crc_fast", "libcrc", "erofs"]);
    assert_eq!(modules.on_demand.len(), 1);
    assert_eq!(modules.builtin, ["ext4"]);
    let initrd = fs::read(assets.initrd()).unwrap();
    let text = String::from_utf8_lossy(&initrd);
    assert!(text.contains(r#""boot":["/lib/modules/virtio_ring.ko","/lib/modules/virtio.ko","#));
    assert_eq!(assets.manifest().kernel_release, RELEASE);
}

#[test]
fn what_is_loaded_beside_the_boot_needs_none_of_it() {
    let shop = Workshop::new(MODULES);
    let list = |beside: &str| {
        format!("boot = [\"virtio_pci\"]\nbeside = [\"{beside}\"]\nbackground = [\"virtiofs\"]")
    };
    let fuse = shop.build(&list("fuse"), "out").unwrap();
    assert_eq!(fuse.manifest().modules.beside, ["fuse"]);
    assert_eq!(fuse.manifest().modules.background, ["virtiofs"]);
    let error = shop.build(&list("virtio"), "out").unwrap_err();
    assert!(
        matches!(&error, Error::NotBeside { module } if module == "virtio_ring"),
        "{error}"
    );
}

#[test]
fn modules_that_no_list_names_are_packed_for_the_kernel_to_ask_for() {
    let shop = Workshop::new(&[
        ("virtio", "depends=|"),
        ("llc", "depends=|"),
        (
            "bridge",
            "depends=llc,virtio|alias=rtnl-link-bridge|alias=pci:v1AF4*|",
        ),
    ]);
    let list = "boot = [\"virtio\"]";
    let without = shop.build(list, "out").unwrap();
    assert_eq!(without.manifest().archive, None);
    let assets = shop.build_with(list, "out", true).unwrap();
    let archive = assets.manifest().archive.clone().unwrap();
    assert_eq!(archive.modules, ["bridge", "llc"]);
    let initrd = fs::read(assets.initrd()).unwrap();
    let text = String::from_utf8_lossy(&initrd);
    let index = r#"{"modules":{"bridge":["llc","bridge"],"llc":["llc"]},"aliases":{"rtnl_link_bridge":"bridge"}}"#;
    assert!(text.contains(index), "the archive begins with its index");
    let again = shop.build_with(list, "elsewhere", true).unwrap();
    assert_eq!(again.id(), assets.id());
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let first = Workshop::new(MODULES).build(LIST, "out").unwrap();
    let shop = Workshop::new(MODULES);
    let second = shop.build(LIST, "elsewhere").unwrap();
    assert_eq!(first.id(), second.id());
    // Building once more changes nothing.
    let third = shop.build(LIST, "elsewhere").unwrap();
    assert_eq!(second.dir(), third.dir());
}

#[test]
fn another_list_is_another_set_and_becomes_the_current_one() {
    let shop = Workshop::new(MODULES);
    let first = shop.build(LIST, "out").unwrap();
    let second = shop.build("boot = [\"virtio\"]", "out").unwrap();
    assert_ne!(first.dir(), second.dir());
    first.verify().unwrap();
    let current = GuestAssets::open(&shop.path("out").join("current")).unwrap();
    assert_eq!(current.dir(), second.dir());
}

#[test]
fn what_is_missing_is_named() {
    let shop = Workshop::new(&[("a", "depends=b|")]);
    let error = shop.build("boot = [\"zram\"]", "out").unwrap_err();
    assert_eq!(error.to_string(), "kernel 6.1.0-test has no module zram");
    let error = shop.build("boot = [\"a\"]", "out").unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel 6.1.0-test has no module b (needed by a)"
    );
    assert!(!shop.path("out").exists());
}

#[test]
fn a_dynamically_linked_agent_is_refused() {
    let shop = Workshop::new(MODULES);
    fs::write(shop.path("agent"), elf(&[(3, 0, 64)], &[])).unwrap();
    let error = shop.build(LIST, "out").unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidInput {
                role: "the agent",
                ..
            }
        ),
        "{error}"
    );
}
