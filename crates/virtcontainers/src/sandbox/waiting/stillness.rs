//! A machine that waits stands still: its guest, and its VMM too.
//!
//! A VMM whose guest is paused may go on by itself. QEMU 7.2 without KVM, on one thread for all
//! processors, has that thread switch the guest's clock on again after the pause has switched it
//! off, in one of some four pauses; its main loop then wakes up for a timer that never comes, some
//! hundred times a second.

use std::io;

use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use vc_hypervisor::Vm;

use crate::error::{Error, Result};

/// Stops the guest's processors, then the processes of the VMM.
///
/// # Errors
///
/// Those of [`Vm::pause`], and [`Error::System`].
pub(super) async fn stand_still(vm: &dyn Vm) -> Result<()> {
    vm.pause().await?;
    signal(vm, Signal::STOP).map_err(failed("stop a VMM whose machine waits"))
}

/// Lets both go on.
///
/// # Errors
///
/// Those of [`Vm::resume`], and [`Error::System`].
pub(super) async fn go_on(vm: &dyn Vm) -> Result<()> {
    signal(vm, Signal::CONT).map_err(failed("let a VMM go on whose machine waited"))?;
    Ok(vm.resume().await?)
}

fn signal(vm: &dyn Vm, signal: Signal) -> io::Result<()> {
    for process in vm.processes() {
        let Some(pidfd) = process.open()? else {
            // That it has ended is seen elsewhere.
            continue;
        };
        match pidfd_send_signal(&pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn failed(attempt: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System {
        attempt: attempt.into(),
        source,
    }
}
