//! What serves the devices of a floor's VM: the share's process, the vsock device and the scratch disk.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::machine::Machine;
use super::memory;
use crate::running::Running;

/// The guest's context id; each VM has a device of its own.
const GUEST_CID: u64 = 3;

/// The size of the scratch disk, sparse.
const SCRATCH_BYTES: u64 = 10 << 30;

/// How virtc formats its scratch disk (`vc-storage`, `OPTIONS`).
const FORMAT: &str = "-q -F -b 4096 -m 0 -i 16384 -G 256 \
    -O ^has_journal,^metadata_csum,^resize_inode \
    -E lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard";

/// The devices of one VM. They are dropped after it.
#[derive(Debug)]
pub(super) struct Devices {
    share: Option<Running>,
    vsock: Option<JoinHandle<vc_vsock_device::Result<()>>>,
    directory: TempDir,
}

impl Devices {
    /// What is there before a start: the disk, and the vsock device that waits for its VMM. The disk of
    /// a clone is a copy of its template's.
    pub(super) fn prepare(of_template: Option<&Path>) -> Result<Self> {
        let mut devices = Self {
            share: None,
            vsock: None,
            directory: tempfile::tempdir()?,
        };
        match of_template {
            Some(image) => copy(image, &devices.scratch())?,
            None => format(&devices.scratch())?,
        }
        let vsock = start_vsock(devices.directory.path(), &devices.vsock())?;
        devices.vsock = Some(vsock);
        Ok(devices)
    }

    /// Starts the process that serves `directory`, as a part of the start.
    pub(super) fn start_share(&mut self, machine: &Machine, directory: &Path) -> Result<()> {
        let listener = UnixListener::bind(self.share())?;
        let mut command = Command::new(&machine.share);
        command
            .args(machine.share_args(directory))
            .stdin(Stdio::from(OwnedFd::from(listener)));
        self.share = Some(Running::spawn(&mut command)?);
        Ok(())
    }

    /// The socket at which a call of the guest to the host's `port` arrives.
    pub(super) fn listen(&self, port: u32) -> Result<UnixListener> {
        Ok(UnixListener::bind(self.at(&format!("vsock.sock_{port}")))?)
    }

    /// Where the VMM finds the vsock device.
    pub(super) fn vsock(&self) -> PathBuf {
        self.at("vhost")
    }

    /// Where it finds the share's process.
    pub(super) fn share(&self) -> PathBuf {
        self.at("share")
    }

    /// The image of the scratch disk.
    pub(super) fn scratch(&self) -> PathBuf {
        self.at("scratch")
    }

    /// A place that goes with the devices.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.share = None;
        // The device ends with its VMM. One whose VMM never came takes this for it.
        let _ = UnixStream::connect(self.vsock());
        let _ = self.vsock.take().map(JoinHandle::join);
    }
}

/// The vsock device of virtc, in a thread.
fn start_vsock(
    directory: &Path,
    vhost_socket: &Path,
) -> Result<JoinHandle<vc_vsock_device::Result<()>>> {
    let options = vc_vsock_device::Options {
        vhost_socket: UnixListener::bind(vhost_socket)?.into(),
        host_socket: UnixListener::bind(directory.join("vsock.sock"))?.into(),
        upcall_dir: File::open(directory)?.into(),
        guest_cid: GUEST_CID,
    };
    let thread = std::thread::Builder::new().name("vsock".into());
    Ok(thread.spawn(move || vc_vsock_device::run(options))?)
}

fn copy(image: &Path, to: &Path) -> Result<()> {
    let (from, to) = (File::open(image)?, File::create_new(to)?);
    to.set_len(from.metadata()?.len())?;
    memory::copy(&from, &to).context("the copy of the scratch disk")
}

/// Makes a scratch disk.
pub(super) fn format(image: &Path) -> Result<()> {
    File::create(image)?.set_len(SCRATCH_BYTES)?;
    let status = Command::new("mkfs.ext4")
        .args(FORMAT.split_whitespace())
        .arg(image)
        .status()
        .context("mkfs.ext4")?;
    ensure!(status.success(), "mkfs.ext4 failed: {status}");
    Ok(())
}
