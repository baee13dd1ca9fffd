//! Filters of system calls: of the runtime, of the node, and none.

use std::fs;

use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{Capability, ContainerConfig, SecurityProfile};

use super::security::{WAIT, context, sandbox_context};
use super::{Client, Containerd, Network, settings};

/// Refuses one call, whatever rights a process has; it says neither for which processors nor how.
const NO_NAME: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]
}"#;

fn filter(config: &mut ContainerConfig, kind: ProfileType, file: &str) {
    context(config).seccomp = Some(SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: file.to_owned(),
    });
}

fn administrator(config: &mut ContainerConfig) {
    context(config).capabilities = Some(Capability {
        add_capabilities: vec!["SYS_ADMIN".to_owned()],
        ..Capability::default()
    });
}

#[test]
fn a_filter_holds_against_rights_and_a_privileged_container_has_none() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let profile = containerd.dir("profiles").join("no-name.json");
    fs::write(&profile, NO_NAME).unwrap();
    let profile = profile.display().to_string();
    let made = client.try_run_pod("filters", |config| {
        sandbox_context(config).privileged = true
    });
    let pod = made.unwrap();

    // Whoever says nothing has none, and the usual one is said.
    let modes = [(None, "0"), (Some(ProfileType::RuntimeDefault), "2")];
    for (name, (kind, mode)) in ["nothing", "usual"].into_iter().zip(modes) {
        let id = client.begin(&pod, name, &WAIT, |config| {
            if let Some(kind) = kind {
                filter(config, kind, "");
            }
        });
        let said = client.say(&id, "grep Seccomp: /proc/self/status");
        assert_eq!(said, format!("Seccomp:\t{mode}"), "{name}");
    }

    let rename = |client: &mut Client, id: &str| client.say(id, "hostname renamed && hostname");
    let free = client.begin(&pod, "free", &WAIT, |config| {
        administrator(config);
        filter(config, ProfileType::Unconfined, "");
    });
    assert_eq!(rename(&mut client, &free), "renamed");
    let filtered = client.begin(&pod, "filtered", &WAIT, |config| {
        administrator(config);
        filter(config, ProfileType::Localhost, &profile);
    });
    let said = rename(&mut client, &filtered);
    assert!(said.contains("not permitted"), "{said}");
    let privileged = client.begin(&pod, "privileged", &WAIT, |config| {
        context(config).privileged = true;
        filter(config, ProfileType::Localhost, &profile);
    });
    assert_eq!(rename(&mut client, &privileged), "renamed");
    // A profile that the node does not have is no filter that lets everything pass.
    let made = client.try_create(&pod, "missing", &WAIT, |config| {
        filter(config, ProfileType::Localhost, "/nonexistent/profile.json");
    });
    let begun = made.and_then(|id| client.try_start(&id));
    let said = begun.unwrap_err().to_string();
    assert!(said.contains("/nonexistent/profile.json"), "{said}");
    client.stop_pod(&pod);
    client.remove_pod(&pod);
}
