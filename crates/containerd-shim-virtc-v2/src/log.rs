//! The log: lines into the pipe `log` of the bundle, which containerd reads and shows as its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use tracing_subscriber::EnvFilter;

/// The name of the pipe.
const PIPE: &str = "log";

/// Starts logging. Without a pipe nothing is logged.
pub(crate) fn start(bundle: &Path, debug: bool) {
    let Ok(pipe) = open(&bundle.join(PIPE)) else {
        return;
    };
    let level = if debug { "debug" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // A second one is an error of the caller's, and no reason to end.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(pipe)
        .try_init();
}

/// For reading too: it stays open when containerd is restarted. What does not fit while nobody reads
/// is lost, and holds nobody up.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NONBLOCK.union(OFlags::NOFOLLOW);
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
}
