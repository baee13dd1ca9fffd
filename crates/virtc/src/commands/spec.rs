//! A `config.json` to begin with: runc 1.1's, with our host name.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxDeviceCgroup, LinuxResources, Process, Spec,
};
use serde::Serialize;
use virtcontainers::Error;

use super::Done;
use super::version::SPEC;
use crate::cli::SpecArgs;
use crate::error::{FAILED, Failure};

/// The file of a bundle that describes its container.
const FILE: &str = "config.json";

pub(crate) fn spec(args: &SpecArgs) -> Done {
    if args.rootless {
        let what = "spec --rootless".to_owned();
        return Err(Failure::from(Error::Unsupported { what })
            .note("virtc needs root's rights, and its containers have no user namespace"));
    }
    let text = to_json(&example()).map_err(|error| Failure::plain(FAILED, &error))?;
    let path = args.bundle.join(FILE);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|error| match error.kind() {
            // runc's words.
            ErrorKind::AlreadyExists => {
                Failure::new(FAILED, format!("File {FILE} exists. Remove it first"))
            }
            _ => Failure::plain(FAILED, &error).note(format!("writing {}", path.display())),
        })?;
    if let Err(error) = file.write_all(&text) {
        // Half of one would be in the way of the next try.
        let _ = fs::remove_file(&path);
        return Err(Failure::plain(FAILED, &error).note(format!("writing {}", path.display())));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is in the file. Mounts, namespaces, masked paths and the limit of open files are the
/// defaults of the specification's types, which are runc's.
fn example() -> Spec {
    let mut process = Process::default();
    process
        .set_terminal(Some(true))
        .set_capabilities(Some(capabilities()));
    let mut denied = LinuxDeviceCgroup::default();
    denied.set_allow(false).set_access(Some("rwm".into()));
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(vec![denied]));
    let mut spec = Spec::default();
    spec.set_version(SPEC.to_owned())
        .set_hostname(Some("virtc".into()))
        .set_annotations(None)
        .set_process(Some(process));
    if let Some(root) = spec.root_mut() {
        root.set_readonly(Some(true));
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_resources(Some(resources));
    }
    spec
}

fn capabilities() -> LinuxCapabilities {
    let set = || {
        Some(HashSet::from([
            Capability::AuditWrite,
            Capability::Kill,
            Capability::NetBindService,
        ]))
    };
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(set())
        .set_effective(set())
        .set_permitted(set())
        .set_ambient(set())
        .set_inheritable(None);
    capabilities
}

/// Indented with tabs, as runc's.
fn to_json(spec: &Spec) -> Result<Vec<u8>, OciSpecError> {
    let mut text = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    spec.serialize(&mut serde_json::Serializer::with_formatter(&mut text, form))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use serde_json::{Value, json};
    use virtcontainers::Bundle;

    use super::*;

    fn write(bundle: &Path) -> Done {
        spec(&SpecArgs {
            bundle: bundle.to_owned(),
            rootless: false,
        })
    }

    #[test]
    fn it_is_what_runc_writes() {
        let mut written: Value = serde_json::from_slice(&to_json(&example()).unwrap()).unwrap();
        let sets = written["process"]["capabilities"].as_object_mut().unwrap();
        let names = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
        assert_eq!(sets.len(), 4);
        for set in sets.values_mut() {
            set.as_array_mut()
                .unwrap()
                .sort_by_key(|name| name.to_string());
            assert_eq!(*set, names);
        }
        insta::assert_snapshot!(serde_json::to_string_pretty(&written).unwrap());
    }

    #[test]
    fn what_is_written_is_a_bundle_that_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        fs::create_dir(directory.path().join("rootfs")).unwrap();
        let bundle = Bundle::open(directory.path()).unwrap();
        assert_eq!(bundle.spec(), &example());
        let neighbours = virtcontainers::Neighbours::default();
        bundle
            .container(
                "c1".parse().unwrap(),
                &neighbours,
                vc_cgroups::CgroupDriver::Cgroupfs,
                Path::new("/run/virtcontainers"),
            )
            .unwrap();
    }

    #[test]
    fn nothing_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        fs::write(&file, "mine").unwrap();
        let line = write(directory.path()).unwrap_err().line();
        assert_eq!(line, "File config.json exists. Remove it first");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

        // Nor where a link leads.
        let elsewhere = directory.path().join("elsewhere");
        fs::remove_file(&file).unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert!(write(directory.path()).is_err());
        assert!(!elsewhere.exists());
    }

    #[test]
    fn a_missing_bundle_is_named() {
        let line = write(Path::new("/nonexistent")).unwrap_err().line();
        assert!(line.contains("/nonexistent/config.json"), "{line}");
    }

    #[test]
    fn rootless_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let failure = spec(&SpecArgs {
            bundle: directory.path().to_owned(),
            rootless: true,
        })
        .unwrap_err();
        assert!(failure.line().contains("--rootless is not supported"));
        assert!(!directory.path().join(FILE).exists());
    }
}
