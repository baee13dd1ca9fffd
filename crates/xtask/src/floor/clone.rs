//! A bare clone: a VM that goes on from the floor's template, as virtc's clones from theirs.
//!
//! ```text
//! copy the memory ┐
//! start the VMM   ┴▶ load the state ─▶ plug its devices in ─▶ a line on the second serial port ─▶ go on
//! ```

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use tempfile::NamedTempFile;

use super::command_line::Replacement;
use super::devices::Devices;
use super::memory;
use super::qmp::Qmp;
use super::serial::Serial;
use super::sockets::Sockets;
use super::template::Template;
use crate::running::Running;

/// The state, as QEMU has it: the file on its standard output.
const STATE: &str = "fd:1";

/// A clone that has gone on.
#[derive(Debug)]
pub(super) struct BareClone {
    /// Goes before what serves it.
    _vmm: Running,
    _devices: Devices,
    serial: Serial,
    /// When the first process was started.
    begin: Instant,
    /// QEMU takes from it as the guest reads.
    _port: UnixStream,
    _qmp: Qmp,
    _memory: NamedTempFile,
}

impl BareClone {
    /// Starts everything at once, as virtc does. The scratch disk is there before, and so is the vsock device.
    pub(super) fn start(template: &Template<'_>) -> Result<Self> {
        let machine = &template.floor.machine;
        let mut devices = Devices::prepare(Some(&template.scratch()))?;
        let (serial, theirs) = Serial::pair()?;
        let sockets = Sockets::listen()?;
        let own = NamedTempFile::new_in(template.directory())?;
        let args = machine.vmm_args(&Replacement {
            initrd: &template.floor.initrd,
            vsock: &devices.vsock(),
            share: &devices.share(),
            scratch: &devices.scratch(),
            parameters: "",
            tap: None,
            of_template: Some(&sockets.with_memory(own.path())),
        })?;

        let begin = Instant::now();
        let saved = File::open(template.memory())?;
        own.as_file().set_len(saved.metadata()?.len())?;
        let filling = own.reopen()?;
        let filled = std::thread::spawn(move || memory::copy(&saved, &filling));
        devices.start_share(machine, &template.floor.shared)?;
        let mut command = Command::new(&machine.vmm);
        command
            .args(args)
            .stdin(Stdio::from(theirs))
            .stdout(File::open(template.state())?);
        let vmm = Running::spawn(&mut command)?;
        drop(command);
        let (mut qmp, mut port) = sockets.accept(&vmm)?;
        qmp.keep_memory()?;
        // The VMM has mapped its memory; nothing of it was read so far.
        let filled = filled.join().map_err(|_| anyhow!("it panicked"));
        filled
            .and_then(|copied| Ok(copied?))
            .context("the copy of the memory")?;
        qmp.execute("migrate-incoming", json!({"uri": STATE}))?;
        qmp.migrated()?;
        for device in &template.late {
            qmp.execute("device_add", device.clone())?;
        }
        port.write_all(b"\n")?;
        qmp.execute("cont", json!({}))?;
        Ok(Self {
            _vmm: vmm,
            _devices: devices,
            serial,
            begin,
            _port: port,
            _qmp: qmp,
            _memory: own,
        })
    }

    /// How long the clone took to its first byte on the serial line.
    pub(super) fn first_byte(&mut self) -> Result<Duration> {
        self.serial.first_byte(self.begin)
    }
}
