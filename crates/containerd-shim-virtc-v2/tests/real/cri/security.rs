//! Who the processes of a pod are, what they may do, and what of each other they see.

use std::fs;

use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{
    Capability, ContainerConfig, Device, Int64Value, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, SecurityProfile,
};

use super::{Client, Containerd, Network, settings};

/// Refuses one call of one program.
const NO_MKDIR: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]
}"#;

pub(super) const WAIT: [&str; 2] = ["sleep", "1000"];

/// CAP_CHOWN and CAP_NET_ADMIN, as bits.
const CHOWN: u64 = 1 << 0;
const NET_ADMIN: u64 = 1 << 12;

pub(super) fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

pub(super) fn sandbox_context(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    let linux: &mut LinuxPodSandboxConfig = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

pub(super) fn id(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

fn pid_mode(config: &mut ContainerConfig, mode: NamespaceMode, target: &str) {
    context(config).namespace_options = Some(NamespaceOption {
        pid: mode.into(),
        target_id: target.to_owned(),
        ..NamespaceOption::default()
    });
}

/// What a container's own line of its status says.
#[track_caller]
fn status(client: &mut Client, id: &str, name: &str) -> String {
    let line = client.say(id, &format!("grep {name}: /proc/1/status"));
    line.split_whitespace().last().unwrap().to_owned()
}

#[track_caller]
fn capabilities(client: &mut Client, id: &str) -> u64 {
    u64::from_str_radix(&status(client, id, "CapEff"), 16).unwrap()
}

#[test]
fn containers_have_the_rights_that_they_ask_for() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let profile = containerd.dir("profiles").join("no-mkdir.json");
    fs::write(&profile, NO_MKDIR).unwrap();
    let made = client.try_run_pod("rights", |config| {
        // Without it, no container may be privileged.
        sandbox_context(config).privileged = true;
        let linux = config.linux.get_or_insert_default();
        for (name, value) in [
            ("net.ipv4.ip_local_port_range", "20000 30000"),
            ("net.ipv4.ping_group_range", "0 7"),
            ("kernel.shm_rmid_forced", "1"),
        ] {
            linux.sysctls.insert(name.to_owned(), value.to_owned());
        }
    });
    let pod = made.unwrap();
    let own = |config: &mut ContainerConfig| pid_mode(config, NamespaceMode::Container, "");

    // Users and groups, a root that is read-only, no new rights.
    let user = client.begin(&pod, "user", &WAIT, |config| {
        own(config);
        let context = context(config);
        (context.run_as_user, context.run_as_group) = (id(1000), id(2000));
        context.supplemental_groups = vec![3000, 4000];
        context.readonly_rootfs = true;
        context.no_new_privs = true;
        context.masked_paths = vec!["/proc/version".to_owned()];
        context.readonly_paths = vec!["/proc/sys".to_owned()];
        config.working_dir = "/tmp".to_owned();
    });
    let said = client.say(&user, "id; pwd");
    assert_eq!(said, "uid=1000 gid=2000 groups=2000,3000,4000\n/tmp");
    assert_eq!(capabilities(&mut client, &user), 0);
    assert_eq!(status(&mut client, &user, "NoNewPrivs"), "1");
    assert_eq!(client.say(&user, "cat /proc/version"), "");
    let said = client.say(&user, "echo x > /tmp/file");
    assert!(said.contains("Read-only file system"), "{said}");
    for (name, value) in [
        ("net/ipv4/ip_local_port_range", "20000\t30000"),
        ("net/ipv4/ping_group_range", "0\t7"),
        ("kernel/shm_rmid_forced", "1"),
    ] {
        assert_eq!(client.say(&user, &format!("cat /proc/sys/{name}")), value);
    }
    // One by name.
    let named = client.begin(&pod, "named", &WAIT, |config| {
        context(config).run_as_username = "root".to_owned();
    });
    assert!(client.say(&named, "id").starts_with("uid=0"));

    // Capabilities, and filters of system calls.
    let root = client.begin(&pod, "root", &WAIT, |config| {
        own(config);
        let context = context(config);
        context.capabilities = Some(Capability {
            add_capabilities: vec!["NET_ADMIN".to_owned()],
            drop_capabilities: vec!["CHOWN".to_owned()],
            ..Capability::default()
        });
        context.seccomp = Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            ..SecurityProfile::default()
        });
    });
    let some = capabilities(&mut client, &root);
    assert_eq!(some & (CHOWN | NET_ADMIN), NET_ADMIN, "{some:x}");
    assert_eq!(status(&mut client, &root, "Seccomp"), "2");
    let local = client.begin(&pod, "local", &WAIT, |config| {
        own(config);
        context(config).seccomp = Some(SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: profile.display().to_string(),
        });
    });
    let said = client.say(&local, "mkdir /tmp/d");
    assert!(said.contains("Permission denied"), "{said}");
    let free = client.begin(&pod, "free", &WAIT, |config| {
        own(config);
        context(config).seccomp = Some(SecurityProfile {
            profile_type: ProfileType::Unconfined.into(),
            ..SecurityProfile::default()
        });
    });
    assert_eq!(status(&mut client, &free, "Seccomp"), "0");
    let said = client.say(&free, "mount -t tmpfs tmpfs /tmp");
    assert!(
        said.contains("ermission denied") || said.contains("not permitted"),
        "{said}"
    );
    // One that may do everything may do it in its machine, and gets nothing of the host for it.
    let privileged = client.begin(&pod, "privileged", &WAIT, |config| {
        own(config);
        context(config).privileged = true;
    });
    let all = capabilities(&mut client, &privileged);
    assert!(all.count_ones() > some.count_ones() + 10, "{all:x}");
    assert_eq!(client.say(&privileged, "mount -t tmpfs tmpfs /tmp"), "");
    assert_eq!(client.say(&privileged, "ls /dev | grep -c kvm"), "0\n[1]");
    assert!(!client.say(&privileged, "uname -r").contains(&host_kernel()));

    // A device that every machine has is there; what only the host has is refused.
    let device = |path: &str| Device {
        container_path: "/dev/given".to_owned(),
        host_path: path.to_owned(),
        permissions: "rwm".to_owned(),
    };
    let with_device = client.try_create(&pod, "device", &WAIT, |config| {
        config.devices = vec![device("/dev/null")];
    });
    let with_device = with_device.unwrap();
    client.start(&with_device);
    assert_eq!(
        client.say(&with_device, "echo x > /dev/given; stat -c %F /dev/given"),
        "character special file"
    );

    client.stop_pod(&pod);
    client.remove_pod(&pod);
}

