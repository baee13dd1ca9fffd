//! `virtc run ID`: the container of a bundle, made, started and waited for.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus};

use nix::sys::signal::Signal as Sig;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cli::{CreateArgs, GlobalArgs, IdArgs, RunArgs, RunBundleArgs};
use crate::commands::{self, Done, block_on};
use crate::error::{FAILED, Failure};
use crate::join::Signals;

/// What belongs to the throw-away form alone is refused by name.
pub(super) fn run(global: &GlobalArgs, args: &RunArgs, id: &str) -> Done {
    const BOTH: [&str; 2] = ["id", "keep"];
    let known = |flag: &str| RunBundleArgs::owns(flag) || BOTH.contains(&flag);
    if let Some(flag) = args.given.iter().find(|flag| !known(flag)) {
        let flag = flag.replace('_', "-");
        return Err(Failure::usage(format!(
            "--{flag} is of the form `virtc run -- COMMAND`, and `virtc run {id}` runs a bundle"
        )));
    }
    if args.oci.bundle.is_none() && !std::path::Path::new("config.json").exists() {
        return Err(Failure::usage(format!(
            "`virtc run {id}` runs the bundle in the current directory, which has no config.json"
        ))
        .hint(format!("a command is run by `virtc run -- {id}`")));
    }
    let create = CreateArgs {
        bundle: args.oci.bundle.clone().unwrap_or_else(|| ".".into()),
        pid_file: args.oci.pid_file.clone(),
        console_socket: args.oci.console_socket.clone(),
        preserve_fds: args.oci.preserve_fds,
        no_pivot: args.oci.no_pivot,
        no_new_keyring: args.oci.no_new_keyring,
        id: id.to_owned(),
    };
    let foreground = !args.detach && std::io::stdin().is_terminal();
    let stand_in = commands::create::make(global, &create, foreground)?;
    let start = IdArgs { id: id.to_owned() };
    if let Err(failure) = commands::start::start(global, &start) {
        remove(global, id);
        return Err(failure);
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let ended = block_on(wait(stand_in))?.map_err(|error| Failure::plain(FAILED, &error))?;
    if !args.keep {
        remove(global, id);
    }
    Ok(exit_code(ended))
}

/// Waits for the process that stands for the container; what comes meanwhile is its.
async fn wait(mut stand_in: Child) -> std::io::Result<ExitStatus> {
    let mut signals = Signals::take()?;
    // Before it is reaped, its pid is nobody else's.
    let pid = i32::try_from(stand_in.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(std::io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let ended = tokio::task::spawn_blocking(move || stand_in.wait());
    tokio::pin!(ended);
    loop {
        tokio::select! {
            ended = &mut ended => return ended.map_err(std::io::Error::other)?,
            signal = signals.next() => match signal {
                Sig::SIGTSTP | Sig::SIGCONT => {}
                signal => {
                    if let Some(signal) = Signal::from_named_raw(signal as i32) {
                        // It may have ended just now.
                        let _ = pidfd_send_signal(&pidfd, signal);
                    }
                }
            },
        }
    }
}

fn exit_code(ended: ExitStatus) -> ExitCode {
    let signalled = |number| 128u8.saturating_add(number);
    let code = match (
        ended.code(),
        ended.signal().and_then(Signal::from_named_raw),
    ) {
        (Some(code), _) => u8::try_from(code).unwrap_or(FAILED),
        (None, Some(signal)) => u8::try_from(signal.as_raw()).map_or(FAILED, signalled),
        (None, None) => FAILED,
    };
    ExitCode::from(code)
}

fn remove(global: &GlobalArgs, id: &str) {
    let delete = commands::delete::force(global, id);
    if let Err(failure) = delete {
        failure.report();
    }
}
