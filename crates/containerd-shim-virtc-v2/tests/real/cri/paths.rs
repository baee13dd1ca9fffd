//! Paths of a container: hidden, read-only, mounted by links, and with mounts below them.

use std::fs;
use std::os::unix::fs::symlink;

use k8s_cri::v1::MountPropagation;

use super::security::{WAIT, context, sandbox_context};
use super::volumes::mount;
use super::{Client, Containerd, Mounted, Network, settings};

#[test]
fn paths_are_hidden_and_mounted_as_they_are_asked_for() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let host = containerd.dir("volumes");
    let at = |name: &str| containerd.dir(&format!("volumes/{name}"));
    let made = client.try_run_pod("paths", |config| {
        sandbox_context(config).privileged = true;
        let linux = config.linux.get_or_insert_default();
        let name = "fs.mqueue.msg_max".to_owned();
        linux.sysctls.insert(name, "100".to_owned());
    });
    let pod = made.unwrap();

    // What an image has can be hidden and held, as what the kernel shows.
    let hidden = client.begin(&pod, "hidden", &WAIT, |config| {
        let context = context(config);
        context.masked_paths = vec!["/bin/ping".to_owned(), "/etc".to_owned()];
        context.readonly_paths = vec!["/tmp".to_owned()];
    });
    let said = client.say(&hidden, "/bin/ping");
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(client.say(&hidden, "ls /etc | grep passwd"), "[1]");
    let said = client.say(&hidden, "touch /tmp/file");
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(client.say(&hidden, "touch /run/file"), "");
    let said = client.say(&hidden, "cat /proc/sys/fs/mqueue/msg_max");
    assert_eq!(said, "100");

    // A volume that is a link is what the link leads to, and what is mounted below it comes too.
    let real = at("real");
    fs::write(real.join("file"), "real").unwrap();
    symlink(&real, host.join("link")).unwrap();
    let outer = at("outer");
    let below = at("outer/below");
    let _mounted = Mounted::tmpfs(&below);
    fs::write(below.join("file"), "below").unwrap();
    let volumes = client.begin(&pod, "volumes", &WAIT, |config| {
        let mut held = mount(&outer, "/held");
        held.readonly = true;
        config.mounts = vec![mount(&host.join("link"), "/link"), held];
    });
    assert_eq!(client.say(&volumes, "cat /link/file"), "real");
    assert_eq!(client.say(&volumes, "cat /held/below/file"), "below");
    let said = client.say(&volumes, "touch /held/file");
    assert!(said.contains("Read-only file system"), "{said}");
    // Read-only is all of it: there is no way to write to a part.
    let said = client.say(&volumes, "touch /held/below/new");
    assert!(said.contains("Read-only file system"), "{said}");

    // Whatever is mounted in a machine stays there.
    let shared = at("shared");
    let _shared = Mounted::shared(&shared);
    fs::create_dir(shared.join("d")).unwrap();
    for (name, propagation) in [
        ("private", MountPropagation::PropagationPrivate),
        ("slave", MountPropagation::PropagationHostToContainer),
    ] {
        let id = client.begin(&pod, name, &WAIT, |config| {
            context(config).privileged = true;
            let mut volume = mount(&shared, "/shared");
            volume.propagation = propagation.into();
            config.mounts = vec![volume];
        });
        let mounts = client.container(&id).mounts;
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].propagation(), propagation);
        let line = "mount -t tmpfs tmpfs /shared/d && touch /shared/d/file && ls /shared/d";
        assert_eq!(client.say(&id, line), "file");
        let seen = fs::read_dir(shared.join("d")).unwrap().count();
        assert_eq!(seen, 0, "{name}");
    }
    client.stop_pod(&pod);
    client.remove_pod(&pod);
}
