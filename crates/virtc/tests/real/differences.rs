//! What users of the Go library know as a trap, and must not meet here; `docs/differences.md`
//! names these tests.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, Signal as HostSignal, kill_process};
use serde_json::Value;
use test_vm::Host;
use vc_agent_client::{AgentClient, CallLimits, Code, Transport};
use vc_config::Millis;
use vc_store::{ContainerRecord, SandboxRecord, Store, StoreLimits, Verb};
use vc_types::{AgentAddress, ContainerState, EndReason, SandboxId, SandboxState, Signal};
use virtcontainers::{
    Access, Error, Listed, Propagation, Runtime, RuntimeOptions, Sandbox, Started, View, Volume,
    fault,
};

use super::library::{container, exec, id, on_executor, runtime, sandbox};
use super::{busybox_root, host};

/// A runtime with the same sandboxes, and another configuration.
fn runtime_with(host: &Host, change: impl FnOnce(&mut vc_config::Config)) -> Runtime {
    let mut config = runtime(host).config().clone();
    change(&mut config);
    Runtime::open(RuntimeOptions {
        config,
        program: env!("CARGO_BIN_EXE_virtc").into(),
        ..RuntimeOptions::default()
    })
    .unwrap()
}

/// One on a host where nothing is left of what a sandbox needs.
fn runtime_of_an_empty_host(host: &Host) -> Runtime {
    runtime_with(host, |config| {
        let nowhere = |name: &str| Some(format!("/nonexistent/{name}").into());
        config.hypervisor.qemu.path = nowhere("qemu");
        config.hypervisor.qemu.firmware = nowhere("firmware");
        config.guest.assets = nowhere("assets");
    })
}

/// Names, bytes and times of everything below a directory. Of logs and sockets the name alone: the
/// guest goes on printing.
fn contents(directory: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut line = format!("{} {}", path.display(), meta.ino());
        if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            todo.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let is_log = path.extension().is_some_and(|suffix| suffix == "log");
        if !is_log {
            line += &format!(" {}.{}", meta.mtime(), meta.mtime_nsec());
            line += &format!(" {}.{}", meta.ctime(), meta.ctime_nsec());
        }
        if meta.is_file() && !is_log {
            line += &String::from_utf8_lossy(&fs::read(&path).unwrap());
        }
        all.push(line);
    }
    all.sort();
    all
}

fn signal_vmm(sandbox: &Sandbox, runtime: &Runtime, signal: HostSignal) {
    let record = runtime.status_sandbox(sandbox.id()).unwrap();
    let vmm = record.vmm_process.unwrap();
    kill_process(Pid::from_raw(vmm.pid()).unwrap(), signal).unwrap();
}

