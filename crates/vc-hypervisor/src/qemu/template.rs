//! Templates: a guest that has booted is saved, and VMs go on from there.
//!
//! ```text
//! make:   QEMU boots ─▶ the guest says on its second serial port that it waits
//!                    ─▶ stop, save the devices' state; the memory is in its file already
//! launch: QEMU with a copy of the memory ─▶ load the state ─▶ a line to the guest ─▶ go on
//!                    (a seed, and where to look for the devices that its template had not)
//! ```
//!
//! QEMU 7.2 saves no device that another process serves, and loads no state while it has one. So a
//! template has none of them, and a clone gets them in between, with its disks, all at one root port.
//! Network devices that can be unplugged come then too, each at its own port; the others a clone has
//! from its start.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use qapi::qmp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::debug;
use vc_launch::{Launcher, PassedFd};
use vc_types::BootId;

use super::args::{CommandLine, DriverFds, HostPart, Machine};
use super::config::{QemuConfig, QemuLimits};
use super::late::{DEVICES_MAX, Late};
use super::launch::{Logs, Starting, pipe, qemu_process, stream_pair};
use super::qmp::Qmp;
use super::socket::SocketFile;
use super::{CAPABILITIES, accel, keeper};
use crate::{
    Accelerator, Error, HostDevices, Nic, NicBackend, Result, SavedVm, TemplateSpec, VmSpec, Vsock,
    tick_rate,
};

/// What the guest of a template says when it waits.
const WAITS: u8 = b'T';

/// Says when a clone's memory is complete.
type Filled = oneshot::Receiver<io::Result<()>>;

/// What QEMU calls the descriptor of the state.
const STATE: &str = "state";

/// How long saving or loading the devices' state may take. It is some hundred kilobytes.
const STATE_LIMIT: Duration = Duration::from_secs(10);

/// What is noted of a template: whether its processors are emulated on a thread each.
const MULTI: &str = "threads=multi";
const SINGLE: &str = "threads=single";

/// All that a template is made of from which `spec` can go on: a change of any makes another one.
///
/// Nothing where a clone could not have what is asked for.
pub(super) fn key(
    config: &QemuConfig,
    devices: &HostDevices,
    spec: &VmSpec,
) -> Result<Option<String>> {
    let passed = |nic: &Nic| matches!(nic.backend, NicBackend::Passed { .. });
    // One that cannot be costs no boot of a template.
    spec.check(&CAPABILITIES)?;
    // The vsock device is one too.
    let late = 1 + spec.disks.len() + spec.shares.len();
    let served = matches!(spec.vsock, Vsock::VhostUser { .. });
    if late > DEVICES_MAX || !served || spec.nics.iter().any(passed) {
        return Ok(None);
    }
    let host = |source| Error::Host {
        attempt: "look at what a template is made of",
        sandbox: spec.sandbox.clone(),
        source,
    };
    let of_path = |path: &Path| -> Result<String> {
        let file = std::fs::metadata(path).map_err(host)?;
        Ok(format!("{} {}", path.display(), identity(&file)))
    };
    let of_fd = |fd: &OwnedFd| -> Result<String> {
        let file = File::from(fd.try_clone().map_err(host)?);
        Ok(identity(&file.metadata().map_err(host)?))
    };
    let boot = BootId::current().map_err(Error::Types)?;
    let mut parts = vec![
        // What one QEMU executes of the instructions of one processor.
        format!("boot {boot}"),
        format!("qemu {}", of_path(&config.find_binary()?)?),
        format!("firmware {}", of_path(&config.find_firmware()?)?),
        format!("kernel {}", of_fd(&spec.kernel)?),
        format!("initrd {}", of_fd(&spec.initrd)?),
        format!("accelerator {}", spec.accelerator),
        format!("tcg {:?} {}", config.tcg_threads, config.tcg_buffer_mib),
        format!("vcpus {}", spec.vcpus),
        format!("memory {}", spec.memory.mib()),
        format!("root ports {}", spec.root_ports),
    ];
    parts.extend(accel::kernel_params(spec.accelerator, devices, None));
    parts.extend(spec.kernel_params.iter().cloned());
    Ok(Some(parts.join("\n")))
}

/// By which a file that was replaced or changed is another one.
fn identity(file: &Metadata) -> String {
    format!(
        "{}:{} {} {}.{:09} {}.{:09}",
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec()
    )
}

/// What is known from making a template, so that a clone need not ask.
fn notes(multi: bool) -> String {
    let threads = if multi { MULTI } else { SINGLE };
    threads.to_owned()
}

