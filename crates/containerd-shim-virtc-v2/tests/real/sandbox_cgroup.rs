//! The cgroup of a sandbox that containerd has as such, whose pod is described to the shim.

use std::fs;

use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, ShutdownSandboxRequest, StartSandboxRequest,
};
use containerd_shim_protos::sandbox_sync::SandboxClient;
use containerd_shim_protos::ttrpc::Client;
use test_vm::descendants;

use super::direct::{Direct, ID, limit};

/// The description of a pod with this cgroup.
fn description(cgroup: &str) -> Any {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    // Field 1 of field 8, both shorter than what takes a second byte for the length.
    let linux = [&[0x0a, length(cgroup.as_bytes())], cgroup.as_bytes()].concat();
    Any {
        type_url: "runtime.v1.PodSandboxConfig".to_owned(),
        value: [&[0x42, length(&linux)], linux.as_slice()].concat(),
        ..Any::default()
    }
}

#[test]
fn a_sandbox_is_in_the_cgroup_that_the_description_of_its_pod_names() {
    let mut direct = Direct::new(|_| {});
    direct.env = vec![("VIRTC_RUNTIME_SANDBOX_CGROUP", "pod".into())];
    // As containerd has it: a directory without a specification.
    direct.bundle = direct.host.dir("sandbox");
    let address = String::from_utf8(direct.call("start", None, b"")).unwrap();
    let sandboxes = SandboxClient::new(Client::connect(&address).unwrap());
    let asked = CreateSandboxRequest {
        sandbox_id: ID.to_owned(),
        bundle_path: direct.bundle.display().to_string(),
        options: MessageField::some(description(&direct.host.cgroup("pod"))),
        ..CreateSandboxRequest::default()
    };
    sandboxes.create_sandbox(limit(10), &asked).unwrap();
    let request = StartSandboxRequest {
        sandbox_id: ID.to_owned(),
        ..StartSandboxRequest::default()
    };
    let shim = sandboxes.start_sandbox(limit(60), &request).unwrap().pid;
    let machine = descendants(i32::try_from(shim).unwrap());
    assert!(!machine.is_empty());
    let below = format!(":{}/virtc-{ID}-", direct.host.cgroup("pod"));
    for process in machine {
        let its = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap();
        let is_there = its.lines().all(|line| line.contains(&below));
        assert!(is_there, "{}: {its}", process.name);
    }
    let request = ShutdownSandboxRequest {
        sandbox_id: ID.to_owned(),
        ..ShutdownSandboxRequest::default()
    };
    // It may be gone before its answer is read.
    let _ = sandboxes.shutdown_sandbox(limit(10), &request);
    direct.call("delete", None, b"");
    assert!(direct.host.cgroups_left("pod").is_empty());
}
