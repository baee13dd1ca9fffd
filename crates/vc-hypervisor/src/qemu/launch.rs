use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::debug;
use vc_launch::{
    LaunchSpec, LaunchedProcess, Launcher, Namespaces, PassedFd, Program, ResourceLimit, User,
};
use vc_types::SandboxId;
use vc_types::limits::{CONSOLE_LOG_BYTES_MAX, PROCESS_LOG_BYTES_MAX};

use super::args::{self, CommandLine, DriverFds, HostPart};
use super::config::QemuConfig;
use super::keeper::{Drains, Keeper};
use super::qmp::Qmp;
use super::socket::SocketFile;
use super::state::QemuState;
use super::template::{self, Saved};
use super::vm::KeptVm;
use super::{CAPABILITIES, accel};
use crate::log::{BoundedLog, drain};
use crate::{
    Accelerator, Error, HostDevices, HotPlugRecord, Nic, NicBackend, Result, VmSpec, tick_rate,
};

/// How long a QEMU that closed its event connection may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Starts QEMU and waits for its greeting. Everything that is made on the way belongs to a value
/// that undoes it, so failing and being dropped are the same.
pub(super) async fn launch(
    config: &QemuConfig,
    devices: &HostDevices,
    launcher: &Launcher,
    mut spec: VmSpec,
) -> Result<KeptVm> {
    spec.check(&CAPABILITIES)?;
    let began = tick_rate::Reading::take();
    let binary = config.find_binary()?;
    let firmware = config.find_firmware()?;
    let sandbox = spec.sandbox.clone();
    let accelerator = spec.accelerator;
    let noted = spec.template.as_ref();
    let noted = noted.and_then(|saved| template::noted_threads(&saved.notes));
    let asked = noted.is_none().then(|| {
        let (vcpus, threads, binary) = (spec.vcpus, config.tcg_threads, binary.clone());
        spawn_blocking(move || accel::is_multi(accelerator, vcpus, threads, &binary))
    });
    // Its own network stack makes the guest's connections where the process is. All other devices
    // get descriptors that lead out of an empty namespace.
    let own_stack = |nic: &Nic| matches!(nic.backend, NicBackend::User { .. });
    let net = !spec.nics.iter().any(own_stack);
    let held = held_bytes(&spec);
    let agent = spec.vsock.agent_address();
    let hot_plug = HotPlugRecord::of(&spec);
    let host = |attempt: &'static str| {
        let sandbox = sandbox.clone();
        move |source: io::Error| Error::Host {
            attempt,
            sandbox,
            source,
        }
    };

    let logs = Logs::open(&spec.console_log, &spec.vmm_log).map_err(host("keep the VM's logs"))?;
    let saved = match &mut spec.template {
        Some(saved) => Some(Saved::take(saved).map_err(host("share what was saved"))?),
        None => None,
    };
    let (socket, commands) =
        SocketFile::listen_in(&spec.directory).map_err(host("make the command socket"))?;
    let (events, qemus_events) = stream_pair().map_err(host("make the event connection"))?;
    let (console, qemus_console) = pipe().map_err(host("make the console's pipe"))?;
    let (messages, qemus_messages) = pipe().map_err(host("make the pipe for QEMU's messages"))?;

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
        None => noted.unwrap_or_default(),
    };
    let tsc_khz = match began {
        // A clone's kernel knows the rate.
        Some(began) if accelerator == Accelerator::Tcg && saved.is_none() => {
            // Mostly over: QEMU was asked for its version meanwhile.
            tokio::time::sleep(began.rest_of_span()).await;
            tick_rate::Reading::take().and_then(|now| began.khz_until(now))
        }
        _ => None,
    };
    let kernel_params = accel::kernel_params(accelerator, devices, tsc_khz);
    let host_part = HostPart {
        firmware: &firmware,
        tcg: accel::Tcg {
            multi,
            buffer_mib: config.tcg_buffer_mib,
        },
        kernel_params: &kernel_params,
    };
    let (port, saved) = saved.map(Saved::into_parts).unzip();
    let CommandLine {
        args,
        mut fds,
        late,
    } = args::command_line(spec, driver, host_part, port);
    fds.push(PassedFd::output(qemus_messages));

    let user = accel::user(config.user, accelerator, &devices.kvm);
    let mut process = qemu_process(&binary, args, user, net);
    process.limits.extend(held.map(ResourceLimit::LockedBytes));

    let process = launcher
        .launch(process, fds)
        .await
        .map_err(|source| Error::Launch {
            sandbox: sandbox.clone(),
            source,
        })?;
    let drains = logs.drain(&sandbox, console, messages);
    let starting = Starting {
        sandbox: sandbox.clone(),
        process,
        drains,
    };
    let (process, drains, mut events) = starting.greeted(events, config.limits.start).await?;
    debug!(%sandbox, pid = process.pid(), "QEMU answers");
    let template_port = match saved {
        Some(saved) => {
            let late = late.unwrap_or_default();
            Some(saved.go_on(&mut events, late, &config.limits).await?)
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

/// How QEMU is started: as a user of its own, without any right, in namespaces of its own.
pub(super) fn qemu_process(
    binary: &Path,
    args: Vec<String>,
    user: Option<User>,
    net: bool,
) -> LaunchSpec {
    let mut process = LaunchSpec::new("QEMU", Program::Path(binary.display().to_string()));
    process.args = args;
    process.env = vec![("LC_ALL".into(), "C".into())];
    process.user = user;
    process.capabilities = Some(Vec::new());
    process.namespaces = Namespaces {
        net,
        ipc: true,
        uts: true,
        ..Namespaces::default()
    };
    process.limits = vec![ResourceLimit::CoreBytes(0)];
    process
}

/// Bytes that a device of the host may hold for a guest beside its memory: the registers of devices,
/// which it maps too.
const HELD_BESIDE_BYTES: u64 = 1 << 30;

/// Bytes of memory that QEMU may hold, where the guest has a device of the host: all of the guest's.
fn held_bytes(spec: &VmSpec) -> Option<u64> {
    let passed = |nic: &Nic| matches!(nic.backend, NicBackend::Passed { .. });
    let memory = spec.memory.mib() << 20;
    spec.nics
        .iter()
        .any(passed)
        .then(|| memory.saturating_add(HELD_BESIDE_BYTES))
}

/// The logs of a VM that is not there yet.
pub(super) struct Logs {
    console: BoundedLog,
    messages: BoundedLog,
    messages_file: File,
}

impl Logs {
    pub(super) fn open(console: &File, messages: &File) -> io::Result<Self> {
        Ok(Self {
            console: BoundedLog::new(console.try_clone()?, CONSOLE_LOG_BYTES_MAX)?,
            messages: BoundedLog::new(messages.try_clone()?, PROCESS_LOG_BYTES_MAX)?,
            messages_file: messages.try_clone()?,
        })
    }

    pub(super) fn drain(self, sandbox: &SandboxId, console: OwnedFd, messages: OwnedFd) -> Drains {
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
pub(super) struct Starting {
    pub(super) sandbox: SandboxId,
    pub(super) process: LaunchedProcess,
    pub(super) drains: Drains,
}

impl Starting {
    pub(super) async fn greeted(
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
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}
