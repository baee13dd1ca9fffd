//! The sentences of the OCI runtime specification, by `virtc` and bundles. Which test shows which
//! sentence is in docs/oci.md.

mod config;
mod config_linux;
mod hooks;
mod mounts;
mod propagation;
mod runtime;

use serde_json::{Value, json};
use test_vm::{Host, Outcome};

use super::host;
use super::host_side::{create, try_create};
use super::oci::bundle;

/// A machine in which container after container is made, so that the boot is paid once.
struct Machine {
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let host = host();
        let directory = bundle(&host, &["/bin/sleep", "1000"], |_| {});
        create(&host, &directory, "pod");
        host.virtc(["start", "pod"]).expect_code(0);
        Self { host }
    }

    /// Runs a script in a container of its own, to its end.
    #[track_caller]
    fn run(&self, script: &str, change: impl FnOnce(&mut Value)) -> Outcome {
        let directory = bundle(&self.host, &["/bin/sh", "-c", script], |config| {
            member(config);
            change(config);
        });
        let directory = directory.to_str().unwrap();
        self.host.virtc(["run", "--bundle", directory, "c1"])
    }

    /// What a script prints that succeeds.
    #[track_caller]
    fn out(&self, script: &str, change: impl FnOnce(&mut Value)) -> String {
        self.run(script, change).expect_code(0).out()
    }

    /// A container like this is an error that says why, and there is none afterwards.
    #[track_caller]
    fn refuses(&self, what: &str, says: &[&str], change: impl FnOnce(&mut Value)) {
        let directory = bundle(&self.host, &["/bin/true"], |config| {
            member(config);
            change(config);
        });
        let error = try_create(&self.host, &directory, "c1").expect_err(what);
        let missing = says.iter().find(|text| !error.contains(**text));
        assert_eq!(missing, None, "{what}: {error}");
        self.host.virtc(["state", "c1"]).expect_code(1);
    }

    fn end(self) {
        self.host.virtc(["delete", "--force", "pod"]).expect_code(0);
    }
}

/// Makes the container of a bundle one of the machine's.
fn member(config: &mut Value) {
    member_of("pod", config);
}

/// Makes the container of a bundle one of this sandbox's.
fn member_of(sandbox: &str, config: &mut Value) {
    config["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": sandbox,
    });
    config["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}]);
}
