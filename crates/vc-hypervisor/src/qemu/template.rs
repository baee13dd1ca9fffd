//! Templates: a guest that has booted is saved, and VMs go on from there.
//!
//! ```text
//! make:   QEMU boots ─▶ the guest says on its second serial port that it waits
//!                    ─▶ stop, save the devices' state; the memory is in its file already
//! launch: QEMU with a copy of the memory ─▶ load the state ─▶ a line to the guest ─▶ go on
//!                    (a seed, and where to look for the devices that its template had not)
//! ```
//!
//! QEMU 7.2 saves no file system and no vsock device that another process serves, and loads no state
//! while it has one. So a template has none of them, and a clone gets them in between, with its disks, all
//! at one root port; unless the guest knows such devices by their class: then they are block devices to
//! QEMU, which it saves, and a clone has them from its start as its template has, for which
//! [`StandIns`] answer. Its scratch disk is its template's, too: a copy of the image belongs to the copy of
//! the memory. Network devices that can be unplugged come then too, each at its own port; the others a clone has
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
use tokio::time::timeout;
use tracing::{debug, warn};
use vc_launch::Launcher;
use vc_types::BootId;

use super::args::{CommandLine, Machine, TemplateFds};
use super::config::{QemuConfig, QemuLimits};
use super::late::{DEVICES_MAX, Late};
use super::launch::{Start, Started, stream_pair};
use super::qmp::Qmp;
use super::stand_in::StandIns;
use super::{CAPABILITIES, accel, keeper};
use crate::{Error, HostDevices, Nic, NicBackend, Result, SavedVm, TemplateFiles, VmSpec, Vsock};

/// What the guest of a template says when it waits.
const WAITS: u8 = b'T';

/// What it says where it could not rehearse a container.
const WAITS_UNREHEARSED: u8 = b't';

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
    let scratch = spec.disk_of_template();
    let by_class = spec.serves_by_class();
    let served_late = match by_class {
        true => 0,
        // The vsock device is one too.
        false => 1 + spec.shares.len(),
    };
    let late = served_late + spec.disks.len() - usize::from(scratch.is_some());
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
        format!("largest {}", spec.growth().largest),
        format!("root ports {}", spec.root_ports),
    ];
    if let Some((index, disk)) = scratch {
        let image = File::from(disk.image.try_clone().map_err(host)?);
        let bytes = image.metadata().map_err(host)?.len();
        parts.push(format!("disk {index} {} {bytes}", disk.serial));
    }
    if by_class {
        let tags: Vec<_> = spec.shares.iter().map(|share| share.tag.as_str()).collect();
        parts.push(format!("shares {}", tags.join(" ")));
    }
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

