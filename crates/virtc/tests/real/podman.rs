//! Debian's podman with virtc as its runtime.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use test_vm::Host;

use super::{busybox_root, host};

/// How long podman's own clean-up may take.
const CLEANUP_LIMIT: Duration = Duration::from_secs(10);

/// A podman with a store of its own and one image, `box`.
pub(super) struct Podman<'a> {
    host: &'a Host,
    directory: PathBuf,
    /// The network namespace that it takes for the host's; the host's where there is none.
    namespace: Option<String>,
}

impl<'a> Podman<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self::in_namespace(host, None)
    }

    /// One that makes its networks in a namespace of `/run/netns`.
    pub(super) fn in_namespace(host: &'a Host, namespace: Option<String>) -> Self {
        let directory = host.dir("podman");
        let path = |name: &str| directory.join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n",
            path("run"),
            path("graph")
        );
        fs::write(directory.join("storage.conf"), storage).unwrap();
        // What this machine allows; and no journal.
        let engine = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             tmp_dir = \"{}\"\n[network]\nnetwork_backend = \"netavark\"\n\
             network_config_dir = \"{}\"\n[containers]\ndefault_ulimits = [\"nofile=1024:4096\"]\n",
            path("tmp"),
            path("networks")
        );
        fs::write(directory.join("containers.conf"), engine).unwrap();
        let podman = Self {
            host,
            directory,
            namespace,
        };
        let root = busybox_root(host);
        let archive = podman.directory.join("box.tar");
        let tar = Command::new("tar")
            .args(["-C", root.to_str().unwrap(), "-cf"])
            .arg(&archive)
            .arg(".")
            .status();
        assert!(tar.unwrap().success());
        podman.done(&["import", archive.to_str().unwrap(), "box"]);
        podman
    }

    pub(super) fn output(&self, args: &[&str], input: &str) -> Output {
        // virtc takes its root and its records from here.
        let mut command = match &self.namespace {
            // Not `ip netns exec`, which hides the cgroups.
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}"));
                command.arg("podman");
                command
            }
            None => Command::new("podman"),
        };
        command
            .env(
                "CONTAINERS_STORAGE_CONF",
                self.directory.join("storage.conf"),
            )
            .env("CONTAINERS_CONF", self.directory.join("containers.conf"))
            .env("VIRTC_RUNTIME_ROOT", self.host.root())
            .env("VIRTC_RUNTIME_FAILURES", self.host.failures())
            .args(["--runtime", env!("CARGO_BIN_EXE_virtc")])
            .args(args);
        let stdin = self.directory.join("stdin");
        fs::write(&stdin, input).unwrap();
        command
            .stdin(fs::File::open(stdin).unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("podman is installed")
    }

    /// Runs it, and gives exit code and stdout.
    fn run(&self, args: &[&str], input: &str) -> (i32, String) {
        let output = self.output(args, input);
        let code = output.status.code().unwrap_or(-1);
        // For whoever reads why a test failed.
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        (code, String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[track_caller]
    pub(super) fn done(&self, args: &[&str]) -> String {
        let output = self.output(args, "");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {args:?}: {err}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // Whatever a failed test has left.
        self.output(&["pod", "rm", "--all", "--force", "--time", "0"], "");
        self.output(&["rm", "--all", "--force", "--time", "0"], "");
        // conmon cleans up beside us, and podman does not wait for it. What stays fails the test.
        let end = Instant::now() + CLEANUP_LIMIT;
        let mounted = || {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            mounts.contains(&self.directory.display().to_string())
        };
        while mounted() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const RUN: [&str; 4] = ["run", "--rm", "--network", "none"];

#[test]
fn podman_runs_a_command_with_its_streams_and_its_code() {
    let host = host();
    let podman = Podman::new(&host);
    let run = |args: &[&str], input: &str| podman.run(&[&RUN[..], args].concat(), input);
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let (code, out) = run(&["box", "/bin/busybox", "uname", "-r"], "");
    assert_eq!(code, 0);
    assert_ne!(out.trim(), kernel);
    assert_eq!(run(&["box", "/bin/sh", "-c", "exit 7"], "").0, 7);
    assert_eq!(run(&["box", "/no-such-program"], "").0, 127);
    let (code, out) = run(&["-i", "box", "/bin/cat"], "through a guest\n");
    assert_eq!((code, out.as_str()), (0, "through a guest\n"));

    let source = host.dir("volume");
    fs::write(source.join("file"), "of the host\n").unwrap();
    let volume = format!("{}:/data", source.display());
    let script = "cat /data/file && echo changed > /data/file";
    let (code, out) = run(&["-v", &volume, "box", "/bin/sh", "-c", script], "");
    assert_eq!((code, out.as_str()), (0, "of the host\n"));
    assert_eq!(
        fs::read_to_string(source.join("file")).unwrap(),
        "changed\n"
    );
    assert_eq!(podman.done(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn podman_gives_a_container_a_terminal() {
    let host = host();
    let podman = Podman::new(&host);
    let script = "test -t 0 && test -t 1 && echo a terminal; read x; echo got $x";
    let terminal = ["-t", "-i", "box", "/bin/sh", "-c", script];
    let (code, out) = podman.run(&[&RUN[..], &terminal].concat(), "line\n");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("a terminal\r\n"), "{out:?}");
    // What is typed is echoed, as by any terminal.
    assert!(
        out.contains("line\r\n") && out.ends_with("got line\r\n"),
        "{out:?}"
    );

    let name = [
        "--detach",
        "--name",
        "c1",
        "--network",
        "none",
        "box",
        "/bin/sleep",
        "1000",
    ];
    podman.done(&[&["run"], &name[..]].concat());
    let (code, out) = podman.run(
        &["exec", "-t", "c1", "/bin/sh", "-c", "test -t 1 && echo yes"],
        "",
    );
    assert_eq!((code, out.as_str()), (0, "yes\r\n"));
    podman.done(&["rm", "--force", "--time", "0", "c1"]);
}

#[test]
fn podman_manages_a_container_that_runs_in_the_background() {
    let host = host();
    let podman = Podman::new(&host);
    let script = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done";
    let name = [
        "--name",
        "c1",
        "--network",
        "none",
        "box",
        "/bin/sh",
        "-c",
        script,
    ];
    podman.done(&[&["run", "--detach"], &name[..]].concat());
    let inspect = |what: &str| {
        let format = format!("{{{{.State.{what}}}}}");
        podman
            .done(&["inspect", "--format", &format, "c1"])
            .trim()
            .to_owned()
    };
    assert_eq!(inspect("Status"), "running");

    assert_eq!(
        podman.run(&["exec", "c1", "/bin/echo", "in"], ""),
        (0, "in\n".into())
    );
    assert_eq!(
        podman.run(&["exec", "c1", "/bin/sh", "-c", "exit 4"], "").0,
        4
    );
    let fed = podman.run(&["exec", "-i", "c1", "/bin/cat"], "fed\n");
    assert_eq!(fed, (0, "fed\n".into()));
    assert_eq!(podman.run(&["exec", "c1", "/no-such-program"], "").0, 127);

    podman.done(&["pause", "c1"]);
    assert_eq!(inspect("Status"), "paused");
    podman.done(&["unpause", "c1"]);
    assert_eq!(inspect("Status"), "running");

    podman.done(&["stop", "--time", "10", "c1"]);
    assert_eq!(
        (inspect("Status").as_str(), inspect("ExitCode").as_str()),
        ("exited", "9")
    );
    assert_eq!(podman.done(&["logs", "c1"]), "up\nbye\n");

    podman.done(&["start", "c1"]);
    assert_eq!(inspect("Status"), "running");
    podman.done(&["kill", "c1"]);
    assert_eq!(podman.done(&["wait", "c1"]).trim(), "137");
    podman.done(&["rm", "c1"]);
    assert_eq!(podman.done(&["ps", "--all", "--quiet"]), "");
}
