use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::debug;
use vc_launch::{
    LaunchSpec, LaunchedProcess, Launcher, Namespaces, PassedFd, Program, ResourceLimit,
};
use vc_types::SandboxId;
use vc_types::limits::{CONSOLE_LOG_BYTES_MAX, PROCESS_LOG_BYTES_MAX};

use super::args::{self, CommandLine, DriverFds, HostPart};
use super::config::QemuConfig;
use super::keeper::{Drains, Keeper};
use super::late::Late;
use super::qmp::Qmp;
use super::socket::SocketFile;
use super::state::QemuState;
use super::template::Loading;
use super::vm::KeptVm;
use super::{CAPABILITIES, accel};
use crate::log::{BoundedLog, drain};
use crate::{
    Accelerator, Error, HostDevices, HotPlugRecord, Nic, NicBackend, Result, VmSpec, tick_rate,
};

/// How long a QEMU that closed its event connection may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Starts a VM's QEMU and waits for its greeting, and for a clone's state to be loaded. Everything
/// that is made on the way belongs to a value that undoes it, so failing and being dropped are the
/// same.
pub(super) async fn launch(
    config: &QemuConfig,
    devices: &HostDevices,
    launcher: &Launcher,
    mut spec: VmSpec,
) -> Result<KeptVm> {
    spec.check(&CAPABILITIES)?;
    // Its own network stack makes the guest's connections where the process is. All other devices
    // get descriptors that lead out of an empty namespace.
    let own_stack = |nic: &Nic| matches!(nic.backend, NicBackend::User { .. });
    let net = !spec.nics.iter().any(own_stack);
    let held = held_bytes(&spec);
    let agent = spec.vsock.agent_address();
    let hot_plug = HotPlugRecord::of(&spec);
    let accelerator = spec.accelerator;
    let saved = spec.template.take().map(Loading::begin).transpose();
    let saved = saved.map_err(|source| Error::Host {
        attempt: "make the template's port",
        sandbox: spec.sandbox.clone(),
        source,
    })?;
    let (cloned, loading) = saved.unzip();

    let mut start = Start::of(config, devices, launcher, &spec)?;
    start.net = net;
    start.limits.extend(held.map(ResourceLimit::LockedBytes));
    start.multi = loading.as_ref().and_then(Loading::multi);
    // A clone's kernel knows the rate.
    start.measures_ticks = loading.is_none();
    let started = start
        .run(|driver, host| args::command_line(spec, driver, host, cloned))
        .await?;
    let Started {
        sandbox,
        process,
        drains,
        mut events,
        socket,
        late,
        ..
    } = started;
    let template_port = match loading {
        Some(loading) => {
            let late = late.unwrap_or_default();
            Some(loading.go_on(&mut events, late, &config.limits).await?)
        }
        None => None,
    };
    let identity = process.identity();
    let state = QemuState {
        process: identity.map_err(|source| Error::Launch {
            sandbox: sandbox.clone(),
            source,
        })?,
        commands_socket: socket.path().to_owned(),
        agent,
        accelerator,
        hot_plug,
    };
    let keeper = Keeper {
        sandbox,
        process,
        events,
        drains,
        socket,
        _template_port: template_port,
    };
    keeper.keep(state, config.limits)
}

/// A QEMU that is to be started, for a VM or for a template.
pub(super) struct Start<'a> {
    config: &'a QemuConfig,
    devices: &'a HostDevices,
    launcher: &'a Launcher,
    sandbox: SandboxId,
    directory: PathBuf,
    accelerator: Accelerator,
    /// The most processors that it may ever have.
    vcpus: u32,
    logs: Logs,
    /// Whether it has a network namespace of its own.
    net: bool,
    limits: Vec<ResourceLimit>,
    /// Whether each processor is emulated on a thread of its own, where that is known.
    multi: Option<bool>,
    /// Whether the guest's kernel is to know how fast the time stamp counter counts.
    measures_ticks: bool,
}

