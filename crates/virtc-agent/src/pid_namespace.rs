//! The pid namespace that the containers of a sandbox share when the host asks for it. A template's
//! guest makes it beforehand.
//!
//! Its first process is ours and does nothing. A container's process is then not the first one of
//! its namespace, so signals have the effect that they have on a host: nothing is ignored because
//! nobody handles it.
//!
//! The first process is seen by the containers. It has no capability, no file system and no file,
//! and cannot be traced.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use rustix::process::Pid;

use crate::error::{Attempt as _, Error, Result};

/// The first argument of the process that makes the namespace.
const MAKER_ARGUMENT: &str = "make-pid-namespace";

/// The first argument of the namespace's first process.
const FIRST_ARGUMENT: &str = "pid-namespace";

/// Bytes of a pid and the line's end.
const ANSWER_BYTES_MAX: u64 = 16;

/// The namespace; it ends with the guest, or by [`PidNamespace::end`].
#[derive(Debug, Clone)]
pub(crate) struct PidNamespace {
    first: Pid,
}

/// The process that makes a namespace, started.
#[derive(Debug)]
pub(crate) struct Making(ChildStdout);

impl PidNamespace {
    /// Begins to make it. To be called where all processes of the agent are started: another that
    /// is being started elsewhere would have its descriptors in this one too.
    pub(crate) fn begin() -> Result<Making> {
        let mut maker = Command::new("/proc/self/exe")
            .arg0("init")
            .arg(MAKER_ARGUMENT)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .attempt(attempt)?;
        // The reaper collects the maker.
        maker.stdout.take().map(Making).ok_or_else(no_answer)
    }

    /// Ends it, with all that is in it.
    pub(crate) fn end(self) {
        // It may have ended.
        let _ = crate::sys::kill(self.first, libc::SIGKILL);
    }

    /// Whether its first process is there.
    pub(crate) fn exists(&self) -> bool {
        self.path().exists()
    }

    /// What a specification names to join it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/pid", self.first.as_raw_pid()).into()
    }
}

impl Making {
    /// Waits until it is made. Blocks, for as long as two programs take to start.
    pub(crate) fn finish(self) -> Result<PidNamespace> {
        let mut answer = String::new();
        self.0
            .take(ANSWER_BYTES_MAX)
            .read_to_string(&mut answer)
            .attempt(attempt)?;
        let first = answer.trim().parse().ok().and_then(Pid::from_raw);
        first
            .map(|first| PidNamespace { first })
            .ok_or_else(no_answer)
    }
}

fn attempt() -> String {
    "make a pid namespace".to_owned()
}

fn no_answer() -> Error {
    Error::State {
        object: "the process that makes a pid namespace".into(),
        state: "ended without an answer",
    }
}

/// Does what a command line of this module says; returns when it is another's.
pub(crate) fn dispatch(arguments: &[String]) {
    match arguments {
        [_, argument] if argument == MAKER_ARGUMENT => {
            let made = make_first();
            std::process::exit(i32::from(made.is_err()));
        }
        [_, argument] if argument == FIRST_ARGUMENT => be_first(),
        _ => {}
    }
}

/// The maker: its next child is the namespace's first process.
fn make_first() -> std::io::Result<()> {
    crate::sys::unshare_pid_namespace()?;
    let first = Command::new("/proc/self/exe")
        .arg0("init")
        .arg(FIRST_ARGUMENT)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let text = format!("{}\n", first.id());
    std::io::stdout().write_all(text.as_bytes())?;
    std::io::stdout().flush()
}

/// The first process: gives up everything, and sleeps until the namespace ends.
fn be_first() -> ! {
    let confined = confine();
    // Without its confinement it would be a way out of a container.
    if confined.is_err() {
        std::process::exit(1);
    }
    loop {
        crate::sys::pause();
    }
}

fn confine() -> std::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    crate::sys::unshare_mount_namespace()?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    let flags = MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    mount("tmpfs", "/tmp", "tmpfs", flags, None)?;
    std::env::set_current_dir("/tmp")?;
    rustix::process::chroot(".")?;
    crate::sys::ignore_children()?;
    crate::sys::drop_all_capabilities()?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
