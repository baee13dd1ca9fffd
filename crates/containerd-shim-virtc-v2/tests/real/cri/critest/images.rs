//! What stands for the images that critest runs: the same names, and as much of them as it looks at.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::Containerd;
use crate::image;

/// That of a pod itself, whose process the cases look for by no name.
pub(super) const PAUSE: &str = "registry.k8s.io/pause:stand-in";

/// The names, and what each runs.
const IMAGES: [(&str, &str); 6] = [
    (
        "registry.k8s.io/e2e-test-images/busybox:1.29-2",
        "exec sleep 100000",
    ),
    (
        "registry.k8s.io/e2e-test-images/nginx:1.14-2",
        "httpd -p 80 -h /www; : master process; sleep 100000; :",
    ),
    (
        "registry.k8s.io/e2e-test-images/httpd:2.4.39-4",
        "echo httpd -D FOREGROUND; exec httpd -f -p 80 -h /www",
    ),
    (
        "registry.k8s.io/e2e-test-images/nonewprivs:1.3",
        "exec /bin/effective",
    ),
    (
        "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest",
        "exec sleep 100000",
    ),
    (PAUSE, "exec tail -f /dev/null"),
];

/// Programs that our busybox does not have.
const SCRIPTS: [(&str, &str); 2] = [
    (
        "pgrep",
        "ps -o pid,comm | while read pid name; do if [ $name = $1 ]; then echo $pid; fi; done",
    ),
    ("ipcs", "cat /proc/sysvipc/shm"),
];

/// Says with whose rights it runs: those of its owner, where it gets them.
const EFFECTIVE: &str = "#include <stdio.h>\n#include <unistd.h>\n\
                         int main(void) { printf(\"Effective uid: %d\\n\", (int)geteuid()); }\n";

/// Gives the daemon all of them.
pub(super) fn import(containerd: &Containerd) {
    for (number, (name, script)) in IMAGES.into_iter().enumerate() {
        let directory = containerd.dir(&format!("image-{number}"));
        let root = image::root(&directory);
        furnish(&directory, &root);
        let archive = image::archive_of(&directory, name, &["/bin/sh", "-c", script]);
        containerd.done(&["image", "import", archive.to_str().unwrap()]);
    }
}

fn furnish(directory: &Path, root: &Path) {
    let program = |name: &str, mode| {
        let path = root.join("bin").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    image::link_all(root);
    for (name, script) in SCRIPTS {
        fs::write(
            root.join("bin").join(name),
            format!("#!/bin/sh\n{script}\n"),
        )
        .unwrap();
        program(name, 0o755);
    }
    let source = directory.join("effective.c");
    fs::write(&source, EFFECTIVE).unwrap();
    let compiled = Command::new("cc")
        .args(["-static", "-o"])
        .arg(root.join("bin/effective"))
        .arg(&source)
        .status();
    assert!(compiled.unwrap().success());
    program("effective", 0o4755);
    fs::create_dir_all(root.join("www")).unwrap();
    fs::write(root.join("www/index.html"), "page\n").unwrap();
    let users = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n\
                 default-user:x:1000:1000::/:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users).unwrap();
    let groups = "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n";
    fs::write(root.join("etc/group"), groups).unwrap();
}
