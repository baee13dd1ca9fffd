use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::set_child_subreaper;
use tempfile::TempDir;

use crate::cgroups::{self, WAITING};
use crate::leftovers;
use crate::origin::{Origin, needs_machine};
use crate::outcome::Outcome;
use crate::running::{Running, collect};

/// How long one virtc of a test may take, on a busy machine without KVM.
const LIMIT: Duration = Duration::from_secs(90);

/// This machine as one test sees it. Dropping it fails the test when something is left.
#[derive(Debug)]
pub struct Host {
    virtc: PathBuf,
    origin: Origin,
    dir: TempDir,
    mounts: BTreeSet<String>,
    env: Vec<(String, String)>,
    cwd: PathBuf,
    limit: Duration,
    checked: bool,
}

impl Host {
    /// A host with a state root of its own; `virtc` is the program under test
    /// (`env!("CARGO_BIN_EXE_virtc")`). Its machines boot, unless a test sets something else.
    pub fn new(virtc: &str) -> Self {
        Self::with_machines(virtc, Origin::Boot)
    }

    /// A host like that, all of whose machines come to be in this way.
    pub fn with_machines(virtc: &str, origin: Origin) -> Self {
        let pid = rustix::process::getpid();
        set_child_subreaper(Some(pid)).expect("a process can be the reaper of orphans");
        let dir = tempfile::Builder::new()
            .prefix(leftovers::DIRECTORY_PREFIX)
            .tempdir()
            .unwrap();
        for sub in ["state", "failures", "cwd"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let cwd = dir.path().join("cwd");
        Self {
            virtc: virtc.into(),
            origin,
            mounts: leftovers::mounts(dir.path()),
            env: Vec::new(),
            cwd,
            dir,
            limit: LIMIT,
            checked: false,
        }
    }

    /// The state root.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where records of failed starts are kept.
    pub fn failures(&self) -> PathBuf {
        self.dir.path().join("failures")
    }

    /// A directory of the test's own; it is the current one of every virtc.
    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// The path of a cgroup of the test's own for this container.
    pub fn cgroup(&self, container: &str) -> String {
        let parent = leftovers::cgroup(&self.root()).expect("a test's directory has a name");
        format!("{parent}/{container}")
    }

    /// Where the cgroup of a container is left, whose path was [`Host::cgroup`].
    pub fn cgroups_left(&self, container: &str) -> Vec<PathBuf> {
        cgroups::at(&self.cgroup(container))
    }

    /// A further directory of the test's own, made empty.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Sets a variable for every virtc from now on.
    pub fn env(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let value = value
            .as_ref()
            .to_str()
            .expect("a test's values are text")
            .to_owned();
        self.env.push((name.to_owned(), value));
    }

    /// Forgets the variables that were set.
    pub fn clear_env(&mut self) {
        self.env.clear();
    }

    /// Makes virtc fail in this way at this point.
    pub fn fault(&mut self, point: &str, action: &str) {
        self.env("VIRTC_TEST_FAULT", format!("{point}:{action}"));
    }

    /// Lets every virtc from now on take this long at most.
    pub fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// The command `virtc ARGS`, with the test's own root, for what `start` does not do. It is to
    /// be run once: where machines are to have waited, one waits for it.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let args: Vec<OsString> = args.collect();
        let mut command = self.plain_command();
        if let Some(flags) = needs_machine(&args) {
            if matches!(self.origin, Origin::Waiting(_)) {
                self.warm(flags);
            }
            let recorded = self.origin.record(&mut command, &self.origins());
            command.args(recorded);
        }
        command.args(args);
        command
    }

    /// `virtc`, whose arguments are still to come.
    fn plain_command(&self) -> Command {
        let mut command = Command::new(&self.virtc);
        command
            .current_dir(&self.cwd)
            .env("VIRTC_RUNTIME_ROOT", self.root())
            .env("VIRTC_RUNTIME_FAILURES", self.failures());
        self.origin
            .set(&mut command, &self.dir.path().join("templates"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The log in which the machines' origins are.
    fn origins(&self) -> PathBuf {
        self.dir.path().join("origins")
    }

    /// Has one machine wait.
    fn warm(&self, flags: &[&str]) {
        let warm = ["factory", "warm", "-n", "1"].iter().chain(flags);
        self.virtc(warm).expect_code(0);
    }

    /// Starts `virtc ARGS` with pipes for its standard streams.
    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        self.start_command(self.command(args))
    }

    /// Starts a command with pipes for its standard streams.
    pub fn start_command(&self, mut command: Command) -> Running {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program under test starts");
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Running {
            stdout: stdout.map(collect),
            stderr: stderr.map(collect),
            child,
            began: Instant::now(),
            limit: self.limit,
        }
    }

    /// Runs `virtc ARGS` with an empty stdin to its end.
    #[track_caller]
    pub fn virtc<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.start(args).wait()
    }

    /// Runs `virtc run FLAGS -- COMMAND` with an empty stdin to its end.
    #[track_caller]
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Outcome {
        self.virtc(["run"].iter().chain(flags).chain(&["--"]).chain(command))
    }

    /// Fails the test when something is left. Dropping the host does the same.
    #[track_caller]
    pub fn expect_nothing_left(&mut self) {
        self.checked = true;
        if let Origin::Waiting(_) = self.origin {
            // What waits would do so for ever; the templates are everybody's.
            let waiting = std::fs::read_dir(self.root().join(WAITING)).into_iter();
            for machine in waiting.flatten().flatten() {
                let name = machine.file_name();
                self.virtc([OsStr::new("factory"), OsStr::new("destroy"), &name]);
            }
            self.virtc(["gc"]).expect_code(0);
        }
        let wrong = self.origin.wrong(&self.origins());
        assert_eq!(wrong, None);
        let left = leftovers::find(&self.root(), &self.mounts);
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }

    /// What is left, in words.
    pub fn left(&self) -> Vec<String> {
        leftovers::find(&self.root(), &self.mounts)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A test that failed has said more already.
        if !std::thread::panicking() {
            self.expect_nothing_left();
        }
    }
}