/// Runs a test of this file again, in a process of its own that fails at `point`. That process
/// gets true.
fn fails_at(point: &str, test: &str) -> bool {
    if std::env::var_os(fault::VARIABLE).is_some() {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again
        .args(["--exact", &format!("differences::{test}")])
        .env(fault::VARIABLE, format!("{point}:error"));
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
    false
}

#[test]
fn a_fetch_changes_nothing_on_disk_whatever_is_missing() {
    let mut host = host();
    host.env("VIRTC_HYPERVISOR_QEMU_PATH", "/nonexistent/qemu");
    host.env("VIRTC_GUEST_ASSETS", "/nonexistent/assets");
    let root = busybox_root(&host);
    let bundle = host.dir("bundle");
    on_executor(async {
        let (runtime, blind) = (runtime(&host), runtime_of_an_empty_host(&host));
        let mut first = container("c1", &root, &["sleep", "1000"]);
        first.bundle = Some(bundle.clone());
        let mut config = sandbox("pod", vec![first.clone()]);
        config.annotations.clear();
        let kept = runtime.run_sandbox(config.clone()).await.unwrap();
        let name = kept.id().clone();
        fs::remove_dir_all(&bundle).unwrap();

        let before = contents(&host.root());
        for _ in 0..2 {
            assert!(matches!(
                &blind.list_sandbox().unwrap()[..],
                [Listed::Sandbox(_)]
            ));
            let view = View::of(&blind.status_sandbox(&name).unwrap());
            assert_eq!(view.state, SandboxState::Running);
            let status = blind.status_container(&name, &id("c1")).unwrap();
            assert_eq!(status.state, ContainerState::Running);
            assert_eq!(status.bundle.as_ref(), Some(&bundle));
            let unknown = blind.status_container(&name, &id("c2")).unwrap_err();
            assert!(unknown.is_not_found(), "{unknown}");
            assert_eq!(blind.find_container(&id("c1")).unwrap(), name);
            assert!(blind.gc(true).unwrap().removed.is_empty());
            let fetched = blind.fetch_sandbox(&name).await.unwrap();
            let processes = fetched.process_list_container(&id("c1")).await.unwrap();
            assert_eq!(processes[0].command, "sleep");
        }
        for args in [&["list"][..], &["state", "c1"], &["ps", "c1"]] {
            host.virtc(args).expect_code(0);
        }
        // What is taken, and what cannot be, is refused before anything is touched.
        let taken = blind.create_sandbox(config.clone()).await.unwrap_err();
        assert!(
            matches!(taken, Error::Store(vc_store::Error::Exists { .. })),
            "{taken}"
        );
        let other = sandbox("other", vec![first.clone()]);
        blind.create_sandbox(other).await.unwrap_err();
        let twins = sandbox("other", vec![first.clone(), first]);
        let error = runtime.create_sandbox(twins).await.unwrap_err();
        assert!(matches!(error, Error::ContainerExists { .. }), "{error}");
        assert_eq!(contents(&host.root()), before);

        // What is noted by one is read by others, where nothing was noted before too.
        let note = [("owner".to_owned(), "another".to_owned())];
        let fetched = runtime.fetch_sandbox(&name).await.unwrap();
        fetched.set_annotations(note.into()).await.unwrap();
        let record = blind.status_sandbox(&name).unwrap();
        assert_eq!(record.annotations["owner"], "another");

        // The end of a paused process can be waited for.
        kept.pause_container(&id("c1")).await.unwrap();
        let go_on = async {
            kept.resume_container(&id("c1")).await.unwrap();
            kept.kill_container(&id("c1"), Signal::KILL, true)
                .await
                .unwrap();
        };
        let first = id("c1");
        let (exit, ()) = tokio::join!(kept.wait_process(&first), go_on);
        assert_eq!(exit.unwrap().status.shell_code(), 137);
        kept.stop().await.unwrap();
        drop(kept);

        // A stopped one that does not come up again is what it was.
        let broken = runtime_with(&host, |config| {
            config.hypervisor.qemu.path = Some("/bin/false".into());
        });
        for runtime in [&blind, &broken] {
            let failed = runtime.start_sandbox(&name).await;
            assert!(!matches!(
                failed,
                Ok(Started::Kept(_) | Started::Fetched(_))
            ));
            let record = runtime.status_sandbox(&name).unwrap();
            assert_eq!(View::of(&record).state, SandboxState::Stopped);
            assert!(record.keeper.is_none() && record.operation().is_none());
        }
        blind.delete_sandbox(&name, false).unwrap();
    });
}

#[test]
fn a_run_whose_start_fails_leaves_nothing() {
    let point = "start.written";
    if !fails_at(point, "a_run_whose_start_fails_leaves_nothing") {
        return;
    }
    let mut host = host();
    let root = busybox_root(&host);
    on_executor(async {
        let runtime = runtime(&host);
        let config = sandbox("pod", vec![container("c1", &root, &["sleep", "1000"])]);
        let error = runtime.run_sandbox(config).await.unwrap_err();
        assert!(matches!(error, Error::Fault { .. }), "{error}");
        assert!(runtime.list_sandbox().unwrap().is_empty());
    });
    host.expect_nothing_left();
}

#[test]
fn a_container_that_never_ran_or_was_half_made_leaves_nothing() {
    let test = "a_container_that_never_ran_or_was_half_made_leaves_nothing";
    if !fails_at("create-container.made", test) {
        return;
    }
    let host = host();
    let root = busybox_root(&host);
    let volume = host.dir("volume");
    on_executor(async {
        let runtime = runtime(&host);
        let with_volume = |name: &str| {
            let mut config = container(name, &root, &["sleep", "1000"]);
            config.volumes.push(Volume {
                source: volume.clone(),
                destination: "/data".into(),
                access: Access::ReadWrite,
                propagation: Propagation::Private,
            });
            config
        };
        let config = sandbox("pod", vec![with_volume("idle")]);
        let sandbox = runtime.create_sandbox(config).await.unwrap();
        let directory = runtime.sandbox_directory(sandbox.id()).unwrap();
        let socket = directory.join("vsock/vsock.sock");
        let limit = Duration::from_secs(30);
        let limits = CallLimits {
            call: limit,
            create: limit,
        };
        let transport = Transport::new(AgentAddress::HybridVsock { socket }, limit);
        let agent = AgentClient::connect(&transport, limits).await.unwrap();
        let record = runtime.status_sandbox(sandbox.id()).unwrap();
        let mut processes = record.processes.iter();
        let share = processes.find(|process| process.name.contains("user's files"));
        let share = format!("/proc/{}/root/share", share.unwrap().identity.pid());
        let shared = || fs::read_dir(&share).unwrap().count();
        let description = |name: &str| directory.join(format!("container:{name}.json"));
        let with_idle = shared();
        assert!(with_idle > 0 && description("idle").exists());
        assert!(agent.stats_container(&id("idle")).await.is_ok());

        // Everything of it was made, and then something failed.
        let failed = sandbox.create_container(with_volume("half")).await;
        assert!(matches!(failed, Err(Error::Fault { .. })), "{failed:?}");
        let half = agent.stats_container(&id("half")).await.unwrap_err();
        assert_eq!(half.code(), Some(Code::NotFound), "{half}");
        assert_eq!(shared(), with_idle);
        assert!(!description("half").exists());
        assert_eq!(sandbox.status().unwrap().containers.len(), 1);

        sandbox.delete_container(&id("idle"), false).await.unwrap();
        let idle = agent.stats_container(&id("idle")).await.unwrap_err();
        assert_eq!(idle.code(), Some(Code::NotFound), "{idle}");
        assert_eq!(shared(), 0);
        assert!(!description("idle").exists());
        assert!(sandbox.status().unwrap().containers.is_empty());
        sandbox.stop().await.unwrap();
        sandbox.delete().await.unwrap();
    });
}

/// Waits for something that must fail soon, by a limit that it names.
async fn passes<T>(limit: &str, asked: impl Future<Output = virtcontainers::Result<T>>) {
    let before = Instant::now();
    let Err(error) = asked.await else {
        panic!("nobody can have answered; {limit}");
    };
    assert!(error.to_string().contains(limit), "{limit}: {error}");
    assert!(before.elapsed() < Duration::from_secs(5), "{limit}");
}

#[test]
fn no_call_outlasts_its_limit_and_a_guest_that_was_late_is_not_given_up() {
    let host = host();
    let root = busybox_root(&host);
    on_executor(async {
        let runtime = runtime(&host);
        let hasty = runtime_with(&host, |config| {
            let limits = &mut config.limits;
            limits.agent_connect_ms = Millis(500);
            limits.agent_call_ms = Millis(500);
            limits.agent_create_ms = Millis(500);
            limits.stop_container_ms = Millis(200);
            limits.kill_container_ms = Millis(200);
            limits.stop_vmm_ms = Millis(200);
        });
        let idle = |name: &str| container(name, &root, &["sleep", "1000"]);
        let config = sandbox("pod", vec![idle("c1"), idle("c2")]);
        let sandbox = runtime.run_sandbox(config).await.unwrap();
        let name = sandbox.id().clone();
        let fetched = hasty.fetch_sandbox(&name).await.unwrap();

        signal_vmm(&sandbox, &runtime, HostSignal::STOP);
        passes("agent_connect_ms", hasty.fetch_sandbox(&name)).await;
        passes("agent_call_ms", fetched.process_list_container(&id("c2"))).await;
        passes("agent_call_ms", fetched.stats_container(&id("c2"))).await;
        let second = id("c2");
        let signal = fetched.kill_container(&second, Signal::TERM, false);
        passes("agent_call_ms", signal).await;
        let added = exec(&["true"]);
        passes("agent_c", fetched.enter_container(&id("c2"), &added)).await;
        passes("agent_c", fetched.create_container(idle("c3"))).await;
        passes("agent_call_ms", fetched.stop_container(&id("c1"), false)).await;
        // Readers do not ask the guest.
        let view = View::of(&hasty.status_sandbox(&name).unwrap());
        assert_eq!(view.state, SandboxState::Running);
        signal_vmm(&sandbox, &runtime, HostSignal::CONT);

        let processes = sandbox.process_list_container(&id("c2")).await.unwrap();
        assert_eq!(processes[0].command, "sleep");
        // What was asked for meanwhile has happened.
        let exit = sandbox.wait_process(&id("c1")).await.unwrap();
        assert_eq!(exit.status.shell_code(), 137);
        // What was left half made is taken out by whoever comes next.
        sandbox.create_container(idle("c4")).await.unwrap();
        let status = sandbox.status().unwrap();
        assert!(!status.containers.contains_key(&id("c3")));
        for name in ["c1", "c4"] {
            sandbox.delete_container(&id(name), false).await.unwrap();
        }
        // What the guest does not give away goes with its machine, and nothing is left to tell.
        signal_vmm(&sandbox, &runtime, HostSignal::STOP);
        let before = Instant::now();
        let cleaned = hasty.cleanup_container(&name, &id("c2"), true).await;
        assert!(cleaned.is_ok(), "{cleaned:?}");
        assert!(before.elapsed() < Duration::from_secs(10));
        assert!(runtime.list_sandbox().unwrap().is_empty());
        assert_eq!(sandbox.ended().await, EndReason::Requested);
    });
}

/// Gives this thread mounts of its own, and a small file system at `directory`.
fn mount_small(directory: &Path, size: &str) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let options = format!("mode=700,size={size}");
    let none = MsFlags::empty();
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        none,
        Some(&*options),
    )
    .unwrap();
}