/// Whether the processors of this template are emulated on a thread each.
pub(super) fn noted_threads(notes: &str) -> Option<bool> {
    match notes {
        MULTI => Some(true),
        SINGLE => Some(false),
        _ => None,
    }
}

/// Boots a guest and saves it. The VMM is gone when this returns or is dropped.
pub(super) async fn make(
    config: &QemuConfig,
    devices: &HostDevices,
    launcher: &Launcher,
    directory: &Path,
    spec: TemplateSpec,
) -> Result<String> {
    let began = tick_rate::Reading::take();
    let binary = config.find_binary()?;
    let firmware = config.find_firmware()?;
    let sandbox = spec.sandbox.clone();
    let accelerator = spec.accelerator;
    let host = |attempt: &'static str| {
        let sandbox = sandbox.clone();
        move |source: io::Error| Error::Host {
            attempt,
            sandbox,
            source,
        }
    };
    let multi = {
        let (vcpus, threads, binary) = (spec.vcpus, config.tcg_threads, binary.clone());
        spawn_blocking(move || accel::is_multi(accelerator, vcpus, threads, &binary))
    };
    let multi = multi.await.map_err(io::Error::other);
    let multi = multi.map_err(host("ask QEMU for its version"))?;
    let tsc_khz = match began {
        Some(began) if accelerator == Accelerator::Tcg => {
            tokio::time::sleep(began.rest_of_span()).await;
            tick_rate::Reading::take().and_then(|now| began.khz_until(now))
        }
        _ => None,
    };
    let logs = Logs::open(&spec.console_log, &spec.vmm_log).map_err(host("keep the VM's logs"))?;
    let (_socket, commands) =
        SocketFile::listen_in(directory).map_err(host("make the command socket"))?;
    let (events, qemus_events) = stream_pair().map_err(host("make the event connection"))?;
    let (console, qemus_console) = pipe().map_err(host("make the console's pipe"))?;
    let (messages, qemus_messages) = pipe().map_err(host("make the pipe for QEMU's messages"))?;
    let (port, qemus_port) = stream_pair().map_err(host("make the template's port"))?;
    let mut port = async_stream(port).map_err(host("use the template's port"))?;

    let kernel_params = accel::kernel_params(accelerator, devices, tsc_khz);
    let machine = Machine {
        sandbox: sandbox.clone(),
        accelerator,
        vcpus: spec.vcpus,
        memory: spec.memory,
        memory_file: Some(spec.memory_file),
        kernel: spec.kernel,
        initrd: spec.initrd,
        kernel_params: spec.kernel_params,
        root_ports: spec.root_ports,
        template_port: Some(qemus_port),
    };
    let driver = DriverFds {
        events: qemus_events,
        commands,
        console: qemus_console,
    };
    let host_part = HostPart {
        firmware: &firmware,
        tcg: accel::Tcg {
            multi,
            buffer_mib: config.tcg_buffer_mib,
        },
        kernel_params: &kernel_params,
    };
    let mut line = CommandLine::of(machine, driver, host_part);
    line.fds.push(PassedFd::output(qemus_messages));
    let user = accel::user(config.user, accelerator, &devices.kvm);
    let process = qemu_process(&binary, line.args, user, true);
    let launched = launcher.launch(process, line.fds).await;
    let process = launched.map_err(|source| Error::Launch {
        sandbox: sandbox.clone(),
        source,
    })?;
    let starting = Starting {
        sandbox: sandbox.clone(),
        process,
        drains: logs.drain(&sandbox, console, messages),
    };
    let greeted = starting.greeted(events, config.limits.start).await?;
    let (mut process, mut drains, mut events) = greeted;
    let saved = async {
        wait_for_guest(&mut port, spec.boot_limit).await?;
        save(&mut events, spec.state_file.as_fd(), &config.limits).await?;
        Ok(notes(multi))
    };
    let end = tokio::select! {
        saved = saved => return saved,
        end = keeper::ended(&mut process) => end,
    };
    drains.finish().await;
    Err(match end {
        Ok(end) => Error::EndedAtStart {
            end: drains.end_of(end, false, None),
            sandbox,
        },
        Err(source) => Error::Host {
            attempt: "watch QEMU",
            sandbox,
            source,
        },
    })
}

async fn wait_for_guest(port: &mut UnixStream, limit: Duration) -> Result<()> {
    let mut said = [0; 1];
    let read = timeout(limit, port.read_exact(&mut said)).await;
    let broken = |reason: &str| Error::Template {
        reason: reason.to_owned(),
    };
    match read {
        Ok(Ok(_)) if said == [WAITS] => Ok(()),
        Ok(Ok(_)) => Err(broken("the guest says something else than that it waits")),
        Ok(Err(_)) => Err(broken("the VMM closed the guest's port")),
        Err(_) => Err(broken(&format!("the guest does not wait within {limit:?}"))),
    }
}

