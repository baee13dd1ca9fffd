//! Several tasks in one sandbox, as Kubernetes' annotations group them.

use super::Containerd;
use super::exec::{PSS_KIB_MAX, memory};

/// How many containers come to a pod to see what the shim takes for each.
const FURTHER: usize = 5;

/// What it may take for each: 0.3 MB.
const FURTHER_KIB_MAX: usize = 300_000 / 1024;

pub(super) const SANDBOX: [&str; 2] = ["--annotation", "io.kubernetes.cri.container-type=sandbox"];

pub(super) fn member(sandbox: &str) -> [String; 4] {
    [
        "--annotation".to_owned(),
        "io.kubernetes.cri.container-type=container".to_owned(),
        "--annotation".to_owned(),
        format!("io.kubernetes.cri.sandbox-id={sandbox}"),
    ]
}

#[test]
fn containers_come_and_go_in_the_pod_of_the_first() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&SANDBOX, "pod", &["sleep", "1000"]);
    let shim = containerd.shim("pod");
    let flags = member("pod");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let output = containerd.run(&flags, "a", &["sh", "-c", "echo in the pod; exit 3"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "in the pod\n",
        "{}",
        containerd.log()
    );
    assert_eq!(output.status.code(), Some(3));
    // The same name again, and another beside it.
    containerd.begin(&flags, "a", &["sleep", "1000"]);
    containerd.begin(&flags, "b", &["sleep", "1000"]);
    // Threads of its shim stand for them, each for one.
    let threads = ["a", "b"].map(|id| containerd.shim(id));
    assert_ne!(threads[0], threads[1]);
    for thread in threads {
        let status = format!("/proc/{}/status", thread.as_raw_nonzero());
        let status = std::fs::read_to_string(status).unwrap();
        let of_shim = format!("\nTgid:\t{}\n", shim.as_raw_nonzero());
        assert!(status.contains(&of_shim), "{status}");
    }
    let output = containerd.exec("b", "e", &["echo", "beside"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "beside\n");
    containerd.remove("a");
    assert_eq!(containerd.state("pod").as_deref(), Some("RUNNING"));
    // The end of the first takes the machine, and with it the others.
    containerd.done(&["task", "kill", "--signal", "KILL", "pod"]);
    containerd.wait_for("the end of the pod", || {
        containerd.state("pod").as_deref() == Some("STOPPED")
    });
    // Its end is told before theirs, and they may be about to end.
    containerd.done(&["task", "rm", "pod"]);
    containerd.done(&["container", "rm", "pod"]);
    // Its shim goes with it, and containerd lets go of the other's task.
    containerd.wait_for("the end of the other's task", || {
        containerd.state("b").is_none_or(|state| state == "STOPPED")
    });
    containerd.ctr(&["task", "rm", "b"]);
    containerd.done(&["container", "rm", "b"]);
}

#[test]
fn a_further_container_takes_little_of_the_shim() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&SANDBOX, "pod", &["sleep", "1000"]);
    // From now on the shim is asked nothing: it gives memory back where it rests.
    let shim = containerd.shim("pod");
    let pss = || memory(shim, "Pss:");
    containerd.wait_for("a shim that rests", || pss() <= PSS_KIB_MAX);
    let one = pss();
    let flags = member("pod");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    for number in 0..FURTHER {
        containerd.begin(&flags, &format!("c{number}"), &["sleep", "1000"]);
    }
    let most = one + FURTHER * FURTHER_KIB_MAX;
    containerd.wait_for("what a shim may take for them", || pss() <= most);
    println!("{one} KiB with one, {} with {FURTHER} more", pss());
    for number in 0..FURTHER {
        containerd.remove(&format!("c{number}"));
    }
    containerd.remove("pod");
}

#[test]
fn a_member_without_its_pod_is_refused() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let flags = member("gone");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let output = containerd.run(&flags, "a", &["true"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("sandbox gone"), "{error}");
}