#[test]
fn a_full_disk_in_the_middle_loses_nothing() {
    let host = host();
    let root = busybox_root(&host);
    let small = host.dir("small");
    mount_small(&small, "2m");
    let fill = small.join("fill");
    on_executor(async {
        let runtime = runtime_with(&host, |config| config.runtime.root = small.join("state"));
        let config = sandbox("pod", vec![container("c1", &root, &["sleep", "1000"])]);
        let sandbox = runtime.create_sandbox(config).await.unwrap();
        let state = small.join("state/pod/state.json");
        let before = fs::read(&state).unwrap();
        let _ = fs::write(&fill, vec![0; 4 << 20]);

        let note = [("note".to_owned(), "x".repeat(8192))];
        let error = sandbox.set_annotations(note.into()).await.unwrap_err();
        assert!(
            matches!(error, Error::Store(vc_store::Error::Io { .. })),
            "{error}"
        );
        assert_eq!(fs::read(&state).unwrap(), before);
        assert!(matches!(
            &runtime.list_sandbox().unwrap()[..],
            [Listed::Sandbox(_)]
        ));
        // Whatever runs is in the state; what cannot be written down does not run.
        let error = sandbox.start_container(&id("c1")).await.unwrap_err();
        assert!(
            matches!(error, Error::Store(vc_store::Error::Io { .. })),
            "{error}"
        );
        assert_eq!(fs::read(&state).unwrap(), before);

        fs::remove_file(&fill).unwrap();
        let exit = sandbox.wait_process(&id("c1")).await.unwrap();
        assert_eq!(exit.status.shell_code(), 137);
        let status = sandbox.status_container(&id("c1")).unwrap();
        assert_eq!(status.state, ContainerState::Stopped);
        sandbox.stop().await.unwrap();
        sandbox.delete().await.unwrap();
    });
    assert_eq!(fs::read_dir(small.join("state")).unwrap().count(), 0);
    umount(&small).unwrap();
}

