//! A containerd of the test's own, with this shim as a runtime.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use test_vm::Host;

use super::image;

/// How long the daemon may take to answer.
const DAEMON_LIMIT: Duration = Duration::from_secs(30);

/// How long something that comes by itself may take.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// How often it is looked for; it says so to nobody.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) const RUNTIME: &str = "io.containerd.virtc.v2";

/// The daemon, its directories and its namespace.
pub(super) struct Containerd {
    host: Host,
    /// Short: sockets are below.
    directory: PathBuf,
    /// Also the name of its containers' cgroup, of which nothing may stay.
    namespace: String,
    daemon: Option<Child>,
    /// What its shims are to do at which point.
    fault: Option<String>,
    /// A setting that it and its shims have.
    variable: Option<(String, String)>,
    /// The network namespace that stands for the host's; else it is the host's.
    network: Option<String>,
    /// The settings of its plug-ins.
    plugins: String,
    /// Whether `virtc install containerd` adds the runtime.
    installed: bool,
}

/// Without the plug-in that Kubernetes uses.
const NO_CRI: &str = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

impl Containerd {
    /// One with the image, that runs. Nothing, and the reason on stderr, where there is none.
    pub(super) fn new() -> Option<Self> {
        Self::with(|containerd| containerd.plugins = NO_CRI.to_owned())
    }

    /// One for Kubernetes: in a network namespace, with plug-ins that are set up as `settings` says, to
    /// which it is told its directory.
    pub(super) fn for_cri(network: &str, settings: impl FnOnce(&Path) -> String) -> Option<Self> {
        Self::with(|containerd| {
            containerd.network = Some(network.to_owned());
            containerd.namespace = "k8s.io".to_owned();
            containerd.plugins = settings(&containerd.directory);
            containerd.installed = true;
        })
    }

    fn with(change: impl FnOnce(&mut Self)) -> Option<Self> {
        if !Path::new("/usr/bin/containerd").exists() {
            eprintln!("skipped: containerd is missing, which scripts/setup-packages.sh installs");
            return None;
        }
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-virtc-v2"));
        let virtc = shim.with_file_name("virtc");
        let host = Host::new(virtc.to_str().unwrap());
        let directory = host.dir("c");
        let own = host
            .root()
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_owned();
        let mut containerd = Self {
            host,
            directory,
            namespace: own.into_string().unwrap(),
            daemon: None,
            fault: None,
            variable: None,
            network: None,
            plugins: String::new(),
            installed: false,
        };
        change(&mut containerd);
        containerd.start();
        let archive = image::archive(&containerd.host.dir("image"));
        containerd.done(&["image", "import", archive.to_str().unwrap()]);
        Some(containerd)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("sock")
    }

    /// A cgroup of which nothing may stay.
    pub(super) fn cgroup(&self) -> String {
        let own = self
            .host
            .root()
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_owned();
        format!("/{}", own.display())
    }