async fn save(qmp: &mut Qmp, state: BorrowedFd<'_>, limits: &QemuLimits) -> Result<()> {
    qmp.execute(qmp::stop {}, limits.command).await?;
    prepare(qmp, state, limits).await?;
    let command = qmp::migrate {
        channels: None,
        detach: None,
        resume: None,
        uri: Some(format!("fd:{STATE}")),
    };
    qmp.execute(command, limits.command).await?;
    over(qmp, "migrate", "saving the state failed").await
}

/// The memory is in a file that both have, so only the state of the devices passes.
async fn prepare(qmp: &mut Qmp, state: BorrowedFd<'_>, limits: &QemuLimits) -> Result<()> {
    use qmp::MigrationCapability::{events, x_ignore_shared};
    let capabilities = [x_ignore_shared, events].map(|capability| qmp::MigrationCapabilityStatus {
        capability,
        state: true,
    });
    let command = qmp::migrate_set_capabilities {
        capabilities: capabilities.into(),
    };
    qmp.execute(command, limits.command).await?;
    let command = qmp::getfd {
        fdname: STATE.into(),
    };
    let passed = qmp.try_execute(command, &[state], limits.command).await?;
    passed.map(drop).map_err(|refusal| refusal.of("getfd"))
}

async fn over(qmp: &mut Qmp, command: &'static str, failed: &str) -> Result<()> {
    match qmp.migrated(command, STATE_LIMIT).await? {
        true => Ok(()),
        false => Err(Error::Template {
            reason: failed.into(),
        }),
    }
}

/// What a clone goes on with once its QEMU runs.
#[derive(Debug)]
pub(super) struct Saved {
    state: OwnedFd,
    port: OwnedFd,
    qemus_port: OwnedFd,
    filled: Filled,
}

impl Saved {
    /// Takes out of `saved` all but the memory.
    pub(super) fn take(saved: &mut SavedVm) -> io::Result<Self> {
        let (port, qemus_port) = stream_pair()?;
        Ok(Self {
            state: saved.state.try_clone()?,
            filled: std::mem::replace(&mut saved.filled, oneshot::channel().1),
            port,
            qemus_port,
        })
    }

    /// QEMU's end of the port, and what is done with the other.
    pub(super) fn into_parts(self) -> (OwnedFd, Loading) {
        let loading = Loading {
            state: self.state,
            port: self.port,
            filled: self.filled,
        };
        (self.qemus_port, loading)
    }
}

/// The state that a QEMU is to load, and the port at which its guest waits.
#[derive(Debug)]
pub(super) struct Loading {
    state: OwnedFd,
    port: OwnedFd,
    filled: Filled,
}

impl Loading {
    /// Loads the state and lets the guest go on. Gives its port, which has to stay open: QEMU takes
    /// from it as the guest reads, and nothing any more once it is closed.
    pub(super) async fn go_on(
        self,
        qmp: &mut Qmp,
        late: Late,
        limits: &QemuLimits,
    ) -> Result<UnixStream> {
        prepare(qmp, self.state.as_fd(), limits).await?;
        // The machine has mapped its memory; nothing of it was read so far.
        let filled = timeout(limits.start, self.filled).await;
        let failed = |reason: String| Error::Template { reason };
        match filled {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                return Err(failed(format!("copying the memory failed: {error}")));
            }
            Ok(Err(_)) => return Err(failed("copying the memory was given up".into())),
            Err(_) => {
                let limit = limits.start;
                return Err(failed(format!(
                    "its memory was not copied within {limit:?}"
                )));
            }
        }
        let command = qmp::migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: Some(format!("fd:{STATE}")),
        };
        qmp.execute(command, limits.command).await?;
        over(qmp, "migrate-incoming", "loading the state failed").await?;
        let line = late.hand_over_line().map_err(|source| Error::Connection {
            command: "the template's port",
            source,
        })?;
        for command in late.commands() {
            qmp.execute(command, limits.command).await?;
        }
        // Taken once the processors run.
        let told = async {
            let mut port = async_stream(self.port)?;
            port.write_all(line.as_bytes()).await?;
            Ok(port)
        };
        let port = told.await.map_err(|source| Error::Connection {
            command: "the template's port",
            source,
        })?;
        qmp.execute(qmp::cont {}, limits.command).await?;
        debug!("the clone goes on");
        Ok(port)
    }
}

fn async_stream(fd: OwnedFd) -> io::Result<UnixStream> {
    let stream = StdUnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
