//! Pods that come and go under execs: a few here, many in the soak.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::StateRequest;
use containerd_shim_protos::ttrpc::{Client, context};

use super::Containerd;
use super::exec::{exec, held};
use super::pod::{SANDBOX, member};

/// Pods that are made and removed at the same time.
const AT_ONCE: usize = 4;

/// How often a call is measured, before and after.
const MEASURED: usize = 20;

/// What one call may take longer at the end than at the beginning, for what else the host does.
const NOISE: Duration = Duration::from_millis(100);

/// A count that the soak sets.
pub(super) fn count(variable: &str, otherwise: usize) -> usize {
    let count = std::env::var(variable).ok();
    count
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// The time that most calls take.
fn median(mut call: impl FnMut(usize)) -> Duration {
    let mut times: Vec<Duration> = (0..MEASURED)
        .map(|number| {
            let began = Instant::now();
            call(number);
            began.elapsed()
        })
        .collect();
    times.sort();
    times[MEASURED / 2]
}

/// A pod with containers, each of which is asked something, and all of it removed again.
fn pod(containerd: &Containerd, name: &str, containers: usize) {
    containerd.begin(&SANDBOX, name, &["sleep", "1000"]);
    let flags = member(name);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let ids: Vec<String> = (0..containers).map(|n| format!("{name}-{n}")).collect();
    for id in &ids {
        containerd.begin(&flags, id, &["sleep", "1000"]);
        let output = containerd.exec(id, "e", &["echo", id]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{id}\n"));
    }
    for id in &ids {
        containerd.remove(id);
    }
    containerd.remove(name);
}

#[test]
fn pods_come_and_go_under_execs() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let pods = count("VIRTC_TEST_PODS", 2);
    let containers = count("VIRTC_TEST_POD_CONTAINERS", 1);
    containerd.begin(&[], "steady", &["sleep", "1000000"]);
    let client = || TaskClient::new(Client::connect(&containerd.address("steady")).unwrap());
    let state = || {
        let client = client();
        let request = StateRequest {
            id: "steady".to_owned(),
            ..StateRequest::default()
        };
        median(|_| {
            let limit = context::with_timeout(10_000_000_000);
            client.state(limit, &request).unwrap();
        })
    };
    let added = |prefix: &str| {
        let client = client();
        median(|number| exec(&client, "steady", &format!("{prefix}{number}")))
    };
    let before = (state(), added("before"));
    let held_before = held(&containerd, "steady");

    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE.min(pods))
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= pods {
                            break;
                        }
                        pod(&containerd, &format!("p{number}"), containers);
                    }
                })
            })
            .collect();
        let execs = scope.spawn(|| {
            let (client, mut number) = (client(), 0);
            while !done.load(Ordering::Relaxed) {
                exec(&client, "steady", &format!("e{number}"));
                number += 1;
            }
            number
        });
        let ended: Vec<_> = workers.into_iter().map(|one| one.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(execs.join().unwrap() > 0);
        assert!(ended.iter().all(Result::is_ok));
    });

    assert_eq!(containerd.left().len(), 1, "{:?}", containerd.left());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let own = containerd.dir("c");
    let roots = mounts
        .lines()
        .filter(|line| line.contains(own.to_str().unwrap()));
    let roots: Vec<_> = roots.filter(|line| line.contains("/rootfs ")).collect();
    assert_eq!(roots.len(), 1, "{roots:#?}");
    containerd.wait_for("the end of what the execs had", || {
        let now = held(&containerd, "steady");
        now.0 <= held_before.0 && now.1 <= held_before.1
    });
    let after = (state(), added("after"));
    for (what, before, after) in [("State", before.0, after.0), ("Exec", before.1, after.1)] {
        assert!(
            after < before * 2 + NOISE,
            "{what} took {before:?}, and {after:?} after {pods} pods"
        );
    }
    containerd.remove("steady");
}
