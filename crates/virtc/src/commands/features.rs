//! What of the OCI runtime specification is there, as its `features.md` describes it.

use std::collections::HashMap;
use std::process::ExitCode;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    ApparmorBuilder, Arch, CgroupBuilder, Features, FeaturesBuilder, IntelRdtBuilder,
    LinuxFeatureBuilder, LinuxNamespaceType, LinuxSeccompAction, SeccompBuilder, SelinuxBuilder,
};
use serde_json::Value;
use vc_config::syntax::CAPABILITIES;
use virtcontainers::HookKind;

use super::Done;
use crate::error::{FAILED, Failure};
use crate::output;

/// The specification's oldest and newest version that a `config.json` may name. The document has
/// keys of the newest.
const VERSION_MIN: &str = "1.0.0";
const VERSION_MAX: &str = "1.2.0";

/// The mount options that the guest's container library knows as such (`libcontainer` 0.7,
/// `syscall/linux.rs`); others are the file system's. Those for mapped ids are left out: they are
/// for bind mounts, which are shares of the host here.
const MOUNT_OPTIONS: [&str; 51] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "unbindable",
];

/// User namespaces are refused; the network's is the sandbox's.
const NAMESPACES: [LinuxNamespaceType; 6] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Uts,
];

/// `SCMP_ACT_NOTIFY` is refused: nobody in the guest would answer.
const SECCOMP_ACTIONS: [LinuxSeccompAction; 8] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

const SECCOMP_OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Those that the specification has in its version [`VERSION_MAX`].
const SECCOMP_ARCHS: [Arch; 19] = [
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchMips,
    Arch::ScmpArchMips64,
    Arch::ScmpArchMips64n32,
    Arch::ScmpArchMipsel,
    Arch::ScmpArchMipsel64,
    Arch::ScmpArchMipsel64n32,
    Arch::ScmpArchParisc,
    Arch::ScmpArchParisc64,
    Arch::ScmpArchPpc,
    Arch::ScmpArchPpc64,
    Arch::ScmpArchPpc64le,
    Arch::ScmpArchRiscv64,
    Arch::ScmpArchS390,
    Arch::ScmpArchS390x,
    Arch::ScmpArchX32,
    Arch::ScmpArchX86,
    Arch::ScmpArchX86_64,
];

/// The last one means something with `SCMP_ACT_NOTIFY` only, so it is known and not supported.
const SECCOMP_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
const SECCOMP_FLAGS_SUPPORTED: usize = 3;

pub(crate) fn features() -> Done {
    output::json(&document().map_err(|error| Failure::plain(FAILED, &error))?)?;
    Ok(ExitCode::SUCCESS)
}

/// The document. What is not known has no key, instead of one without a value: it may be of a
/// version of the specification that is newer than [`VERSION_MAX`].
fn document() -> Result<Value, OciSpecError> {
    let mut document = serde_json::to_value(known()?)?;
    leave_out_nulls(&mut document);
    Ok(document)
}

fn leave_out_nulls(value: &mut Value) {
    if let Value::Object(keys) = value {
        keys.retain(|_, value| !value.is_null());
        keys.values_mut().for_each(leave_out_nulls);
    }
}

fn known() -> Result<Features, OciSpecError> {
    let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    let linux = LinuxFeatureBuilder::default()
        .namespaces(NAMESPACES)
        .capabilities(words(&CAPABILITIES))
        // Those of the host, where what stands for a container is; made without systemd.
        .cgroup(
            CgroupBuilder::default()
                .v1(true)
                .v2(true)
                .systemd(false)
                .systemd_user(false)
                .rdma(false)
                .build()?,
        )
        .seccomp(
            SeccompBuilder::default()
                .enabled(true)
                .actions(SECCOMP_ACTIONS)
                .operators(words(&SECCOMP_OPERATORS))
                .archs(SECCOMP_ARCHS)
                .known_flags(words(&SECCOMP_FLAGS))
                .supported_flags(words(&SECCOMP_FLAGS[..SECCOMP_FLAGS_SUPPORTED]))
                .build()?,
        )
        // They name policies of the host's kernel, and the guest has its own.
        .apparmor(ApparmorBuilder::default().enabled(false).build()?)
        .selinux(SelinuxBuilder::default().enabled(false).build()?)
        .intel_rdt(IntelRdtBuilder::default().enabled(false).build()?)
        .build()?;
    let annotations = [
        ("io.virtcontainers.version", env!("CARGO_PKG_VERSION")),
        // The key in which engines look.
        ("org.opencontainers.runc.checkpoint.enabled", "false"),
    ];
    FeaturesBuilder::default()
        .oci_version_min(VERSION_MIN)
        .oci_version_max(VERSION_MAX)
        .hooks(words(&HookKind::ALL.map(HookKind::name)))
        .mount_options(words(&MOUNT_OPTIONS))
        .linux(linux)
        .annotations(HashMap::from(
            annotations.map(|(key, value)| (key.to_owned(), value.to_owned())),
        ))
        // Those that the administrator has allowed change settings.
        .potentially_unsafe_config_annotations(words(&[vc_config::ANNOTATION_PREFIX]))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_is_there() {
        let text = serde_json::to_string_pretty(&document().unwrap()).unwrap();
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn it_reads_back_as_the_specifications_type() {
        let document = document().unwrap();
        let text = document.to_string();
        assert!(!text.contains("null"), "{text}");
        let read: Features = serde_json::from_value(document).unwrap();
        let linux = read.linux().clone().unwrap();
        assert_eq!(linux.apparmor().clone().unwrap().enabled(), &Some(false));
        assert_eq!(linux.capabilities().clone().unwrap().len(), 41);
    }

    #[test]
    fn lists_are_in_order_and_name_nothing_twice() {
        assert!(MOUNT_OPTIONS.is_sorted_by(|a, b| a < b));
        assert!(SECCOMP_OPERATORS.is_sorted_by(|a, b| a < b));
        let archs = SECCOMP_ARCHS.map(|arch| arch.to_string());
        assert!(archs.is_sorted_by(|a, b| a < b), "{archs:?}");
    }
}