/// Puts a stopped sandbox with one container on disk.
fn stopped(root: &Path, name: &str) {
    let record = SandboxRecord::new(name.parse().unwrap()).unwrap();
    let creation = Store::open(root, StoreLimits::default()).create(record, Verb::Create);
    let add = |record: &mut SandboxRecord| {
        let container = ContainerRecord::new(vec!["true".into()]);
        record.containers.insert(id("c1"), container);
    };
    creation.unwrap().commit(add).unwrap();
}

#[test]
fn cleaning_up_by_force_says_what_it_could_not_clean() {
    let host = host();
    stopped(&host.root(), "pod");
    let busy = host.root().join("pod/busy");
    fs::create_dir(&busy).unwrap();
    mount_small(&busy, "64k");
    on_executor(async {
        let runtime = runtime(&host);
        let name = SandboxId::new("pod").unwrap();
        let error = runtime
            .cleanup_container(&name, &id("c1"), true)
            .await
            .unwrap_err();
        let Error::Left { left, .. } = &error else {
            panic!("{error}")
        };
        assert!(left.contains("busy"), "{left}");
        let hidden = fs::read_dir(host.root()).unwrap().next().unwrap().unwrap();
        umount(&hidden.path().join("busy")).unwrap();
        // What is not there is clean.
        let again = runtime.cleanup_container(&name, &id("c1"), true).await;
        assert!(again.is_ok(), "{again:?}");
        runtime.gc(false).unwrap();
    });
}

