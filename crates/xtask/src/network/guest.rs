//! The guests: those of virtc and the bare VM, with the same root and the same servers.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Way;
use super::client::{CLOSE_PORT, ECHO_PORT, IPERF_PORT};
use super::stage::{GUEST, PREFIX, Stage, TAP};
use crate::bench::timeline;
use crate::floor::{Floor, Machine, Tap, Vm};
use crate::process::Process;

const BUSYBOX: &str = "/bin/busybox";
const IPERF: &str = "/usr/bin/iperf3";

/// The root's name in what is shared with the bare VM.
const ROOT: &str = "root";

/// What every guest runs. The last of it says when all of it serves.
const SERVE: &str = "\
/usr/bin/iperf3 -s >/dev/null 2>&1 &
until /bin/busybox netstat -ltn | /bin/busybox grep -q :5201; do :; done
exec /bin/serve
";

/// What has to be done before where nobody else does it.
const BARE: &str = "\
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox ip link set lo up
";

/// How long a guest may take to serve, in seconds of virtc's `--timeout`.
const TIMEOUT: &str = "600";

/// A root with iperf3, its libraries, and the servers.
#[derive(Debug)]
pub(super) struct Root {
    shared: PathBuf,
}

impl Root {
    /// Makes it in the directory `shared`, with the servers of the `source` in C.
    pub(super) fn make(shared: &Path, source: &Path) -> Result<Self> {
        let root = Self {
            shared: shared.to_owned(),
        };
        for directory in ["bin", "dev", "proc", "tmp", "usr/bin"] {
            fs::create_dir_all(root.path().join(directory))?;
        }
        root.add(Path::new(BUSYBOX))?;
        root.add(Path::new(IPERF))?;
        let listed = Command::new("ldd").arg(IPERF).output().context("ldd")?;
        ensure!(listed.status.success(), "ldd {IPERF}: {}", listed.status);
        let listed = String::from_utf8(listed.stdout)?;
        let words = listed.split_ascii_whitespace();
        for library in words.filter(|word| word.starts_with('/')) {
            root.add(Path::new(library))?;
        }
        let serve = root.path().join("bin/serve");
        let status = Command::new("gcc")
            .args(["-O2", "-Wall", "-static", "-s", "-o"])
            .args([serve.as_path(), source])
            .status()
            .context("gcc")?;
        ensure!(status.success(), "gcc {}: {status}", source.display());
        fs::write(root.path().join("serve.sh"), SERVE)?;
        let own = format!(
            "{BARE}/bin/busybox ip addr add {GUEST}/{PREFIX} dev eth0\n\
             /bin/busybox ip link set eth0 up\n{SERVE}"
        );
        fs::write(root.path().join("bare.sh"), own)?;
        Ok(root)
    }

    fn path(&self) -> PathBuf {
        self.shared.join(ROOT)
    }

    fn add(&self, file: &Path) -> Result<()> {
        let inside = self.path().join(file.strip_prefix("/").unwrap_or(file));
        fs::create_dir_all(inside.parent().unwrap_or(&inside))?;
        fs::copy(file, &inside).with_context(|| format!("{} is needed", file.display()))?;
        Ok(())
    }
}

/// `virtc run`.
#[derive(Debug)]
pub(super) struct Virtc<'a> {
    pub(super) program: PathBuf,
    pub(super) root: &'a Root,
    pub(super) stage: &'a Stage,
}

/// A virtc whose guest serves.
#[derive(Debug)]
pub(super) struct Serving(Child);

impl Virtc<'_> {
    /// The machine of a guest with one interface.
    pub(super) fn machine(&self) -> Result<Machine> {
        let serving = self.serve(Way::Tcfilter)?;
        let machine = Machine::of(&Process::tree(serving.0.id())?)?;
        serving.end()?;
        Ok(machine)
    }

    /// Starts a guest, until it serves.
    pub(super) fn serve(&self, way: Way) -> Result<Serving> {
        let mut command = match way {
            Way::Tcfilter | Way::Macvtap => {
                let mut command = Command::new(&self.program);
                command.env("VIRTC_NETWORK_INTERWORKING", way.name());
                self.run(&mut command, &["--quiet", "--net", &self.namespace(way)]);
                command
            }
            Way::User => {
                let mut command = self.stage.namespace(way).command(&self.program);
                command.env("VIRTC_NETWORK_USER_BACKEND", "passt");
                let ports = [ECHO_PORT, CLOSE_PORT, IPERF_PORT];
                let mut flags: Vec<_> = ports
                    .iter()
                    .map(|port| format!("--publish={port}:{port}"))
                    .collect();
                flags.extend(["--net=user".into(), "--quiet".into()]);
                let flags: Vec<_> = flags.iter().map(String::as_str).collect();
                self.run(&mut command, &flags);
                command
            }
        };
        command.args(["--", BUSYBOX, "sh", "/serve.sh"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn();
        let mut serving = Serving(child.with_context(|| self.program.display().to_string())?);
        let mut stdout = serving.0.stdout.take().context("no stdout")?;
        stdout
            .read_exact(&mut [0])
            .with_context(|| format!("the guest of {} does not serve", way.name()))?;
        Ok(serving)
    }

    /// From *exec* to *ready*, in milliseconds, with an interface or without.
    pub(super) fn start(&self, with: bool) -> Result<f64> {
        let mut command = Command::new(&self.program);
        let namespace = self.namespace(Way::Tcfilter);
        let net = if with { namespace.as_str() } else { "none" };
        self.run(&mut command, &["--timeline", "--net", net]);
        command.args(["--", BUSYBOX, "true"]);
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "virtc: {}: {said}", output.status);
        timeline::point(&timeline::parse(&said), "ready")
    }

    fn namespace(&self, way: Way) -> String {
        format!("ns:{}", self.stage.namespace(way).path().display())
    }

    fn run(&self, command: &mut Command, flags: &[&str]) {
        command
            .current_dir("/")
            // The bare VM boots too.
            .env("VIRTC_FACTORY_AUTO", "false")
            .args(["run", "--timeout", TIMEOUT])
            .args(flags)
            .arg("--rootfs")
            .arg(self.root.path());
    }
}

impl Serving {
    /// Ends it as its user would, and waits until everything of it is gone.
    pub(super) fn end(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?);
        if let Some(pid) = pid
            && self.0.try_wait()?.is_none()
        {
            // The second one ends the machine without asking its command.
            for _ in 0..2 {
                // It may have ended since.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // An error is on its way already.
        let _ = self.stop();
    }
}

/// The same machine without virtc.
#[derive(Debug)]
pub(super) struct Bare {
    floor: Floor,
}

impl Bare {
    /// With the tap of this namespace.
    pub(super) fn make(
        machine: &Machine,
        init: &Path,
        root: &Root,
        namespace: PathBuf,
        work: &Path,
    ) -> Result<Self> {
        let name = TAP.into();
        let floor = Floor::make(machine.clone(), init, &root.shared, ROOT, work)?;
        let floor = floor.with_tap(Tap { namespace, name });
        Ok(Self { floor })
    }

    /// Starts it, until it serves.
    pub(super) fn serve(&self) -> Result<Vm> {
        self.floor.serve(&[BUSYBOX, "sh", "/bare.sh"])
    }
}
