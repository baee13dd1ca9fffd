//! The floors: F1, the bare VM until the modules of its start are loaded; F2, the same, then the
//! root of a share and an overlay, and the first byte of a static program in it; and what one
//! connection carries when nothing but a loop is at its end.
//!
//! F2 of a bare clone is that of a VM that goes on from a template of its own: see [`Template`].
//!
//! In place of the agent runs `bench/floor/init.c`, which is added to the same initrd. What it
//! writes comes over the serial line.

mod clone;
mod command_line;
mod devices;
mod late;
mod machine;
mod memory;
mod own_types;
mod qmp;
mod serial;
mod sockets;
mod template;
mod vm;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guest_image::build::cpio::{Archive, Entry};

use crate::stream::{Rates, receive, send};
pub(crate) use machine::{Machine, Tap};
pub(crate) use template::Template;
pub(crate) use vm::Vm;

/// The floor's init in the initrd.
const INIT: &str = "floor";

/// The host's port that the guest streams to.
const PORT: u32 = 1;

/// Everything that the floors have in common.
#[derive(Debug)]
pub(crate) struct Floor {
    machine: Machine,
    initrd: PathBuf,
    /// What is shared, and the root in it.
    shared: PathBuf,
    root: String,
    tap: Option<Tap>,
}

impl Floor {
    /// Makes the floor of `machine`: init from its `source` in C, the root `shared`/`root`.
    pub(crate) fn make(
        machine: Machine,
        source: &Path,
        shared: &Path,
        root: &str,
        work: &Path,
    ) -> Result<Self> {
        let initrd = add_init(&machine.initrd, source, work)?;
        Ok(Self {
            machine,
            initrd,
            shared: shared.into(),
            root: root.into(),
            tap: None,
        })
    }

    /// The same with a tap for its one network device.
    pub(crate) fn with_tap(self, tap: Tap) -> Self {
        Self {
            tap: Some(tap),
            ..self
        }
    }

    /// A VM with a network whose program has said something on its standard output.
    pub(crate) fn serve(&self, program: &[&str]) -> Result<Vm> {
        let tag = self.machine.share_tag()?;
        let arguments = format!("net {tag} {} {}", self.root, program.join(" "));
        let mut vm = self.start(&arguments)?;
        vm.first_byte().context("the bare VM's servers")?;
        Ok(vm)
    }

    /// F1, and how long the VMM then takes to end.
    pub(crate) fn ready(&self) -> Result<(Duration, Duration)> {
        let mut vm = self.start("ready")?;
        let ready = vm.first_byte().context("F1")?;
        Ok((ready, vm.end()))
    }

    /// F2.
    pub(crate) fn program(&self, program: &[&str]) -> Result<Duration> {
        let tag = self.machine.share_tag()?;
        let arguments = format!("run {tag} {} {}", self.root, program.join(" "));
        self.start(&arguments)?.first_byte().context("F2")
    }

    /// How fast `bytes` go each way.
    pub(crate) fn stream(&self, bytes: u64) -> Result<Rates> {
        let mut vm = self.start(&format!("stream {PORT} {bytes}"))?;
        let listener = vm.listen(PORT)?;
        let mut from_guest = vm.accept(&listener)?;
        let out = receive(&mut from_guest, bytes).context("out of the bare VM")?;
        let mut to_guest = vm.accept(&listener)?;
        let begin = std::time::Instant::now();
        send(&mut to_guest, bytes).context("into the bare VM")?;
        to_guest.shutdown(std::net::Shutdown::Write)?;
        to_guest.read_exact(&mut [0])?;
        Ok(Rates::new(bytes, out, begin.elapsed()))
    }

    fn start(&self, arguments: &str) -> Result<Vm> {
        let parameters = format!("rdinit=/{INIT} -- {arguments}");
        let tap = self.tap.as_ref();
        Vm::start(&self.machine, &self.initrd, &self.shared, &parameters, tap)
    }
}

/// The initrd with the floor's init behind it: the kernel unpacks both archives.
fn add_init(initrd: &Path, source: &Path, work: &Path) -> Result<PathBuf> {
    let program = work.join("init");
    let status = Command::new("gcc")
        .args(["-O2", "-Wall", "-static", "-s", "-o"])
        .args([program.as_path(), source])
        .status()
        .context("gcc")?;
    ensure!(
        status.success(),
        "gcc failed on {}: {status}",
        source.display()
    );
    let mut archive = Archive::default();
    archive.add(
        INIT,
        Entry::File {
            content: &fs::read(&program)?,
            executable: true,
        },
    );
    let path = work.join("initrd");
    let own = fs::read(initrd).with_context(|| initrd.display().to_string())?;
    fs::write(&path, [own, archive.finish()].concat())?;
    Ok(path)
}
