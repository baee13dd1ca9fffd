//! `virtc guest build-kernel`: the tree's own script with its lists and patches, all of which are in this program.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::Done;
use crate::cli::{GuestArgs, GuestCommand};
use crate::error::{FAILED, Failure};

/// The script among [`FILES`].
const SCRIPT: &str = "scripts/guest-kernel.sh";

/// What the script reads, as it lies in the tree.
const FILES: [(&str, &str); 15] = [
    (SCRIPT, include_str!("../../../../scripts/guest-kernel.sh")),
    (
        "scripts/step.sh",
        include_str!("../../../../scripts/step.sh"),
    ),
    (
        "guest/kernel/source",
        include_str!("../../../../guest/kernel/source"),
    ),
    (
        "guest/kernel/builtin.config",
        include_str!("../../../../guest/kernel/builtin.config"),
    ),
    (
        "guest/kernel/modules.config",
        include_str!("../../../../guest/kernel/modules.config"),
    ),
    (
        "guest/kernel/patches/0001-x86-mm-aslr-once.patch",
        include_str!("../../../../guest/kernel/patches/0001-x86-mm-aslr-once.patch"),
    ),
    (
        "guest/kernel/patches/0002-x86-apic-timer-hz.patch",
        include_str!("../../../../guest/kernel/patches/0002-x86-apic-timer-hz.patch"),
    ),
    (
        "guest/kernel/patches/0003-x86-entry-one-ss.patch",
        include_str!("../../../../guest/kernel/patches/0003-x86-entry-one-ss.patch"),
    ),
    (
        "guest/kernel/patches/0004-x86-acpi-hotplug-cpus.patch",
        include_str!("../../../../guest/kernel/patches/0004-x86-acpi-hotplug-cpus.patch"),
    ),
    (
        "guest/kernel/patches/0005-virtio-pci-type-by-class.patch",
        include_str!("../../../../guest/kernel/patches/0005-virtio-pci-type-by-class.patch"),
    ),
    (
        "guest/kernel/patches/0006-x86-mm-initmem-fill.patch",
        include_str!("../../../../guest/kernel/patches/0006-x86-mm-initmem-fill.patch"),
    ),
    (
        "guest/kernel/patches/0007-x86-alternatives-quick.patch",
        include_str!("../../../../guest/kernel/patches/0007-x86-alternatives-quick.patch"),
    ),
    (
        "guest/kernel/patches/0008-x86-tsc-given.patch",
        include_str!("../../../../guest/kernel/patches/0008-x86-tsc-given.patch"),
    ),
    (
        "guest/kernel/patches/0009-mm-memmap-when-used.patch",
        include_str!("../../../../guest/kernel/patches/0009-mm-memmap-when-used.patch"),
    ),
    (
        "guest/kernel/patches/0010-overlay-check-once.patch",
        include_str!("../../../../guest/kernel/patches/0010-overlay-check-once.patch"),
    ),
];

pub(crate) fn guest(args: &GuestArgs) -> Done {
    match args.command {
        GuestCommand::BuildKernel => build_kernel(),
    }
}

/// Runs the script with the standard streams of this process.
fn build_kernel() -> Done {
    let failed = |what: String| {
        move |error: io::Error| Failure::plain(FAILED, &error).note(format!("while {what}"))
    };
    let below = std::env::temp_dir();
    let writing = format!("writing the kernel's lists below {}", below.display());
    let tree = Tree::write(&below).map_err(failed(writing))?;
    let script = tree.0.join(SCRIPT);
    let status = Command::new("sh")
        .arg(script)
        .status()
        .map_err(failed("starting sh".into()))?;
    if status.success() {
        return Ok(ExitCode::SUCCESS);
    }
    // The script has said why.
    Err(Failure::new(FAILED, "the kernel was not built"))
}

/// A directory that only this user reads, with the files in it; gone when it is dropped.
#[derive(Debug)]
struct Tree(PathBuf);

impl Tree {
    fn write(below: &Path) -> io::Result<Self> {
        let name = format!("virtc-guest-kernel-{}", std::process::id());
        let dir = below.join(name);
        // One that is there already is somebody else's, and an error.
        DirBuilder::new().mode(0o700).create(&dir)?;
        let tree = Self(dir);
        for (path, text) in FILES {
            let path = tree.0.join(path);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
            fs::write(path, text)?;
        }
        Ok(tree)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What is left in a directory for temporary files harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of the kernel is the digest of what makes it, so the program and the tree mean the same
    /// one.
    #[test]
    fn the_program_and_the_tree_name_the_same_kernel() {
        let name = |script: &Path| {
            let output = Command::new("sh")
                .arg(script)
                .arg("--name")
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let tree = Tree::write(&std::env::temp_dir()).unwrap();
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let of_program = name(&tree.0.join(SCRIPT));
        assert_eq!(of_program, name(&here.join(SCRIPT)));
        assert_eq!(of_program.trim().len(), 16);
    }
}