/// Boots a guest and saves it, and says what a clone need not ask again. The VMM is gone when this
/// returns or is dropped.
pub(super) async fn make(
    config: &QemuConfig,
    devices: &HostDevices,
    launcher: &Launcher,
    like: &VmSpec,
    files: TemplateFiles,
    boot_limit: Duration,
) -> Result<String> {
    let host = |attempt: &'static str| {
        let sandbox = like.sandbox.clone();
        move |source: io::Error| Error::Host {
            attempt,
            sandbox,
            source,
        }
    };
    let (port, qemus_port) = stream_pair().map_err(host("make the template's port"))?;
    let mut port = async_stream(port).map_err(host("use the template's port"))?;
    let fds = TemplateFds {
        memory: files.memory,
        port: qemus_port,
    };
    let tags = like.shares.iter().map(|share| share.tag.as_str());
    let by_class = like.serves_by_class().then(|| StandIns::begin(tags));
    let by_class = by_class.transpose();
    let (_stand_ins, served) = by_class.map_err(host("stand in for devices"))?.unzip();
    let machine = Machine::template_for(like, fds, files.scratch, served);
    let machine = machine.map_err(host("share what a template is booted with"))?;
    let start = Start::of(config, devices, launcher, like)?;
    let started = start.run(|driver, host| CommandLine::of(machine, driver, host));
    let Started {
        sandbox,
        mut process,
        mut drains,
        mut events,
        socket: _socket,
        multi,
        ..
    } = started.await?;
    let saved = async {
        wait_for_guest(&mut port, boot_limit).await?;
        save(&mut events, files.state.as_fd(), &config.limits).await?;
        let notes = multi.map(|multi| if multi { MULTI } else { SINGLE });
        // Where it is not known, each clone asks for itself.
        Ok(notes.unwrap_or_default().to_owned())
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
        Err(source) => host("watch QEMU")(source),
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
        Ok(Ok(_)) if said == [WAITS_UNREHEARSED] => {
            warn!("the template's guest could not rehearse a container; VMs from it are slower");
            Ok(())
        }
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

/// The state that a QEMU is to load, and the port at which its guest waits.
#[derive(Debug)]
pub(super) struct Loading {
    state: OwnedFd,
    port: OwnedFd,
    filled: Filled,
    notes: String,
}

impl Loading {
    /// What QEMU gets at its start, and what is done once it runs.
    pub(super) fn begin(saved: SavedVm) -> io::Result<(TemplateFds, Self)> {
        let (port, qemus_port) = stream_pair()?;
        let fds = TemplateFds {
            memory: saved.memory,
            port: qemus_port,
        };
        let loading = Self {
            state: saved.state,
            port,
            filled: saved.filled,
            notes: saved.notes,
        };
        Ok((fds, loading))
    }

    /// Whether the processors of the template were emulated on a thread each.
    pub(super) fn multi(&self) -> Option<bool> {
        match self.notes.as_str() {
            MULTI => Some(true),
            SINGLE => Some(false),
            _ => None,
        }
    }

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
        let failed = |reason: String| Error::MemoryCopy { reason };
        match filled {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::InvalidData => {
                let reason = format!("its memory cannot be read: {error}");
                return Err(Error::Template { reason });
            }
            Ok(Ok(Err(error))) => {
                return Err(failed(error.to_string()));
            }
            Ok(Err(_)) => return Err(failed("it was given up".into())),
            Err(_) => {
                let limit = limits.start;
                return Err(failed(format!("it is not there within {limit:?}")));
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

pub(super) fn async_stream(fd: OwnedFd) -> io::Result<UnixStream> {
    let stream = StdUnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ServedTypes, Share, mock};

    /// The key of a VM with these shares.
    fn key_of(served_types: ServedTypes, tags: &[&str]) -> String {
        let program = std::env::current_exe().unwrap();
        let config = QemuConfig {
            binary: Some(program.clone()),
            firmware: Some(program),
            ..QemuConfig::default()
        };
        let mut spec = mock::spec("web1").unwrap();
        spec.served_types = served_types;
        let share = |tag: &&str| Share {
            tag: (*tag).to_owned(),
            socket: mock::null().unwrap(),
        };
        spec.shares = tags.iter().map(share).collect();
        let key = key(&config, &HostDevices::default(), &spec).unwrap();
        key.unwrap()
    }

    #[test]
    fn shares_make_another_template_where_it_has_them() {
        use ServedTypes::{ByClass, ByNumber};
        assert_eq!(key_of(ByNumber, &["a"]), key_of(ByNumber, &["b", "c"]));
        let keys = [
            key_of(ByNumber, &["a", "b"]),
            key_of(ByClass, &["a", "b"]),
            key_of(ByClass, &["b", "a"]),
            key_of(ByClass, &["a"]),
            key_of(ByClass, &[]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{key}");
        }
    }

    #[test]
    fn whatever_a_template_is_made_of_makes_another_one_when_it_changes() {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = QemuConfig {
            binary: Some(write("qemu", "a")),
            firmware: Some(write("firmware", "a")),
            ..QemuConfig::default()
        };
        let open = |name: &str| OwnedFd::from(File::open(files.path().join(name)).unwrap());
        write("kernel", "a");
        write("initrd", "a");
        let key_with = |change: &dyn Fn(&mut VmSpec)| {
            let mut spec = mock::spec("web1").unwrap();
            (spec.kernel, spec.initrd) = (open("kernel"), open("initrd"));
            change(&mut spec);
            let key = key(&config, &HostDevices::default(), &spec).unwrap();
            key.unwrap()
        };
        let unchanged = || key_with(&|_| ());
        let mut keys = vec![unchanged()];
        assert_eq!(unchanged(), keys[0]);
        let changes: [&dyn Fn(&mut VmSpec); 4] = [
            &|spec| spec.vcpus += 1,
            &|spec| spec.memory = vc_types::ByteSize::from_mib(1536),
            &|spec| spec.root_ports += 1,
            &|spec| spec.kernel_params.push("quiet".into()),
        ];
        keys.extend(changes.map(key_with));
        // In its place, as an upgrade of a package writes it.
        for name in ["qemu", "firmware", "kernel", "initrd"] {
            write(name, "another one");
            keys.push(unchanged());
        }
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{key}");
        }
    }
}
