//! One VM of a floor, from its start to the first byte on its serial line.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use guest_image::GuestAssets;

/// The share's tag.
pub(super) const TAG: &str = "virtc-system";

/// How long a start may take before the measurement is given up.
const START_MAX: Duration = Duration::from_secs(60);

/// How long the VM may pause within a complaint.
const COMPLAINT_MAX: Duration = Duration::from_millis(500);

/// How long virtiofsd may take to listen.
const LISTEN_MAX: Duration = Duration::from_secs(5);

/// The kernel's parameters, as virtc gives them under emulation.
const KERNEL_PARAMETERS: &str = "console=ttyS0 quiet loglevel=1 panic=-1 cryptomgr.notests \
    no_timer_check nowatchdog tsc=reliable lpj=10000000 8250.nr_uarts=1 lsm=landlock,yama audit=0 \
    initcall_blacklist=cubictcp_register,init_blk_tracer,crypto_kdf108_init,crc_t10dif_mod_init,\
crc64_rocksoft_mod_init,load_system_certificate_list";

/// A VM to start.
#[derive(Debug)]
pub(super) struct Vm<'a> {
    pub(super) assets: &'a GuestAssets,
    pub(super) initrd: &'a Path,
    /// What the floor's init is to do.
    pub(super) arguments: String,
    pub(super) share: Option<Share<'a>>,
}

/// A directory that is served to the guest.
#[derive(Debug)]
pub(super) struct Share<'a> {
    pub(super) virtiofsd: &'a Path,
    pub(super) root: &'a Path,
    pub(super) work: &'a Path,
}

/// A child that does not outlive the measurement.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Vm<'_> {
    /// Starts the VM, and the share at the same moment; ends both at the first byte.
    pub(super) fn time_to_first_byte(&self) -> Result<Duration> {
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(START_MAX))?;
        let start = Instant::now();
        let _share = self.share.as_ref().map(Share::start).transpose()?;
        let _vm = Running(self.command(theirs).spawn().context("qemu-system-x86_64")?);
        let mut text = vec![0; 4096];
        match ours.read(&mut text) {
            Ok(0) => bail!("the VM ended before it wrote anything"),
            Ok(n) => {
                let time = start.elapsed();
                text.truncate(n);
                if !is_expected(&text) {
                    bail!("the VM wrote {:?}", complaint(text, ours));
                }
                Ok(time)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("the VM wrote nothing within {} s", START_MAX.as_secs())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn command(&self, serial: UnixStream) -> Command {
        let parameters = format!(
            "{KERNEL_PARAMETERS} rdinit=/{} -- {}",
            super::INIT,
            self.arguments
        );
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args([
                "-accel",
                "tcg,thread=multi,tb-size=128",
                "-cpu",
                "max,-erms",
                "-smp",
                "2",
            ])
            .args([
                "-m",
                "1024M",
                "-object",
                "memory-backend-memfd,id=memory,size=1024M,share=on",
            ])
            .arg("-machine")
            .arg(
                "q35,memory-backend=memory,usb=off,smbus=off,sata=off,smm=off,graphics=off,\
                 i8042=off,hpet=off,dump-guest-core=off",
            )
            .args(["-bios", "qboot.rom", "-device", "virtio-rng-pci"])
            .arg("-kernel")
            .arg(self.assets.vmlinux())
            .arg("-initrd")
            .arg(self.initrd)
            .args(["-append", &parameters])
            .args([
                "-chardev",
                "socket,id=serial,fd=0",
                "-serial",
                "chardev:serial",
            ])
            .stdin(Stdio::from(OwnedFd::from(serial)));
        if let Some(share) = &self.share {
            let device = format!("vhost-user-fs-pci,chardev=share,tag={TAG}");
            let socket = format!("socket,id=share,path={}", share.socket().display());
            command.args(["-chardev", &socket, "-device", &device]);
        }
        command
    }
}

impl Share<'_> {
    fn socket(&self) -> std::path::PathBuf {
        self.work.join("share.sock")
    }

    fn start(&self) -> Result<Running> {
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let child = Command::new(self.virtiofsd)
            .args([
                "--sandbox",
                "none",
                "--log-level",
                "error",
                "--cache",
                "auto",
            ])
            .arg("--socket-path")
            .arg(&socket)
            .arg("--shared-dir")
            .arg(self.root)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| self.virtiofsd.display().to_string())?;
        let running = Running(child);
        let begin = Instant::now();
        while !socket.exists() {
            if begin.elapsed() > LISTEN_MAX {
                bail!("virtiofsd does not listen after {} s", LISTEN_MAX.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(running)
    }
}

/// Init names itself before what failed, and the kernel writes nothing but what ends it.
fn is_expected(text: &[u8]) -> bool {
    !text.starts_with(b"floor: ") && !text.starts_with(b"[")
}

/// The text and what follows it within a moment.
fn complaint(mut text: Vec<u8>, mut serial: UnixStream) -> String {
    let _ = serial.set_read_timeout(Some(COMPLAINT_MAX));
    let mut more = vec![0; 4096];
    while let Ok(n @ 1..) = serial.read(&mut more)
        && text.len() < more.len()
    {
        text.extend_from_slice(&more[..n]);
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}
