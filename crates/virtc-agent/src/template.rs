//! Waits in a template until a clone of it is to go on.
//!
//! A template is a guest that has started and has nothing of any sandbox: no vsock, no share, no
//! network. It says so with one byte on a serial port, and reads one. Its memory and state are
//! saved there. Each clone finds itself in that reading, gets its byte, and looks for the devices
//! that it has and the template had not.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Attempt as _, Result};
use crate::sandbox::blocking;

/// What the template says when it waits.
const WAITS: &[u8] = b"T";

/// Where the kernel looks for devices again.
const RESCAN: &str = "/sys/bus/pci/rescan";

/// Says on the serial port `port`, such as `ttyS1`, that everything is ready, and returns in a
/// clone, with its devices.
pub(crate) async fn wait_for_hand_over(port: &str) -> Result<()> {
    let attempt = || format!("wait on {port} for the hand-over");
    let serial = open_raw(port)?;
    let serial = crate::sys::watch(serial, Interest::READABLE).attempt(attempt)?;
    rustix::io::write(serial.get_ref(), WAITS).attempt(attempt)?;
    read_byte(&serial).await.attempt(attempt)?;
    blocking(|| {
        std::fs::write(RESCAN, "1").attempt(|| "look for the devices of the clone".to_owned())
    })
    .await
}

/// A serial port that passes every byte as it is.
fn open_raw(port: &str) -> Result<OwnedFd> {
    let attempt = || format!("open serial port {port}");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let serial = open(format!("/dev/{port}"), flags, Mode::empty()).attempt(attempt)?;
    let mut settings = tcgetattr(&serial).attempt(attempt)?;
    settings.make_raw();
    tcsetattr(&serial, OptionalActions::Now, &settings).attempt(attempt)?;
    Ok(serial)
}

async fn read_byte(serial: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    let mut byte = [0; 1];
    loop {
        let mut ready = serial.readable().await?;
        match rustix::io::read(serial.get_ref(), &mut byte) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
