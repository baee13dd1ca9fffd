//! The container that waits in a template: who gets it, and that nobody can tell it from another.

use std::collections::BTreeSet;

use test_vm::Host;

use super::factory::Factory;

/// What tells when the first process began and when the sandbox was made, in that order: its start
/// and the uptime, the time, and that of a file that the host gave the sandbox.
const TIMES: &str = "cat /proc/$$/stat; cat /proc/uptime; date +%s.%N; stat -c %.Y /etc/hostname";

/// Of the start of a process in `/proc/PID/stat`, proc(5).
const TICKS_A_SECOND: f64 = 100.0;

/// The field of the start, after the name, which may have spaces.
const START_FIELD: usize = 19;

/// Whether a container's first process is older than its sandbox.
#[track_caller]
fn was_made_before(host: &Host, flags: &[&str]) -> bool {
    let outcome = host.run(flags, &["sh", "-c", TIMES]).expect_code(0);
    let out = outcome.out();
    let lines: Vec<_> = out.lines().collect();
    let number = |text: &str| text.parse::<f64>().unwrap();
    let (_, fields) = lines[0].rsplit_once(')').unwrap();
    let started = number(fields.split_whitespace().nth(START_FIELD).unwrap()) / TICKS_A_SECOND;
    let uptime = number(lines[1].split_whitespace().next().unwrap());
    let (now, made) = (number(lines[2]), number(lines[3]));
    now - (uptime - started) < made
}

#[test]
fn a_clones_first_container_is_the_one_of_its_template_where_it_is_a_usual_one() {
    let factory = Factory::new();
    let host = &factory.host;
    host.run(&[], &["true"]).expect_code(0);
    assert!(was_made_before(host, &[]));
    assert!(was_made_before(
        host,
        &["--memory", "1g", "--env", "A=1", "-v", "/tmp:/mnt/x:ro"]
    ));
    for unusual in [
        &["--read-only"][..],
        &["--cap-drop", "ALL"],
        &["--user", "7"],
    ] {
        assert!(!was_made_before(host, unusual), "{unusual:?}");
    }
}

/// Everything that a process can see of how it was made, a fact each line. The numbers of mounts and
/// devices are left out, and the names of the sandbox.
const SEEN: &str = "
    sed 's/[^ ]* [^ ]* [^ ]* //; s/ master:[0-9]*//; s,scratch/[^/]*/,scratch/,g' /proc/self/mountinfo |
        sed 's,virtc-user/[^,]*,virtc-user/,; s,containers/[^/]*/,containers/,; s,/[^ ]*/empty,/empty,'
    grep -E '^(Uid|Gid|Groups|Umask|Sig[BIC]|ShdPnd|Cap|NoNewPrivs|Seccomp)' /proc/self/status
    cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj /proc/self/timerslack_ns
    ls -l /dev | sed 's/[A-Z][a-z][a-z] .[0-9] [0-9:]* //'; ls -l /proc/self/fd | wc -l
    ls /proc/self/task | wc -l; ls / /sys /sys/fs/cgroup /proc/sys; ls -A /dev/shm /dev/mqueue
    cat /proc/self/personality /proc/sys/kernel/domainname; pwd; env | grep -v '^_='; ps -A -o comm=
    nproc; readlink /proc/self/cwd /proc/self/root; tty; echo w > /proc/sys/vm/swappiness
    mkdir /new-in-root && echo written";

#[test]
fn nobody_can_tell_it_from_another() {
    let seen = |host: &Host, flags: &[&str]| -> BTreeSet<String> {
        let flags = [&["--hostname", "same"], flags].concat();
        // Each host has a current directory of its own.
        let script =
            format!("{{ {SEEN}; }} 2>&1 | sed 's,/tmp/virtc-test-[^/ ]*,,g; s,/0-[^/ ]*-v,/v,'");
        let outcome = host.run(&flags, &["sh", "-c", &script]);
        let outcome = outcome.expect_code(0);
        outcome.out().lines().map(str::to_owned).collect()
    };
    let factory = Factory::new();
    let mut booting = super::host();
    booting.env("VIRTC_FACTORY_AUTO", "false");
    factory.host.run(&[], &["true"]).expect_code(0);
    for flags in [
        &[][..],
        &["-v", "/usr:/mnt/made/x:ro", "-v", "/etc/hosts:/a/file"],
    ] {
        let (clones, boots) = (seen(&factory.host, flags), seen(&booting, flags));
        let differences: Vec<_> = clones.symmetric_difference(&boots).collect();
        assert!(differences.is_empty(), "{differences:#?}");
        assert!(clones.contains("written"), "{clones:?}");
    }
}

#[test]
fn what_its_container_cannot_have_is_told_and_leaves_nothing() {
    let factory = Factory::new();
    let mut host = factory.host;
    host.run(&[], &["true"]).expect_code(0);
    host.run(&["--workdir", "/etc/passwd"], &["true"])
        .expect_code(125)
        .expect_err(&["working directory", "/etc/passwd", "is not a directory"]);
    host.run(&[], &["/no/such/program"]).expect_code(127);
    host.run(&[], &["/etc/passwd"]).expect_code(126);
    host.run(&["-v", "/tmp:/etc/passwd/x"], &["true"])
        .expect_code(125)
        .expect_err(&["/etc/passwd/x"]);
    host.expect_nothing_left();
}

#[test]
fn it_is_managed_as_any_other() {
    let factory = Factory::new();
    let host = &factory.host;
    host.run(&[], &["true"]).expect_code(0);
    let script = "while [ ! -e /tmp/end ]; do sleep 0.1; done; echo ended";
    let command = ["run", "--name", "box", "--", "sh", "-c", script];
    let mut running = host.start(command);
    running.wait_until("a running container", |_| {
        let state = host.virtc(["state", "box"]).out();
        state.contains("\"running\"").then_some(())
    });

    let seen = "hostname; readlink /proc/self/root; ps -A -o args=";
    let added = host.virtc(["exec", "box", "sh", "-c", seen]).expect_code(0);
    assert!(added.out().starts_with("box\n/\n"), "{}", added.out());
    // The first process is seen by what is added to it, and none that waits.
    assert!(added.out().contains("/tmp/end"), "{}", added.out());
    assert!(!added.out().contains("virtc-agent"), "{}", added.out());
    host.virtc(["update", "--pids-limit", "77", "box"])
        .expect_code(0);
    let limit = ["exec", "box", "cat", "/sys/fs/cgroup/pids.max"];
    assert_eq!(host.virtc(limit).expect_code(0).out(), "77\n");
    host.virtc(["pause", "box"]).expect_code(0);
    host.virtc(["resume", "box"]).expect_code(0);
    let file = host.dir("copied").join("end");
    std::fs::write(&file, "x").unwrap();
    let copied = ["cp", file.to_str().unwrap(), "box:/tmp/end"];
    host.virtc(copied).expect_code(0);
    let outcome = running.wait().expect_code(0);
    assert!(outcome.out().ends_with("ended\n"), "{}", outcome.out());
    let mut host = factory.host;
    host.expect_nothing_left();
}
