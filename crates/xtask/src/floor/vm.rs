//! One VM of a floor, from its start to what it writes on its serial line.

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::command_line::Replacement;
use super::devices::Devices;
use super::machine::{Machine, Tap};
use super::serial::Serial;
use crate::bench::Running;

/// How long a start may take before the measurement is given up.
pub(super) const START_MAX: Duration = Duration::from_secs(60);

/// A VM that runs, with what serves its devices.
#[derive(Debug)]
pub(crate) struct Vm {
    /// Goes before its devices.
    vmm: Running,
    devices: Devices,
    serial: Serial,
    /// When the first process was started.
    begin: Instant,
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
        let mut devices = Devices::prepare()?;
        let (serial, theirs) = Serial::pair()?;
        let args = machine.vmm_args(&Replacement {
            initrd,
            vsock: &devices.vsock(),
            share: &devices.share(),
            scratch: &devices.scratch(),
            parameters,
            tap,
            of_template: None,
        })?;

        let begin = Instant::now();
        devices.start_share(machine, shared)?;
        let mut vmm = match tap {
            None => Command::new(&machine.vmm),
            Some(tap) => tap.command(&machine.vmm),
        };
        let vmm = Running::spawn(vmm.args(args).stdin(Stdio::from(theirs)))?;
        Ok(Self {
            vmm,
            devices,
            serial,
            begin,
        })
    }

    /// How long the VM took to its first byte on the serial line.
    pub(super) fn first_byte(&mut self) -> Result<Duration> {
        self.serial.first_byte(self.begin)
    }

    /// The socket at which a call of the guest to the host's `port` arrives.
    pub(super) fn listen(&self, port: u32) -> Result<UnixListener> {
        self.devices.listen(port)
    }

    /// Waits for a call of the guest.
    pub(super) fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream> {
        let called = accept(listener, &mut self.vmm.0)?;
        called.with_context(|| format!("the VM wrote {:?}", self.serial.complaint(Vec::new())))
    }

    /// Ends the VM as virtc does, by a signal; the time until the VMM is reaped.
    pub(super) fn end(self) -> Duration {
        let begin = Instant::now();
        drop(self.vmm);
        begin.elapsed()
    }
}

/// Waits for a call of the VMM or its guest at a listener that does not block. Nothing when the VMM has ended.
pub(super) fn accept(listener: &UnixListener, vmm: &mut Child) -> Result<Option<UnixStream>> {
    let deadline = Instant::now() + START_MAX;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(START_MAX))?;
                stream.set_write_timeout(Some(START_MAX))?;
                return Ok(Some(stream));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                if vmm.try_wait()?.is_some() {
                    return Ok(None);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e).context("the VM did not call"),
        }
    }
}
