//! What a pod's containers see of the host: volumes of each kind, and files of the pod.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use k8s_cri::v1::{DnsConfig, Mount};

use super::{Client, Containerd, Mounted, Network, settings};

pub(super) fn mount(host: &Path, container: &str) -> Mount {
    Mount {
        host_path: host.display().to_string(),
        container_path: container.to_owned(),
        ..Mount::default()
    }
}

/// What a volume of a secret is on the host: names that lead into a directory which is replaced whole.
fn write_secret(volume: &Path, generation: &str) {
    let data = volume.join(format!("..{generation}"));
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("password"), generation).unwrap();
    symlink(format!("..{generation}"), volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    let name = volume.join("password");
    if !name.is_symlink() {
        symlink("..data/password", name).unwrap();
    }
}

#[test]
fn volumes_are_what_the_host_has_and_follow_it() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let host = containerd.dir("volumes");
    let at = |name: &str| containerd.dir(&format!("volumes/{name}"));
    let (shared, fixed, secret) = (at("shared"), at("fixed"), at("secret"));
    fs::write(fixed.join("file"), "fixed").unwrap();
    write_secret(&secret, "first");
    let hosts = host.join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n10.1.2.3 alias.example\n").unwrap();
    let parts = at("parts");
    fs::write(parts.join("one.conf"), "one").unwrap();
    fs::write(parts.join("other.conf"), "other").unwrap();
    fs::create_dir(parts.join("below")).unwrap();
    fs::write(parts.join("below/deep"), "deep").unwrap();
    let memory = at("memory");
    let _mounted = Mounted::tmpfs(&memory);

    let pod = client
        .try_run_pod("volumes", |config| {
            config.dns_config = Some(DnsConfig {
                servers: vec!["10.96.0.10".to_owned()],
                searches: vec!["default.svc.cluster.local".to_owned()],
                options: vec!["ndots:5".to_owned()],
            });
        })
        .unwrap();
    let read_only = |mut mount: Mount| {
        mount.readonly = true;
        mount
    };
    let volumes = vec![
        mount(&shared, "/shared"),
        read_only(mount(&fixed, "/fixed")),
        read_only(mount(&secret, "/secret")),
        mount(&hosts, "/etc/hosts"),
        // Parts of volumes: a file and a directory.
        mount(&parts.join("one.conf"), "/etc/app/one.conf"),
        mount(&parts.join("below"), "/etc/app/below"),
        mount(&memory, "/memory"),
    ];
    let ids = ["a", "b"].map(|name| {
        client.begin(&pod, name, &["sleep", "1000"], |config| {
            config.mounts.clone_from(&volumes);
        })
    });
    let [a, b] = ids;

    // What one writes, the other and the host read.
    assert_eq!(
        client.say(&a, "echo hello > /shared/file; mkdir /shared/d"),
        ""
    );
    assert_eq!(client.say(&b, "cat /shared/file"), "hello");
    assert_eq!(fs::read_to_string(shared.join("file")).unwrap(), "hello\n");
    fs::write(shared.join("late"), "late").unwrap();
    assert_eq!(client.say(&b, "cat /shared/late"), "late");
    assert_eq!(client.say(&a, "echo m > /memory/file"), "");
    assert_eq!(client.say(&b, "cat /memory/file"), "m");
    assert_eq!(fs::read_to_string(memory.join("file")).unwrap(), "m\n");
    // What is read-only is so.
    assert_eq!(client.say(&a, "cat /fixed/file"), "fixed");
    let said = client.say(&a, "echo x > /fixed/file");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(client.say(&a, "mkdir /fixed/d").contains("Read-only"));
    assert_eq!(fs::read_to_string(fixed.join("file")).unwrap(), "fixed");
    // Parts are parts.
    assert_eq!(
        client.say(&a, "cat /etc/app/one.conf /etc/app/below/deep"),
        "onedeep"
    );
    assert_eq!(client.say(&a, "ls /etc/app"), "below\none.conf");
    // Files of the pod.
    assert!(
        client
            .say(&a, "cat /etc/hosts")
            .contains("10.1.2.3 alias.example")
    );
    let resolver = client.say(&a, "cat /etc/resolv.conf");
    for line in [
        "nameserver 10.96.0.10",
        "search default.svc.cluster.local",
        "options ndots:5",
    ] {
        assert!(resolver.contains(line), "{resolver}");
    }
    assert_eq!(client.say(&a, "cat /etc/hostname"), "volumes");
    // Memory that containers of a pod share.
    assert_eq!(client.say(&a, "echo shm > /dev/shm/file"), "");
    assert_eq!(client.say(&b, "cat /dev/shm/file"), "shm");

    // A secret is replaced at once.
    assert_eq!(client.say(&a, "cat /secret/password"), "first");
    write_secret(&secret, "second");
    containerd.wait_for("the second secret", || {
        client.say(&a, "cat /secret/password") == "second"
    });
    fs::remove_dir_all(secret.join("..first")).unwrap();
    assert_eq!(client.say(&b, "cat /secret/password"), "second");
    client.stop_pod(&pod);
    client.remove_pod(&pod);
}