/// A QEMU that answers.
pub(super) struct Started {
    pub(super) sandbox: SandboxId,
    pub(super) process: LaunchedProcess,
    pub(super) drains: Drains,
    pub(super) events: Qmp,
    pub(super) socket: SocketFile,
    pub(super) late: Option<Late>,
    /// Whether its processors are emulated on a thread each; nothing where it did not say what it is.
    pub(super) multi: Option<bool>,
}

impl<'a> Start<'a> {
    /// That of a machine whose guest boots.
    pub(super) fn of(
        config: &'a QemuConfig,
        devices: &'a HostDevices,
        launcher: &'a Launcher,
        spec: &VmSpec,
    ) -> Result<Self> {
        Ok(Self {
            config,
            devices,
            launcher,
            sandbox: spec.sandbox.clone(),
            directory: spec.directory.clone(),
            accelerator: spec.accelerator,
            vcpus: spec.growth().largest.vcpus,
            logs: Logs::open(spec).map_err(|source| Error::Host {
                attempt: "keep the VM's logs",
                sandbox: spec.sandbox.clone(),
                source,
            })?,
            net: true,
            limits: vec![ResourceLimit::CoreBytes(0)],
            multi: None,
            measures_ticks: true,
        })
    }

    /// Starts it with this command line, and waits for its greeting.
    pub(super) async fn run(
        self,
        line: impl FnOnce(DriverFds, HostPart<'_>) -> CommandLine,
    ) -> Result<Started> {
        let began = tick_rate::Reading::take().filter(|_| self.measures_ticks);
        let binary = self.config.find_binary()?;
        let firmware = self.config.find_firmware()?;
        let (sandbox, accelerator) = (self.sandbox, self.accelerator);
        let asked = self.multi.is_none().then(|| {
            let (vcpus, threads) = (self.vcpus, self.config.tcg_threads);
            let binary = binary.clone();
            spawn_blocking(move || accel::is_multi(accelerator, vcpus, threads, &binary))
        });
        let host = |attempt: &'static str| {
            let sandbox = sandbox.clone();
            move |source: io::Error| Error::Host {
                attempt,
                sandbox,
                source,
            }
        };
        let (socket, commands) =
            SocketFile::listen_in(&self.directory).map_err(host("make the command socket"))?;
        let (events, qemus_events) = stream_pair().map_err(host("make the event connection"))?;
        let (console, qemus_console) = pipe().map_err(host("make the console's pipe"))?;
        let (messages, qemus_messages) =
            pipe().map_err(host("make the pipe for QEMU's messages"))?;
        let driver = DriverFds {
            events: qemus_events,
            commands,
            console: qemus_console,
        };
        let multi = match asked {
            Some(asked) => {
                let multi = asked.await.map_err(io::Error::other);
                multi.map_err(host("ask QEMU for its version"))?
            }
            None => self.multi,
        };
        let tsc_khz = match began {
            Some(began) if accelerator == Accelerator::Tcg => {
                // Mostly over: QEMU was asked for its version meanwhile.
                tokio::time::sleep(began.rest_of_span()).await;
                tick_rate::Reading::take().and_then(|now| began.khz_until(now))
            }
            _ => None,
        };
        let kernel_params = accel::kernel_params(accelerator, self.devices, tsc_khz);
        let host_part = HostPart {
            firmware: &firmware,
            tcg: accel::Tcg {
                // One that does not say its version is taken for an old one: whatever is wrong with it, its launch
                // says better.
                multi: multi.unwrap_or(false),
                buffer_mib: self.config.tcg_buffer_mib,
            },
            kernel_params: &kernel_params,
        };
        let CommandLine {
            args,
            mut fds,
            late,
        } = line(driver, host_part);
        fds.push(PassedFd::output(qemus_messages));

        let mut process = LaunchSpec::new("QEMU", Program::Path(binary.display().to_string()));
        process.args = args;
        process.env = vec![("LC_ALL".into(), "C".into())];
        process.user = accel::user(self.config.user, accelerator, &self.devices.kvm);
        process.capabilities = Some(Vec::new());
        process.namespaces = Namespaces {
            net: self.net,
            ipc: true,
            uts: true,
            ..Namespaces::default()
        };
        process.limits = self.limits;
        let launched = self.launcher.launch(process, fds).await;
        let process = launched.map_err(|source| Error::Launch {
            sandbox: sandbox.clone(),
            source,
        })?;
        let starting = Starting {
            drains: self.logs.drain(&sandbox, console, messages),
            sandbox: sandbox.clone(),
            process,
        };
        let greeted = starting.greeted(events, self.config.limits.start).await?;
        let (process, drains, events) = greeted;
        debug!(%sandbox, pid = process.pid(), "QEMU answers");
        Ok(Started {
            sandbox,
            process,
            drains,
            events,
            socket,
            late,
            multi,
        })
    }
}

