//! Mounts that come and go on the host while a pod runs.

use std::fs;

use k8s_cri::v1::MountPropagation;

use super::security::{WAIT, context, sandbox_context};
use super::volumes::mount;
use super::{Client, Containerd, Mounted, Network, settings};

#[test]
fn mounts_of_the_host_come_and_go_below_a_volume_that_asks_for_them() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let source = containerd.dir("volumes/source");
    let _shared = Mounted::shared(&source);
    let place = source.join("d");
    fs::create_dir(&place).unwrap();
    let made = client.try_run_pod("propagation", |config| {
        sandbox_context(config).privileged = true;
    });
    let pod = made.unwrap();
    let mut create = |name: &str, propagation: MountPropagation, readonly: bool| {
        let made = client.try_create(&pod, name, &WAIT, |config| {
            // With all rights in the guest, what holds is the host's.
            context(config).privileged = true;
            let mut volume = mount(&source, "/v");
            volume.propagation = propagation.into();
            volume.readonly = readonly;
            config.mounts = vec![volume];
        });
        let id = made.unwrap();
        (client.try_start(&id), id)
    };
    let (begun, slave) = create("slave", MountPropagation::PropagationHostToContainer, false);
    begun.unwrap();
    let (begun, held) = create("held", MountPropagation::PropagationHostToContainer, true);
    begun.unwrap();
    let (begun, private) = create("private", MountPropagation::PropagationPrivate, false);
    begun.unwrap();
    let (begun, _) = create("both", MountPropagation::PropagationBidirectional, false);
    let said = begun.unwrap_err().to_string();
    assert!(
        said.contains("Bidirectional") && said.contains("/v"),
        "{said}"
    );
    for id in [&slave, &held, &private] {
        assert_eq!(client.say(id, "ls /v; ls /v/d"), "d");
    }

    // What is mounted comes, also below what came.
    let late = Mounted::tmpfs(&place);
    fs::write(place.join("file"), "late").unwrap();
    // At once: the guest keeps no names of such a volume.
    for id in [&slave, &held] {
        assert_eq!(client.say(id, "ls /v/d; cat /v/d/file"), "file\nlate");
    }
    assert_eq!(client.say(&private, "ls /v/d"), "");
    let below = place.join("below");
    fs::create_dir(&below).unwrap();
    let inner = Mounted::tmpfs(&below);
    fs::write(below.join("deep"), "deep").unwrap();
    assert_eq!(client.say(&slave, "cat /v/d/below/deep"), "deep");
    // It is written where the volume is, and only there.
    assert_eq!(client.say(&slave, "echo new > /v/d/new"), "");
    assert_eq!(fs::read_to_string(place.join("new")).unwrap(), "new\n");
    for line in ["touch /v/d/other", "touch /v/d/below/other", "rm /v/d/new"] {
        let said = client.say(&held, line);
        assert!(said.contains("Read-only file system"), "{said}");
        let freed = "mount -o remount,bind,rw /v && grep -q ' /v .* rw' /proc/mounts";
        let said = client.say(&held, &format!("{freed} && {line}"));
        assert!(said.contains("Read-only file system"), "{said}");
    }

    // What a process uses is busy, as it would be with the host's own.
    let line = "(cd /v/d && exec sleep 1000) >/dev/null 2>&1 & echo $!";
    let user = client.say(&slave, line);
    let used = format!("readlink /proc/{user}/cwd");
    containerd.wait_for("the use", || client.say(&slave, &used) == "/v/d");
    assert!(!late.unmount());
    client.say(&slave, &format!("kill {user}"));
    // What nobody uses can be unmounted, and is gone.
    containerd.wait_for("the unmounting below", || inner.unmount());
    containerd.wait_for("the unmounting", || late.unmount());
    for id in [&slave, &held] {
        assert_eq!(client.say(id, "ls /v; ls /v/d"), "d");
    }

    // The end of a container unmounts nothing on the host.
    let again = Mounted::tmpfs(&place);
    fs::write(place.join("file"), "again").unwrap();
    assert_eq!(client.say(&slave, "cat /v/d/file"), "again");
    client.stop(&slave, 0);
    client.remove(&slave);
    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "again");
    assert_eq!(client.say(&held, "cat /v/d/file"), "again");
    client.stop_pod(&pod);
    client.remove_pod(&pod);
    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "again");
    assert!(again.unmount(), "nobody keeps it");
}