    fn at(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Starts the daemon, for the first time or again, and waits until it answers.
    pub(super) fn start(&mut self) {
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n{}\n[grpc]\naddress = {:?}\n",
            self.at("root"),
            self.at("state"),
            self.plugins,
            self.socket(),
        );
        fs::write(self.at("config.toml"), config).unwrap();
        if self.installed {
            self.install();
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.at("log"))
            .unwrap();
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-virtc-v2"));
        let programs = match self.installed {
            true => self.at("bin"),
            false => shim.parent().unwrap().display().to_string(),
        };
        let path = format!("{programs}:/usr/sbin:/usr/bin:/sbin:/bin");
        let mut command = match &self.network {
            None => Command::new("/usr/bin/containerd"),
            Some(network) => {
                let mut inside = Command::new("nsenter");
                inside.args([
                    &format!("--net=/run/netns/{network}"),
                    "/usr/bin/containerd",
                ]);
                inside
            }
        };
        command
            .args(["--config", &self.at("config.toml")])
            .env("PATH", path)
            .env("VIRTC_RUNTIME_ROOT", self.host.root())
            .env("VIRTC_RUNTIME_FAILURES", self.host.failures())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(fault) = &self.fault {
            // Not for the action that cleans up, which passes some of the points too.
            command.env("VIRTC_TEST_SERVE_FAULT", fault);
        }
        command.envs(self.variable.clone());
        self.daemon = Some(command.spawn().unwrap());
        let end = Instant::now() + DAEMON_LIMIT;
        while !self.ctr(&["version"]).status.success() {
            assert!(
                Instant::now() < end,
                "containerd does not answer:\n{}",
                self.log()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Adds the runtime to the settings, as an administrator does.
    fn install(&self) {
        let (config, bin_dir) = (self.at("config.toml"), self.at("bin"));
        let flags = ["--containerd-config", &config, "--bin-dir", &bin_dir];
        let command = ["install", "containerd"].iter().chain(&flags);
        self.host.virtc(command).expect_code(0);
    }

    /// Restarts the daemon, whose shims do something at a point from now on.
    pub(super) fn restart_with_fault(&mut self, fault: Option<&str>) {
        self.fault = fault.map(str::to_owned);
        self.kill();
        self.start();
    }

    /// Restarts the daemon, whose shims have a setting from now on.
    pub(super) fn restart_with_variable(&mut self, name: &str, value: &str) {
        self.variable = Some((name.to_owned(), value.to_owned()));
        self.kill();
        self.start();
    }

    /// What the daemon and its shims have logged, but for how the daemon started.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.at("log")).unwrap_or_default();
        let lines = log.lines().filter(|line| !line.contains("loading plugin"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Kills the daemon as nothing can prevent.
    pub(super) fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// The client, with a command for this daemon and namespace.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/ctr");
        command
            .args([
                "--address",
                &self.at("sock"),
                "--namespace",
                &self.namespace,
            ])
            .args(args);
        command
    }

    pub(super) fn ctr(&self, args: &[&str]) -> Output {
        let output = self.command(args).stdin(Stdio::null()).output();
        output.expect("ctr is installed with its daemon")
    }

    /// Runs it; it must succeed. Gives its stdout.
    #[track_caller]
    pub(super) fn done(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        assert!(
            output.status.success(),
            "ctr {}: {}\n{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it; it must fail. Gives its stderr.
    #[track_caller]
    pub(super) fn refused(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        assert!(
            !output.status.success(),
            "ctr {} did not fail",
            args.join(" ")
        );
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs a container to its end, which removes it.
    pub(super) fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Output {
        let run = ["run", "--rm", "--runtime", RUNTIME];
        self.ctr(&[&run[..], flags, &[image::NAME, id], command].concat())
    }

    /// Begins a container that goes on.
    #[track_caller]
    pub(super) fn begin(&self, flags: &[&str], id: &str, command: &[&str]) {
        let run = ["run", "--detach", "--runtime", RUNTIME];
        self.done(&[&run[..], flags, &[image::NAME, id], command].concat());
    }

    /// Adds a process to a container, and waits for it.
    pub(super) fn exec(&self, id: &str, exec: &str, command: &[&str]) -> Output {
        self.ctr(&[&["task", "exec", "--exec-id", exec, id], command].concat())
    }

    /// A container's state, as `ctr task ls` has it; nothing where there is no task.
    pub(super) fn state(&self, id: &str) -> Option<String> {
        let list = self.done(&["task", "ls"]);
        let mut lines = list
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines
            .find(|words| words.first() == Some(&id))
            .map(|words| words[2].to_owned())
    }

    /// The process that serves a container.
    pub(super) fn shim(&self, id: &str) -> Pid {
        let list = self.done(&["task", "ls"]);
        let mut lines = list
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = lines.find(|words| words.first() == Some(&id)).unwrap();
        Pid::from_raw(found[1].parse().unwrap()).unwrap()
    }

    /// Kills a container, and removes it once it has stopped.
    #[track_caller]
    pub(super) fn remove(&self, id: &str) {
        if self.state(id).as_deref() != Some("STOPPED") {
            // It may end by itself meanwhile.
            self.ctr(&["task", "kill", "--signal", "KILL", id]);
            self.wait_for("the end of the task", || {
                self.state(id).as_deref() == Some("STOPPED")
            });
        }
        // Its warning says the exit code.
        self.ctr(&["task", "rm", id]);
        self.done(&["container", "rm", id]);
    }

    /// Waits for what comes by itself.
    #[track_caller]
    pub(super) fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + WAIT_LIMIT;
        while !is_so() {
            assert!(Instant::now() < end, "{what} did not come:\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Where the shim of a container is asked.
    pub(super) fn address(&self, id: &str) -> String {
        let bundle = Path::new("io.containerd.runtime.v2.task").join(&self.namespace);
        let state = self.directory.join("state").join(bundle).join(id);
        fs::read_to_string(state.join("address")).unwrap()
    }

    /// The machine's own process, below the shim's.
    pub(super) fn vmm(&self, shim: Pid) -> Pid {
        let below = test_vm::descendants(shim.as_raw_nonzero().get());
        let vmm = below
            .iter()
            .find(|process| process.command.contains("qemu"));
        Pid::from_raw(vmm.expect("a machine runs").pid).unwrap()
    }

    /// A directory of the test's own.
    pub(super) fn dir(&self, name: &str) -> PathBuf {
        self.host.dir(name)
    }

    /// The state of this namespace's sandboxes.
    fn state_root(&self) -> PathBuf {
        let mut root = self.host.root().into_os_string();
        root.push("-containerd");
        PathBuf::from(root).join(&self.namespace)
    }
}

impl Containerd {
    /// What is there of this namespace's sandboxes.
    pub(super) fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state_root()).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill_process(Pid::from_child(&daemon), Signal::TERM);
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            // Shims outlive their containerd, and came to us when it ended.
            let own = i32::try_from(std::process::id()).unwrap();
            for left in test_vm::descendants(own) {
                let _ = kill_process(Pid::from_raw(left.pid).unwrap(), Signal::KILL);
            }
            return;
        }
        let left = self.left();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}
