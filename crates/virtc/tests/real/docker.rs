//! Debian's docker with virtc as an added runtime, and a daemon of the test's own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use test_vm::Host;

use super::{busybox_root, host};

/// Debian's, whatever else is in `PATH`.
const DOCKER: &str = "/usr/bin/docker";
const DOCKERD: &str = "/usr/sbin/dockerd";

/// How long the daemon may take to answer, and to end.
const DAEMON_LIMIT: Duration = Duration::from_secs(30);

/// How often it is asked whether it is there; it says so to nobody.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// A docker with a daemon, a root and one image, `box`, of its own.
pub(super) struct Docker {
    /// Short: its sockets are below, and their paths have 107 bytes at most.
    directory: PathBuf,
    daemon: Child,
}

impl Docker {
    /// Nothing, and the reason on stderr, where there is no docker.
    fn new(host: &Host) -> Option<Self> {
        Self::started(host, None)
    }

    /// One whose daemon makes its networks in a network namespace.
    pub(super) fn in_namespace(host: &Host, namespace: &str) -> Option<Self> {
        Self::started(host, Some(namespace))
    }

    fn started(host: &Host, namespace: Option<&str>) -> Option<Self> {
        if !Path::new(DOCKERD).exists() {
            eprintln!("skipped: dockerd is missing, which scripts/setup-packages.sh installs");
            return None;
        }
        let directory = host.dir("d");
        let at = |name: &str| directory.join(name).display().to_string();
        fs::create_dir(at("client")).unwrap();
        fs::write(at("client/config.json"), "{}").unwrap();
        // Or the key would be in the host's /etc/docker.
        let config = format!(r#"{{"deprecated-key-path": "{}"}}"#, at("key.json"));
        fs::write(at("daemon.json"), config).unwrap();
        let log = File::create(at("log")).unwrap();
        let mut command = match namespace {
            None => Command::new(DOCKERD),
            Some(namespace) => {
                let mut inside = Command::new("nsenter");
                inside.args([&format!("--net=/run/netns/{namespace}"), DOCKERD]);
                inside
            }
        };
        for (flag, value) in [
            ("--config-file", at("daemon.json")),
            ("--data-root", at("data")),
            ("--exec-root", at("run")),
            ("--pidfile", at("pid")),
            ("--host", format!("unix://{}", at("sock"))),
            ("--storage-driver", "vfs".to_owned()),
            ("--exec-opt", "native.cgroupdriver=cgroupfs".to_owned()),
            ("--bridge", "none".to_owned()),
            ("--cgroup-parent", format!("/{}", group(&directory))),
            (
                "--add-runtime",
                format!("virtc={}", env!("CARGO_BIN_EXE_virtc")),
            ),
        ] {
            command.args([flag, &value]);
        }
        if namespace.is_none() {
            command.args(["--iptables=false", "--ip6tables=false"]);
        }
        let daemon = command
            .env("VIRTC_RUNTIME_FAILURES", host.failures())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Self { directory, daemon };
        docker.wait_for_daemon();
        let archive = docker.at("box.tar");
        let tar = Command::new("tar")
            .args([
                "-C",
                busybox_root(host).to_str().unwrap(),
                "-cf",
                &archive,
                ".",
            ])
            .status();
        assert!(tar.unwrap().success());
        docker.done(&["import", &archive, "box"]);
        Some(docker)
    }

    fn at(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn wait_for_daemon(&self) {
        let end = Instant::now() + DAEMON_LIMIT;
        while !self.output(&["info"], "").status.success() {
            let log = || fs::read_to_string(self.at("log")).unwrap_or_default();
            assert!(
                Instant::now() < end,
                "the daemon does not answer:\n{}",
                log()
            );
            std::thread::sleep(ASK_EVERY);
        }
    }

    fn output(&self, args: &[&str], input: &str) -> Output {
        let stdin = self.at("stdin");
        fs::write(&stdin, input).unwrap();
        Command::new(DOCKER)
            .env("DOCKER_HOST", format!("unix://{}", self.at("sock")))
            .env("DOCKER_CONFIG", self.at("client"))
            .args(args)
            .stdin(File::open(stdin).unwrap())
            .output()
            .expect("docker is installed with its daemon")
    }

    /// Runs it, and gives exit code and stdout.
    fn run(&self, args: &[&str], input: &str) -> (i32, String) {
        let output = self.output(args, input);
        // For whoever reads why a test failed.
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap_or(-1), out)
    }

    #[track_caller]
    pub(super) fn done(&self, args: &[&str]) -> String {
        let output = self.output(args, "");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {args:?}: {err}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn state(&self, name: &str, what: &str) -> String {
        let format = format!("{{{{.State.{what}}}}}");
        let told = self.done(&["inspect", "--format", &format, name]);
        told.trim().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Whatever a failed test has left.
        let all = self.output(&["ps", "--all", "--quiet"], "");
        let all = String::from_utf8_lossy(&all.stdout).into_owned();
        for container in all.lines() {
            self.output(&["rm", "--force", container], "");
        }
        let pid = Pid::from_child(&self.daemon);
        let _ = kill_process(pid, Signal::TERM);
        let end = Instant::now() + DAEMON_LIMIT;
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                let _ = self.daemon.kill();
            }
            std::thread::sleep(ASK_EVERY);
        }
        // The group that its containers were in stays, in each hierarchy that there is.
        let group = group(&self.directory);
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        for hierarchy in hierarchies {
            let _ = fs::remove_dir(hierarchy.path().join(&group));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&group));
        // The daemon mounts it onto itself, and leaves that.
        let _ = unmount(self.at("data"), UnmountFlags::DETACH);
    }
}

