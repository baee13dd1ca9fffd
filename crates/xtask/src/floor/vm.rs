//! One VM of a floor, from its start to what it writes on its serial line.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::machine::{Machine, Replacement, Tap};

/// How long a start may take before the measurement is given up.
pub(super) const START_MAX: Duration = Duration::from_secs(60);

/// How long the VM may pause within a complaint.
const COMPLAINT_MAX: Duration = Duration::from_millis(500);

/// The guest's context id; each VM has a device of its own.
const GUEST_CID: u64 = 3;

/// The size of the scratch disk, sparse.
const SCRATCH_BYTES: u64 = 10 << 30;

/// How virtc formats its scratch disk (`vc-storage`, `format_spec`).
const FORMAT: &str = "-q -F -b 4096 -m 0 -i 16384 -G 256 \
    -O ^has_journal,^metadata_csum,^resize_inode \
    -E lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard";

/// A VM that runs, with the processes and the thread of its devices.
#[derive(Debug)]
pub(crate) struct Vm {
    vmm: Child,
    share: Child,
    vsock: Option<JoinHandle<vc_vsock_device::Result<()>>>,
    serial: UnixStream,
    /// When the first process was started.
    pub(super) begin: Instant,
    directory: TempDir,
}

impl Vm {
    /// Starts everything at once, as virtc does. The scratch disk is there before.
    pub(super) fn start(
        machine: &Machine,
        initrd: &Path,
        shared: &Path,
        parameters: &str,
        tap: Option<&Tap>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let (vsock_socket, share_socket, scratch) = (at("vhost"), at("share"), at("scratch"));
        format(&scratch)?;
        let vsock = start_vsock(directory.path(), &vsock_socket)?;
        let share_listener = UnixListener::bind(&share_socket)?;
        let (serial, theirs) = UnixStream::pair()?;
        serial.set_read_timeout(Some(START_MAX))?;
        let args = machine.vmm_args(&Replacement {
            initrd,
            vsock: &vsock_socket,
            share: &share_socket,
            scratch: &scratch,
            parameters,
            tap,
        })?;

        let begin = Instant::now();
        let mut share = Command::new(&machine.share)
            .args(machine.share_args(shared))
            .stdin(Stdio::from(OwnedFd::from(share_listener)))
            .spawn()
            .with_context(|| machine.share.display().to_string())?;
        let mut vmm = match tap {
            None => Command::new(&machine.vmm),
            Some(tap) => tap.command(&machine.vmm),
        };
        let vmm = vmm
            .args(args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn();
        let vmm = match vmm {
            Ok(vmm) => vmm,
            Err(error) => {
                end(&mut share);
                return Err(error).context(machine.vmm.display().to_string());
            }
        };
        Ok(Self {
            vmm,
            share,
            vsock: Some(vsock),
            serial,
            begin,
            directory,
        })
    }

    /// How long the VM took to its first byte on the serial line.
    pub(super) fn first_byte(&mut self) -> Result<Duration> {
        let mut text = vec![0; 4096];
        match self.serial.read(&mut text) {
            Ok(0) => bail!("the VM ended before it wrote anything"),
            Ok(n) => {
                let time = self.begin.elapsed();
                text.truncate(n);
                let complaint = is_complaint(&text);
                ensure!(!complaint, "the VM wrote {:?}", self.complaint(text));
                Ok(time)
            }
            Err(e) if is_timeout(&e) => {
                bail!("the VM wrote nothing within {} s", START_MAX.as_secs())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The socket at which a call of the guest to the host's `port` arrives.
    pub(super) fn listen(&self, port: u32) -> Result<UnixListener> {
        let listener =
            UnixListener::bind(self.directory.path().join(format!("vsock.sock_{port}")))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Waits for a call of the guest.
    pub(super) fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream> {
        let deadline = Instant::now() + START_MAX;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(START_MAX))?;
                    stream.set_write_timeout(Some(START_MAX))?;
                    return Ok(stream);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    let ended = self.vmm.try_wait()?.is_some();
                    ensure!(!ended, "the VM wrote {:?}", self.complaint(Vec::new()));
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(e) => return Err(e).context("the VM did not call"),
            }
        }
    }

    /// Ends the VM as virtc does, by a signal; the time until the VMM is reaped.
    pub(super) fn end(mut self) -> Duration {
        let begin = Instant::now();
        end(&mut self.vmm);
        begin.elapsed()
    }

    /// The text and what follows it within a moment.
    fn complaint(&mut self, mut text: Vec<u8>) -> String {
        let _ = self.serial.set_read_timeout(Some(COMPLAINT_MAX));
        let mut more = vec![0; 4096];
        while let Ok(n @ 1..) = self.serial.read(&mut more)
            && text.len() < more.len()
        {
            text.extend_from_slice(&more[..n]);
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        end(&mut self.vmm);
        end(&mut self.share);
        // The device ends with its VMM.
        let _ = self.vsock.take().map(JoinHandle::join);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
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

fn format(image: &Path) -> Result<()> {
    File::create(image)?.set_len(SCRATCH_BYTES)?;
    let status = Command::new("mkfs.ext4")
        .args(FORMAT.split_whitespace())
        .arg(image)
        .status()
        .context("mkfs.ext4")?;
    ensure!(status.success(), "mkfs.ext4 failed: {status}");
    Ok(())
}

/// Init names itself before what failed, and the kernel writes nothing but what ends it.
fn is_complaint(text: &[u8]) -> bool {
    text.starts_with(b"floor: ") || text.starts_with(b"[")
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
