//! Wrong input: a message that says what is wrong and what to do, the right code, nothing left.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{busybox_root, host};

#[test]
fn wrong_usage_is_2_and_named() {
    let host = host();
    for (args, text) in [
        (vec!["run", "true"], "--"),
        (
            vec!["run", "id", "--", "true"],
            "virtc run [--bundle DIR] ID",
        ),
        (vec!["run", "--bogus", "--", "true"], "--bogus"),
        (vec!["run", "-v", "nocolon", "--", "true"], "nocolon"),
        (vec!["run", "-m", "lots", "--", "true"], "lots"),
        (vec!["run", "--net", "host", "--", "true"], "host"),
        (vec!["run", "--cap-add", "FLY", "--", "true"], "FLY"),
        (vec!["run", "--name", "../x", "--", "true"], "../x"),
        (vec!["run", "--writable", "--", "true"], "--rootfs"),
        (vec!["run", "-t", "--", "true"], "terminal"),
    ] {
        host.virtc(&args).expect_code(2).expect_err(&[text]);
    }
}

#[test]
fn a_missing_part_is_named_before_anything_boots() {
    for (variable, text) in [
        ("VIRTC_HYPERVISOR_QEMU_PATH", "/nonexistent/part"),
        ("VIRTC_GUEST_ASSETS", "/nonexistent/part"),
    ] {
        let mut host = host();
        host.env(variable, "/nonexistent/part");
        host.run(&[], &["true"])
            .expect_code(125)
            .expect_err(&[text, "hint"]);
    }
}

#[test]
fn a_missing_source_is_an_error_and_is_not_made() {
    let host = host();
    let missing = host.cwd().join("missing");
    let volume = format!("{}:/x", missing.display());
    host.run(&["-v", &volume], &["true"])
        .expect_code(125)
        .expect_err(&["missing"]);
    host.run(&["--rootfs", missing.to_str().unwrap()], &["true"])
        .expect_code(125);
    host.run(&["--show", missing.to_str().unwrap()], &["true"])
        .expect_code(125);
    assert!(!missing.exists());
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    let host = host();
    let file = host.dir("etc").join("config.toml");
    fs::write(&file, "[vm]\nmemroy = \"1g\"\n").unwrap();
    let args = ["--config", file.to_str().unwrap(), "config"];
    host.virtc(args)
        .expect_code(1)
        .expect_err(&["memroy", "memory"]);
}

#[test]
fn what_is_short_on_the_host_is_said_before_anything_boots() {
    let host = host();
    host.run(&["-m", "64m"], &["true"])
        .expect_code(125)
        .expect_err(&["64 MiB", "-m 128m"]);
    host.run(&["--cpus", "200"], &["true"])
        .expect_code(125)
        .expect_err(&["200", "--cpus"]);
    let name = "n".repeat(129);
    host.run(&["--name", &name], &["true"]).expect_code(2);
    host.run(&["--kernel-param", "a b"], &["true"])
        .expect_code(2)
        .expect_err(&["a b"]);
    host.run(&["-m", "1t"], &["true"])
        .expect_code(125)
        .expect_err(&["memory", "-m"]);
}

#[test]
fn changed_assets_are_refused() {
    let mut host = host();
    let from = std::env::var("VIRTC_GUEST_ASSETS")
        .map(PathBuf::from)
        .unwrap_or_else(|_| PathBuf::from("/var/cache/virtcontainers/guest/current"));
    let to = host.dir("assets");
    for name in ["vmlinux", "initrd", "manifest.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let mut initrd = fs::read(to.join("initrd")).unwrap();
    let last = initrd.len() / 2;
    initrd[last] ^= 1;
    let mut permissions = fs::metadata(to.join("initrd")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(to.join("initrd"), permissions).unwrap();
    fs::write(to.join("initrd"), initrd).unwrap();
    host.env("VIRTC_GUEST_ASSETS", &to);
    host.run(&[], &["true"])
        .expect_code(125)
        .expect_err(&["initrd", "digest"]);
}

#[test]
fn a_guest_without_an_agent_is_given_up_with_its_console() {
    let mut host = host();
    host.env("VIRTC_LIMITS_AGENT_READY_MS", "3000");
    // The kernel starts this instead of the agent, and it never reports.
    let flags = ["--kernel-param", "rdinit=/nonexistent"];
    let outcome = host.run(&flags, &["true"]).expect_code(125);
    let outcome = outcome.expect_err(&["boot"]);
    assert_eq!(
        fs::read_dir(host.failures()).unwrap().count(),
        1,
        "{}",
        outcome.err()
    );
}

#[test]
fn an_agent_that_cannot_go_on_ends_the_machine_and_its_last_words_are_quoted() {
    // Without this part of the kernel, the agent cannot keep memory for itself.
    let flags = ["--kernel-param", "cgroup_disable=memory"];
    let outcome = host().run(&flags, &["true"]).expect_code(125);
    outcome.expect_err(&["virtc-agent: fatal: cannot write", "memory.max", "boot"]);
}

#[test]
fn a_panic_of_the_guests_kernel_is_quoted_from_where_it_begins() {
    let script = "mkdir /tmp/p && mount -t proc proc /tmp/p && echo c > /tmp/p/sysrq-trigger";
    let outcome = host().run(&["--cap-add", "ALL"], &["sh", "-c", script]);
    let outcome = outcome.expect_code(125);
    outcome.expect_err(&["ended", "Kernel panic - not syncing: sysrq triggered crash"]);
}

#[test]
fn an_agent_that_never_answers_is_given_up_at_the_limit() {
    let mut host = host();
    host.env("VIRTC_LIMITS_AGENT_READY_MS", "100");
    let outcome = host.run(&[], &["true"]).expect_code(125);
    outcome.expect_err(&["agent_ready_ms", "100 ms", "full record", "hint"]);
    let record = fs::read_dir(host.failures())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert!(
        fs::read_to_string(record.join("message.txt"))
            .unwrap()
            .contains("agent_ready_ms")
    );
}

#[test]
fn a_full_state_disk_is_an_error_and_leaves_nothing() {
    let host = host();
    let small = host.dir("small");
    // In a mount namespace of its own, so that nothing stays mounted.
    let script = format!(
        "mount -t tmpfs -o size=16k tmpfs {dir} && dd if=/dev/zero of={dir}/fill bs=4k 2>/dev/null; \
         exec \"$0\" --root {dir}/state run -- true",
        dir = small.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_virtc")]);
    command
        .current_dir(host.cwd())
        .env("VIRTC_RUNTIME_FAILURES", host.failures());
    host.start_command(command)
        .wait()
        .expect_code(125)
        .expect_err(&["No space left"]);
}

#[test]
fn an_ordinary_user_gets_one_clear_error() {
    let host = host();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--clear-groups",
        env!("CARGO_BIN_EXE_virtc"),
        "run",
        "--",
        "true",
    ]);
    command
        .current_dir("/")
        .env("VIRTC_RUNTIME_ROOT", host.root());
    let outcome = host
        .start_command(command)
        .wait()
        .expect_code(125)
        .expect_err(&["root", "sudo"]);
    assert_eq!(outcome.out(), "");
}

#[test]
fn a_root_without_the_command_is_127() {
    let host = host();
    let root = busybox_root(&host);
    host.run(&["--rootfs", root.to_str().unwrap()], &["bash"])
        .expect_code(127)
        .expect_err(&["bash"]);
}
