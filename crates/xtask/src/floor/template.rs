//! The template of bare clones: a guest that has booted with the floor's init, and is saved.
//!
//! It has the machine of virtc's template and is saved in the same way. Its guest has loaded all
//! modules and mounted its scratch disk, and rehearses nothing: what virtc's has rehearsed is
//! libcontainer's work, of which the floor does none. Neither has mounted a share, since a template
//! has none.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::clone::BareClone;
use super::command_line::Replacement;
use super::devices::format;
use super::machine::Machine;
use super::serial::Serial;
use super::sockets::Sockets;
use super::{Floor, INIT};
use crate::running::Running;

/// What the guest says when it waits.
const WAITS: u8 = b'T';

/// A saved guest, and what its clones have besides.
#[derive(Debug)]
pub(crate) struct Template<'a> {
    pub(super) floor: &'a Floor,
    /// The arguments of `device_add` for what a clone gets.
    pub(super) late: Vec<Value>,
    directory: TempDir,
}

impl<'a> Template<'a> {
    /// Boots and saves a guest whose clones run `program`. The floor's machine is that of a clone, and
    /// `booted` one that virtc started for the same job with a boot.
    pub(crate) fn make(floor: &'a Floor, booted: &Machine, program: &[&str]) -> Result<Self> {
        let template = Self {
            floor,
            late: floor.machine.late_devices(booted),
            // Where templates are on hosts: in memory.
            directory: tempfile::tempdir_in("/dev/shm")?,
        };
        let arguments = format!(
            "clone {} {} {} {}",
            floor.machine.late_bridge()?,
            booted.share_tag()?,
            floor.root,
            program.join(" "),
        );
        let machine = floor.machine.template(booted);
        let saved = template.save(&machine, &arguments);
        saved.context("the bare template")?;
        Ok(template)
    }

    /// F2 of a bare clone: from its first process, the copy of the memory included, to the first byte of the
    /// program.
    pub(crate) fn program(&self) -> Result<Duration> {
        BareClone::start(self)
            .and_then(|mut clone| clone.first_byte())
            .context("F2 of a bare clone")
    }

    /// The memory that clones copy.
    pub(super) fn memory(&self) -> PathBuf {
        self.directory.path().join("memory")
    }

    /// The state of the devices that they load.
    pub(super) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The scratch disk that its guest has mounted, and of which clones have a copy.
    pub(super) fn scratch(&self) -> PathBuf {
        self.directory.path().join("scratch")
    }

    /// In memory too: where clones have theirs.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn save(&self, machine: &Machine, arguments: &str) -> Result<()> {
        let written = self.directory.path().join("written");
        let size = self.floor.machine.memory_bytes()?;
        File::create(&written)?.set_len(size)?;
        format(&self.scratch())?;
        let sockets = Sockets::listen()?;
        let (mut serial, theirs) = Serial::pair()?;
        let none = Path::new("");
        let parameters = format!("rdinit=/{INIT} -- {arguments}");
        let args = machine.vmm_args(&Replacement {
            initrd: &self.floor.initrd,
            vsock: none,
            share: none,
            scratch: &self.scratch(),
            parameters: &parameters,
            tap: None,
            of_template: Some(&sockets.with_memory(&written)),
        })?;
        let mut command = Command::new(&machine.vmm);
        command.args(args).stdin(Stdio::from(theirs));
        let vmm = Running::spawn(&mut command)?;
        drop(command);
        let (mut qmp, mut port) = sockets.accept(&vmm)?;
        let mut said = [0];
        let read = port.read_exact(&mut said);
        read.with_context(|| format!("the guest wrote {:?}", serial.complaint(Vec::new())))?;
        ensure!(
            said == [WAITS],
            "the guest says something else than that it waits"
        );
        qmp.execute("stop", json!({}))?;
        qmp.keep_memory()?;
        qmp.execute("migrate", json!({"uri": sockets.state_uri()}))?;
        let mut state = sockets.accept_state(&vmm)?;
        io::copy(&mut state, &mut File::create_new(self.state())?)?;
        qmp.migrated()?;
        drop(vmm);
        // As virtc's, it is kept without its pages of zeros.
        let status = Command::new("cp")
            .arg("--sparse=always")
            .args([&written, &self.memory()])
            .status()
            .context("cp")?;
        ensure!(status.success(), "cp: {status}");
        fs::remove_file(written)?;
        Ok(())
    }
}
