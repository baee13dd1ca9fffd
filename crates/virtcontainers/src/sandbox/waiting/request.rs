use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use tokio::process::ChildStdin;
use vc_config::Config;
use vc_store::SandboxDir;
use vc_types::{ProcessIdentity, SandboxId};

use super::super::cgroups;
use super::super::config::{SandboxConfig, Scratch, VmConfig};
use super::super::host_cgroup::HostCgroup;
use crate::container::{ContainerConfig, RootSource};
use crate::error::{Error, Result, chain};
use crate::fault::VARIABLE;

/// Bytes of what a holder reports: one line.
const REPORT_BYTES_MAX: u64 = 64 << 10;

/// A machine that is to wait, and what its holder needs to make it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitingConfig {
    /// The configuration of the sandboxes that it waits for.
    pub config: Config,
    /// The program that does what takes a process of its own: virtc.
    pub program: PathBuf,
    /// The virtual machine.
    pub vm: VmConfig,
    /// Where changes of private roots and volumes go.
    pub scratch: Scratch,
    /// Whether it waits for sandboxes of the throw-away kind.
    pub throw_away: bool,
    /// Whether its containers will have the host's system as their root. One for those that bring theirs does not show
    /// it to them.
    #[serde(default)]
    pub host_system: bool,
    /// Whether its containers will share one pid namespace.
    pub shared_pids: bool,
    /// Whether its processes have a cgroup of their own on the host.
    pub cgroup: bool,
    /// How many of its kind are enough: with so many that wait, it is not made.
    pub enough: u32,
    /// How many may be made one after the other, this one included, where nobody waits for it: what does
    /// not stay alive is not made for ever.
    pub left: u32,
    /// Whether somebody waits for it, and another maker is waited for. Otherwise it is not made while
    /// there is one; those of other kinds make room for it, and more are made until there are enough.
    pub patient: bool,
}

/// What became of a machine that was to wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitingReport {
    /// It waits under this name.
    Waits(SandboxId),
    /// As many wait as are enough.
    Enough,
    /// Another process makes one just now.
    Busy,
    /// It was not made.
    Failed(String),
}

impl WaitingConfig {
    /// One for sandboxes like this.
    ///
    /// ```
    /// use virtcontainers::{SandboxConfig, WaitingConfig};
    ///
    /// let config = vc_config::Config::default();
    /// let like = SandboxConfig::empty("web".parse()?, &config, true)?;
    /// let waiting = WaitingConfig::like(&like, &config, "/usr/local/bin/virtc".as_ref());
    /// assert!(waiting.throw_away && waiting.enough == 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn like(sandbox: &SandboxConfig, config: &Config, program: &Path) -> Self {
        let of_host =
            |container: &ContainerConfig| matches!(container.root.source, RootSource::HostSystem);
        Self {
            host_system: sandbox.host_system_later || sandbox.containers.iter().any(of_host),
            config: config.clone(),
            program: program.to_owned(),
            vm: sandbox.vm.unasked(),
            scratch: sandbox.scratch,
            throw_away: sandbox.throw_away,
            shared_pids: sandbox.shared_pids,
            cgroup: sandbox.cgroup.is_own(),
            enough: config.factory.vm_cache_number,
            left: config.factory.vm_cache_number,
            patient: false,
        }
    }

    /// The sandbox that waits, under this name.
    pub(super) fn sandbox(&self, id: SandboxId) -> Result<SandboxConfig> {
        Ok(SandboxConfig {
            vm: self.vm.clone(),
            scratch: self.scratch,
            shared_pids: self.shared_pids,
            host_system_later: self.host_system,
            // Whoever takes it moves it to its own.
            cgroup: match self.cgroup {
                true => HostCgroup::Own,
                false => HostCgroup::Inherited,
            },
            ..SandboxConfig::empty(id, &self.config, self.throw_away)?
        })
    }

    /// Starts a holder, which outlives this process, and waits for its report.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when it cannot be started, or ends without a word.
    pub fn make(&self) -> Result<WaitingReport> {
        let failed = |source| Error::System {
            attempt: "start the holder of a machine that waits".into(),
            source,
        };
        let (report, writer) = io::pipe().map_err(failed)?;
        // It outlives this process, and whoever started that reaps it.
        let mut command = self.command();
        command.stdout(Stdio::from(OwnedFd::from(writer)));
        let mut holder = command.spawn().map_err(failed)?;
        drop(command);
        let input = holder.stdin.take().ok_or(io::ErrorKind::BrokenPipe);
        let told = input
            .map_err(io::Error::from)
            .and_then(|input| self.tell(input));
        told.map_err(failed)?;
        let mut text = Vec::new();
        report
            .take(REPORT_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(failed)?;
        if text.is_empty() {
            return Err(failed(io::Error::other("it ended without a word")));
        }
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }

    /// The holder, which begins once it has been told what to make.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg0("virtc")
            .args(["internal", "hold"])
            // What the caller has is of no concern to a machine of nobody yet.
            .env_clear()
            .envs(std::env::var_os(VARIABLE).map(|fault| (VARIABLE, fault)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Tells it. A pipe has room for all of it.
    fn tell(&self, mut input: impl Write) -> io::Result<()> {
        input.write_all(&serde_json::to_vec(self)?)
    }

    /// What whoever starts a holder has written to its standard input.
    pub(super) fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut text = Vec::new();
        input.read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Starts a holder. Nobody waits for it, and it is in no cgroup of a container that this process stands
/// for in the sandbox in `directory`.
pub(crate) fn refill(waiting: &WaitingConfig, directory: &SandboxDir) {
    let failed = |source| Error::System {
        attempt: "start the holder of a machine that waits".into(),
        source,
    };
    let spawned = || -> Result<()> {
        let mut command = tokio::process::Command::from(waiting.command());
        let mut child = command.spawn().map_err(failed)?;
        let input = child.stdin.take().map(ChildStdin::into_owned_fd);
        let pid = child.id().unwrap_or_default();
        // The executor reaps it, where it ends first.
        tokio::spawn(async move { child.wait().await });
        // Before it has begun: what it makes is nobody's.
        let holder = ProcessIdentity::of(i32::try_from(pid).unwrap_or_default())?;
        cgroups::leave_containers(&directory.read()?, &holder)?;
        let input = input.unwrap_or(Err(io::ErrorKind::BrokenPipe.into()));
        // One that is told nothing ends by itself.
        let told = input.and_then(|input| waiting.tell(File::from(input)));
        told.map_err(failed)
    };
    if let Err(error) = spawned() {
        let error = chain(&error);
        tracing::warn!(error, "no machine is made that waits");
    }
}

impl WaitingReport {
    pub(super) fn send(&self, mut output: impl io::Write) -> io::Result<()> {
        serde_json::to_writer(&mut output, self)?;
        output.flush()
    }
}

/// The size of a machine, for messages.
impl std::fmt::Display for WaitingConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.vm.size().fmt(f)
    }
}
