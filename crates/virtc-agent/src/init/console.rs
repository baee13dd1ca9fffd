//! The kernel's console as our standard output, and the last words on it.

use std::panic::PanicHookInfo;

use rustix::fs::{Mode, OFlags, open};

use crate::error::{Attempt as _, Result};

/// Opens the console, which the kernel could not do for us: the initramfs has no devices.
pub(super) fn attach() -> Result<()> {
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .attempt(|| "open /dev/null".into())?;
    let console = open(
        "/dev/console",
        OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .attempt(|| "open /dev/console".into())?;
    rustix::stdio::dup2_stdin(&null).attempt(|| "use /dev/null as input".into())?;
    rustix::stdio::dup2_stdout(&console).attempt(|| "use the console".into())?;
    rustix::stdio::dup2_stderr(&console).attempt(|| "use the console".into())?;
    std::panic::set_hook(Box::new(last_words));
    Ok(())
}

/// Says what happened and ends. The kernel panics when its first process ends, the VM with it,
/// and the host reads these words on the console.
fn last_words(panic: &PanicHookInfo<'_>) {
    fatal(&panic.to_string());
}

/// Prints why the guest cannot go on, and ends it.
pub(crate) fn fatal(reason: &str) -> ! {
    let line = format!("virtc-agent: fatal: {}\n", reason.replace('\n', " "));
    // Nothing is left to do when even this fails.
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    // A serial line sends on by interrupts, and the panic that follows stops those.
    let _ = rustix::termios::tcdrain(rustix::stdio::stderr());
    std::process::exit(1)
}
