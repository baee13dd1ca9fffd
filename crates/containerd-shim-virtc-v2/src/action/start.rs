use std::io::{IsTerminal, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{answer, bundle};
use crate::bootstrap::Asked;
use crate::bundle::{annotations_of, sandbox_of, spec_if_any};
use crate::cli::Flags;
use crate::error::{Error, Result};
use crate::options::{self, Options};
use crate::socket::ShimSocket;
use crate::surroundings;

/// Bytes of what containerd may send by stdin; containerd has the same.
const INPUT_BYTES_MAX: u64 = 10 << 20;

/// Where containerd 1.x looks for the address when it is restarted.
const ADDRESS_FILE: &str = "address";

/// What a test asks of the process that serves alone.
#[cfg(feature = "fault-points")]
const SERVE_FAULT: &str = "VIRTC_TEST_SERVE_FAULT";

/// Begins to serve a task, and answers where: at the socket of its pod, or of a new process.
pub(super) fn start(flags: &Flags) -> Result<()> {
    let bundle = bundle(flags)?;
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let version_max = variable("MAX_SHIM_VERSION");
    let events = variable("TTRPC_ADDRESS");
    let asked = Asked::of(&input()?, flags, version_max.as_deref(), events);
    // What cannot be is said here, where it is heard.
    let options = Options::of(&asked.options)?;
    let spec = spec_if_any(&bundle)?;
    let sandbox = sandbox_of(&spec, &flags.id)?;
    let socket = ShimSocket::of(&flags.address, &flags.namespace, &sandbox);
    if sandbox != flags.id {
        if !socket.is_served() {
            return Err(Error::NotFound {
                what: format!("the shim of sandbox {sandbox}"),
            });
        }
    } else {
        surroundings::runtime(&flags.namespace, &options, &annotations_of(&spec), None)?;
        options::keep(&asked.options, &bundle)?;
        let listener = socket.listen()?;
        let served = serve(flags, &bundle, listener.into(), asked.events.as_deref());
        let answered = served.and_then(|mut child| {
            let answered = answer_with(&asked, &bundle, &socket);
            if answered.is_err() {
                // Nobody would know of it.
                let _ = child.kill();
            }
            answered
        });
        if answered.is_err() {
            socket.remove();
        }
        return answered;
    }
    answer_with(&asked, &bundle, &socket)
}

fn answer_with(asked: &Asked, bundle: &Path, socket: &ShimSocket) -> Result<()> {
    write_address(bundle, &socket.address())?;
    answer(&asked.answer(&socket.address())?)
}

/// Calls this program again, to serve the socket that it gets as stdin. It outlives us.
fn serve(flags: &Flags, bundle: &Path, listener: OwnedFd, events: Option<&str>) -> Result<Child> {
    let failed = |source| Error::System {
        attempt: "start the process that serves the task".into(),
        source,
    };
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(["-namespace", &flags.namespace])
        .args(["-id", &flags.id])
        .args(["-address", &flags.address])
        .current_dir(bundle)
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Each process of a task has threads that copy for a while. With a heap for each of them, what
        // they leave would add up.
        .env("MALLOC_ARENA_MAX", "1")
        // What is sent to containerd's group is not meant for it.
        .process_group(0);
    if flags.debug {
        command.arg("-debug");
    }
    if let Some(events) = events {
        command.env("TTRPC_ADDRESS", events);
    }
    #[cfg(feature = "fault-points")]
    if let Ok(fault) = std::env::var(SERVE_FAULT) {
        command.env(virtcontainers::fault::VARIABLE, fault);
    }
    command.spawn().map_err(failed)
}

/// What containerd says by stdin: nothing, options, or a message.
fn input() -> Result<Vec<u8>> {
    let stdin = std::io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() {
        let read = stdin.lock().take(INPUT_BYTES_MAX).read_to_end(&mut input);
        read.map_err(|source| Error::System {
            attempt: "read what containerd asks for".into(),
            source,
        })?;
    }
    Ok(input)
}

/// Never half: containerd may be killed while we write.
fn write_address(bundle: &Path, address: &str) -> Result<()> {
    let temporary = bundle.join(".address");
    let written = std::fs::write(&temporary, address)
        .and_then(|()| std::fs::rename(&temporary, bundle.join(ADDRESS_FILE)));
    written.map_err(|source| Error::System {
        attempt: format!("write the address into {}", bundle.display()),
        source,
    })
}
