//! One VM of a floor, from its start to what it writes on its serial line.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::command_line::Replacement;
use super::devices::Devices;
use super::machine::{Machine, Tap};
use super::serial::Serial;
use crate::running::Running;

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
        let mut devices = Devices::prepare(None)?;
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
        let called = accept(listener, &self.vmm.0)?;
        called.with_context(|| format!("the VM wrote {:?}", self.serial.complaint(Vec::new())))
    }

    /// Ends the VM as virtc does, by a signal; the time until the VMM is reaped.
    pub(super) fn end(self) -> Duration {
        let begin = Instant::now();
        drop(self.vmm);
        begin.elapsed()
    }
}

/// Waits for a call of the VMM or its guest. Nothing when the VMM has ended.
pub(super) fn accept(listener: &UnixListener, vmm: &Child) -> Result<Option<UnixStream>> {
    let pid = Pid::from_child(vmm);
    let end = pidfd_open(pid, PidfdFlags::empty()).context("watch the VMM")?;
    let mut watched = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(&end, PollFlags::IN),
    ];
    let limit = Timespec::try_from(START_MAX)?;
    let ready = retry_on_intr(|| poll(&mut watched, Some(&limit)))?;
    ensure!(
        ready > 0,
        "the VM did not call within {} s",
        START_MAX.as_secs()
    );
    if watched[0].revents().is_empty() {
        return Ok(None);
    }
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(START_MAX))?;
    stream.set_write_timeout(Some(START_MAX))?;
    Ok(Some(stream))
}