/// Bytes that a device of the host may hold for a guest beside its memory: the registers of devices,
/// which it maps too.
const HELD_BESIDE_BYTES: u64 = 1 << 30;

/// Bytes of memory that QEMU may hold, where the guest has a device of the host: all that the guest may
/// ever have.
fn held_bytes(spec: &VmSpec) -> Option<u64> {
    let passed = |nic: &Nic| matches!(nic.backend, NicBackend::Passed { .. });
    let memory = spec.growth().largest.memory.mib() << 20;
    spec.nics
        .iter()
        .any(passed)
        .then(|| memory.saturating_add(HELD_BESIDE_BYTES))
}

/// The logs of a VM that is not there yet.
struct Logs {
    console: BoundedLog,
    messages: BoundedLog,
    messages_file: File,
}

impl Logs {
    fn open(spec: &VmSpec) -> io::Result<Self> {
        Ok(Self {
            console: BoundedLog::new(spec.console_log.try_clone()?, CONSOLE_LOG_BYTES_MAX)?,
            messages: BoundedLog::new(spec.vmm_log.try_clone()?, PROCESS_LOG_BYTES_MAX)?,
            messages_file: spec.vmm_log.try_clone()?,
        })
    }

    fn drain(self, sandbox: &SandboxId, console: OwnedFd, messages: OwnedFd) -> Drains {
        let spawn = |pipe, log, source| -> JoinHandle<()> {
            tokio::spawn(drain(pipe, log, sandbox.clone(), source))
        };
        Drains {
            tasks: [
                spawn(console, self.console, "console"),
                spawn(messages, self.messages, "qemu"),
            ],
            messages: self.messages_file,
        }
    }
}

/// QEMU's process before its first answer.
struct Starting {
    sandbox: SandboxId,
    process: LaunchedProcess,
    drains: Drains,
}

impl Starting {
    async fn greeted(
        mut self,
        events: OwnedFd,
        limit: Duration,
    ) -> Result<(LaunchedProcess, Drains, Qmp)> {
        let handshake = async { Qmp::from_fd(events)?.handshake().await };
        let error = match timeout(limit, handshake).await {
            Ok(Ok(events)) => return Ok((self.process, self.drains, events)),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(Error::NoAnswer {
                    command: "qmp_capabilities",
                    limit,
                });
            }
        };
        // The connection was closed: as a rule because QEMU ends, and its messages say why.
        match timeout(END_LIMIT, super::keeper::ended(&mut self.process)).await {
            Ok(Ok(end)) => {
                self.drains.finish().await;
                Err(Error::EndedAtStart {
                    sandbox: self.sandbox,
                    end: self.drains.end_of(end, false, None),
                })
            }
            Ok(Err(_)) | Err(_) => Err(error),
        }
    }
}

pub(super) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// The reading and the writing end.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}