#[test]
fn a_list_shows_what_is_broken_and_what_is_busy_below_the_root_that_was_named() {
    let host = host();
    let root = host.dir("elsewhere");
    let store = Store::open(&root, StoreLimits::default());
    let mut record = SandboxRecord::new("busy".parse().unwrap()).unwrap();
    record
        .containers
        .insert(id("c1"), ContainerRecord::new(Vec::new()));
    let busy = store.create(record, Verb::Create).unwrap();
    stopped(&root, "broken");
    fs::write(root.join("broken/state.json"), "{").unwrap();
    let list = |root: &Path| {
        let root = root.to_str().unwrap();
        let said = host.virtc(["--root", root, "list", "-f", "json"]);
        serde_json::from_str::<Vec<Value>>(&said.expect_code(0).out()).unwrap()
    };
    let rows = list(&root);
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (&row["id"], &row["status"]))
        .collect();
    let text = |text: &'static str| Value::from(text);
    assert_eq!(
        shown,
        [
            (&text("broken"), &text("broken")),
            (&text("c1"), &text("creating"))
        ]
    );
    let error = rows[0]["error"].as_str().unwrap();
    assert!(error.contains("virtc delete --force broken"), "{error}");
    assert!(list(&host.root()).is_empty());
    drop(busy);
}

#[test]
fn two_runtimes_of_one_process_know_nothing_of_each_other() {
    let host = host();
    let other = host.dir("other");
    stopped(&other, "pod");
    let one = runtime(&host);
    let two = runtime_with(&host, |config| {
        config.runtime.root = other.clone();
        config.limits.lock_ms = Millis(10);
    });
    let name = SandboxId::new("pod").unwrap();
    assert!(one.list_sandbox().unwrap().is_empty());
    assert!(one.status_sandbox(&name).unwrap_err().is_not_found());
    assert_eq!(two.list_sandbox().unwrap().len(), 1);
    assert_ne!(one.config().limits.lock_ms, two.config().limits.lock_ms);
    two.delete_sandbox(&name, false).unwrap();
    assert!(two.list_sandbox().unwrap().is_empty());
}

#[test]
fn a_flag_that_would_change_nothing_is_refused() {
    let host = host();
    for args in [
        &["exec", "--apparmor", "x", "c1", "true"][..],
        &["exec", "--process-label", "x", "c1", "true"],
        &["exec", "--no-subreaper", "c1", "true"],
    ] {
        host.virtc(args).expect_code(2).expect_err(&[args[1]]);
    }
    host.virtc(["create", "--no-pivot", "c1"])
        .expect_code(1)
        .expect_err(&["--no-pivot"]);
}