/// The cgroup of a daemon's containers: the name of its test's directory.
fn group(directory: &Path) -> String {
    let test = directory.parent().and_then(Path::file_name);
    test.unwrap_or_default().to_string_lossy().into_owned()
}

const RUN: [&str; 5] = ["run", "--runtime", "virtc", "--network", "none"];

#[test]
fn docker_runs_a_command_with_its_streams_and_its_code() {
    let host = host();
    let Some(docker) = Docker::new(&host) else {
        return;
    };
    let run = |args: &[&str], input: &str| docker.run(&[&RUN[..], &["--rm"], args].concat(), input);
    let script = ["-i", "box", "/bin/sh", "-c", "cat; exit 7"];
    assert_eq!(run(&script, "through\n"), (7, "through\n".into()));
    assert_eq!(run(&["box", "/no-such-program"], "").0, 127);
    assert_eq!(run(&["box", "/etc/marker"], "").0, 126);
    assert_eq!(docker.done(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn docker_manages_a_container_that_runs_in_the_background() {
    let host = host();
    let Some(docker) = Docker::new(&host) else {
        return;
    };
    let script = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done";
    let service = ["--detach", "--name", "c1", "box", "/bin/sh", "-c", script];
    docker.done(&[&RUN[..], &service].concat());
    assert_eq!(docker.state("c1", "Status"), "running");
    let exec =
        |args: &[&str], input: &str| docker.run(&[&["exec", "-i", "c1"], args].concat(), input);
    assert_eq!(exec(&["/bin/cat"], "fed\n"), (0, "fed\n".into()));
    assert_eq!(exec(&["/bin/sh", "-c", "exit 4"], "").0, 4);
    assert_eq!(exec(&["/no-such-program"], "").0, 127);
    let top = docker.done(&["top", "c1", "-eo", "pid,args"]);
    assert!(top.lines().count() == 2 && top.contains("virtc"), "{top}");
    let stats = docker.done(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "c1"]);
    assert!(!stats.starts_with("0B"), "{stats}");

    docker.done(&["pause", "c1"]);
    assert_eq!(docker.state("c1", "Status"), "paused");
    docker.done(&["unpause", "c1"]);
    docker.done(&["update", "--pids-limit", "77", "c1"]);

    let copied = docker.at("copied");
    fs::write(&copied, "copied\n").unwrap();
    docker.done(&["cp", &copied, "c1:/etc/copied"]);
    assert_eq!(exec(&["/bin/cat", "/etc/copied"], "").1, "copied\n");

    docker.done(&["stop", "--time", "10", "c1"]);
    assert_eq!(docker.state("c1", "ExitCode"), "9");
    assert_eq!(docker.done(&["logs", "c1"]), "up\nbye\n");
    docker.done(&["restart", "--time", "0", "c1"]);
    docker.done(&["kill", "c1"]);
    assert_eq!(docker.done(&["wait", "c1"]), "137\n");
    docker.done(&["rm", "c1"]);
    assert_eq!(docker.done(&["ps", "--all", "--quiet"]), "");
}