fn host_kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.trim().to_owned()
}

#[test]
fn containers_see_of_each_other_what_the_pod_shares() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    // The host's network is not there for a machine, and nothing of such a pod stays.
    let refused = client.try_run_pod("host", |config| {
        sandbox_context(config).namespace_options = Some(NamespaceOption {
            network: NamespaceMode::Node.into(),
            ..NamespaceOption::default()
        });
    });
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("hostNetwork"), "{said}");
    let made = client.try_run_pod("shared", |config| {
        sandbox_context(config).namespace_options = Some(NamespaceOption {
            pid: NamespaceMode::Pod.into(),
            ..NamespaceOption::default()
        });
    });
    let pod = made.unwrap();
    let shared = |config: &mut ContainerConfig| pid_mode(config, NamespaceMode::Pod, "");
    let own = |config: &mut ContainerConfig| pid_mode(config, NamespaceMode::Container, "");
    let one = client.begin(&pod, "one", &["sleep", "1111"], shared);
    let two = client.begin(&pod, "two", &["sleep", "2222"], shared);
    let alone = client.begin(&pod, "alone", &["sleep", "3333"], own);
    let seen = client.say(&two, "ps -o pid,args");
    assert!(
        seen.contains("sleep 1111") && seen.contains("sleep 2222"),
        "{seen}"
    );
    assert!(!seen.contains("sleep 3333"), "{seen}");
    let seen = client.say(&alone, "ps -o pid,args");
    assert!(
        seen.contains("1 sleep 3333") && !seen.contains("sleep 1111"),
        "{seen}"
    );
    // A signal reaches the neighbour, through the namespace that both have.
    let line = "kill $(ps -o pid,args | grep 'sleep 1111' | grep -v grep | while read p r; do echo $p; done)";
    assert_eq!(client.say(&two, line), "");
    containerd.wait_for("the end of the neighbour", || {
        client.container(&one).exit_code == 143
    });

    // One that comes late, to look at another one.
    let late = client.begin(&pod, "late", &["sleep", "4444"], |config| {
        pid_mode(config, NamespaceMode::Target, &alone);
    });
    let seen = client.say(&late, "ps -o pid,args");
    assert!(
        seen.contains("1 sleep 3333") && seen.contains("sleep 4444"),
        "{seen}"
    );
    assert!(!seen.contains("sleep 2222"), "{seen}");
    // What else a pod shares.
    for namespace in ["net", "ipc", "uts"] {
        let line = format!("readlink /proc/self/ns/{namespace}");
        assert_eq!(
            client.say(&two, &line),
            client.say(&alone, &line),
            "{namespace}"
        );
    }
    let line = "readlink /proc/self/ns/mnt";
    assert_ne!(client.say(&two, line), client.say(&alone, line));

    client.stop_pod(&pod);
    client.remove_pod(&pod);
    for left in client.pods() {
        client.remove_pod(&left.id);
    }
}
