//! The new process on its way to the program. It is alone: no thread, no runtime.

mod change;
mod descriptors;
mod execute;
mod rights;
mod surroundings;
mod tree;
mod unpack;

use std::convert::Infallible;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getppid, set_parent_process_death_signal, setsid};

pub use self::change::internal_change_tree;
use self::descriptors::{Descriptors, take_socket};
pub use self::unpack::internal_unpack;
use crate::error::Step;
use crate::wire::{ABOUT_TO_EXEC, Failure, Order, receive_order};

/// What a step gives.
type StepResult<T> = Result<T, Failure>;

/// Says which step failed, and on what.
trait AtStep<T> {
    fn at(self, step: Step, object: impl FnOnce() -> String) -> StepResult<T>;
}

impl<T, E: Into<io::Error>> AtStep<T> for Result<T, E> {
    fn at(self, step: Step, object: impl FnOnce() -> String) -> StepResult<T> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            Failure {
                step,
                object: object(),
                errno: error.raw_os_error().unwrap_or(libc::EINVAL),
            }
        })
    }
}

/// The launcher step: what `internal launch` does, before anything else and with no other thread.
///
/// Standard input is the socket to the launcher. It does not return when all goes well: the
/// process is the launched program then. The launcher has been told of every error.
///
/// # Errors
///
/// The system's error of the step that failed.
///
/// ```no_run
/// let is_step = std::env::args().skip(1).eq(["internal", "launch"]);
/// if is_step {
///     let error = vc_launch::internal_launch().unwrap_err();
///     std::process::exit(error.raw_os_error().map_or(1, |_| 125));
/// }
/// ```
pub fn internal_launch() -> io::Result<Infallible> {
    let socket = take_socket()?;
    let Err(failure) = run(&socket);
    // Nobody is there to be told when this fails.
    let _ = (&socket).write_all(&serde_json::to_vec(&failure)?);
    Err(io::Error::from_raw_os_error(failure.errno))
}

fn run(socket: &UnixStream) -> StepResult<Infallible> {
    let (order, received) = receive_order(socket).at(Step::Receive, || "the order".to_owned())?;
    let Order { spec, uses, parent } = order;

    setsid().at(Step::Session, || spec.name.clone())?;
    let descriptors = Descriptors::place(&uses, received)?;
    surroundings::join_cgroups(&descriptors.cgroups)?;
    match &spec.root {
        Some(root) => {
            let sources = tree::Sources::take(root, &descriptors.mount_sources)?;
            surroundings::new_namespaces(&spec)?;
            tree::build_and_enter(root, &sources)?;
        }
        None => surroundings::new_namespaces(&spec)?,
    }
    surroundings::limit_resources(&spec.limits)?;
    rights::reduce(&spec)?;
    surroundings::default_signals()?;
    surroundings::enter_directory(&spec)?;
    die_with_parent(socket, parent)?;
    (&*socket)
        .write_all(&[ABOUT_TO_EXEC])
        .at(Step::ParentCheck, || "the socket".to_owned())?;
    execute::execute(&spec, descriptors.program.as_ref())
}

/// Asks for the death signal, which the change of user cleared, and looks whether the parent
/// ended before: its pid, which nobody else has while this is its child, and the thread that
/// made this process, which holds the other end of the socket.
fn die_with_parent(socket: &UnixStream, parent: u32) -> StepResult<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .at(Step::DeathSignal, || "SIGKILL".to_owned())?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get());
    if now.and_then(|pid| u32::try_from(pid).ok()) != Some(parent) {
        return Err(rustix::io::Errno::SRCH).at(Step::ParentCheck, || format!("process {parent}"));
    }
    let mut watched = [PollFd::new(socket, PollFlags::RDHUP)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut watched, Some(&at_once)).at(Step::ParentCheck, || "its socket".to_owned())?;
    let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
    if watched[0].revents().intersects(gone) {
        return Err(rustix::io::Errno::SRCH).at(Step::ParentCheck, || "its thread".to_owned());
    }
    Ok(())
}
