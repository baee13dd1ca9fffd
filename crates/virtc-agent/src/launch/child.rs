//! The maker of a container process, from its own side: it lives for one launch.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use rustix::io::Errno;
use tracing::Level;

use super::executor::StartExecutor;
use super::hooks;
use super::report::{Made, failure_line};
use super::request::{CONTAINERS_STATE_DIR, Request, state_dir};
use super::task::{Role, Task};
use crate::clock::uptime_us;
use crate::error::{Attempt as _, Result};
use crate::log::{LineLog, Sink};

/// The first descriptor after the standard three.
const FIRST_OF_OURS: i32 = 3;

/// Waits for its task at standard input, does it and ends. The standard streams are the
/// container's then: nothing may be printed.
pub(crate) fn run() -> ! {
    // Nobody may look, and then nobody has to.
    let _ = Task::say_ready(rustix::stdio::stdin());
    let code = match Task::receive(rustix::stdio::stdin()) {
        Ok(Some((task, fds))) => match work(task, fds) {
            Ok(()) => 0,
            // There is no report pipe to tell it by.
            Err(_) => 1,
        },
        // Nobody needs it any more.
        Ok(None) => 0,
        Err(_) => 1,
    };
    std::process::exit(code)
}

fn work(task: Task, fds: Vec<OwnedFd>) -> Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), FIRST_OF_OURS)
        .attempt(|| "keep the task's socket".into())?;
    let given = Given::of(task.roles, fds)?;
    make(&task.request, given)?;
    if task.request.new_root.is_some() {
        // The end of a process takes an emulated guest some milliseconds, which the container's start
        // is not to wait for. The agent says when.
        let _ = rustix::io::read(&socket, &mut [0; 1]);
    }
    Ok(())
}

/// The descriptors of a task, beside the standard streams. They go no further than a fork.
struct Given {
    report: OwnedFd,
    gates: Gates,
}

/// What goes on to the container's process.
#[derive(Default)]
struct Gates {
    start: Option<OwnedFd>,
    filter: Option<OwnedFd>,
    command: Option<OwnedFd>,
}

impl Given {
    /// Puts the standard streams in their places: those that the task has none for are empty.
    fn of(roles: Vec<Role>, fds: Vec<OwnedFd>) -> Result<Self> {
        let attempt = || "take the descriptors of a task".to_owned();
        let empty = File::open("/dev/null").attempt(attempt)?;
        rustix::stdio::dup2_stdin(&empty).attempt(attempt)?;
        let (mut report, mut gates) = (None, Gates::default());
        for (role, fd) in roles.into_iter().zip(fds) {
            match role {
                Role::Stdin => rustix::stdio::dup2_stdin(&fd).attempt(attempt)?,
                Role::Stdout => rustix::stdio::dup2_stdout(&fd).attempt(attempt)?,
                Role::Stderr => rustix::stdio::dup2_stderr(&fd).attempt(attempt)?,
                Role::Report => report = Some(fd),
                Role::Start => gates.start = Some(fd),
                Role::Filter => gates.filter = Some(fd),
                Role::Command => gates.command = Some(fd),
            }
        }
        let report = report.ok_or(Errno::BADF).attempt(attempt)?;
        Ok(Self { report, gates })
    }
}

fn make(request: &Request, given: Given) -> Result<()> {
    let Given { report, gates } = given;
    let log = report
        .try_clone()
        .attempt(|| "copy the report's pipe".into())?;
    LineLog {
        level: Level::ERROR,
        prefix: "log ",
        sink: Sink::Pipe(log),
    }
    .install();
    let panic_report = report
        .try_clone()
        .attempt(|| "copy the report's pipe".into())?;
    std::panic::set_hook(Box::new(move |panic| {
        let _ = rustix::io::write(&panic_report, failure_line(&panic.to_string()).as_bytes());
        std::process::exit(1)
    }));

    let line = match &request.new_root {
        Some(new_root) => match new_root.give() {
            // It was made before, and nobody asks when.
            Ok(()) => Made::to_line(new_root.pid, 0),
            Err(error) => failure_line(&chain(&error)),
        },
        None => match build(request, gates) {
            Ok(pid) => Made::to_line(pid, uptime_us()),
            Err(error) => failure_line(&chain(&error)),
        },
    };
    rustix::io::write(&report, line.as_bytes()).attempt(|| "write the report".into())?;
    Ok(())
}

fn build(request: &Request, gates: Gates) -> std::result::Result<i32, LibcontainerError> {
    let start = gates.start.ok_or(std::io::ErrorKind::NotFound.into());
    let hooks = request.start_hooks.as_deref().map(hooks::read).transpose();
    let executor = StartExecutor {
        hooks: Rc::new(
            hooks
                .map_err(LibcontainerError::OtherIO)?
                .unwrap_or_default(),
        ),
        start: Rc::new(start.map_err(LibcontainerError::OtherIO)?),
        filter: RefCell::new(gates.filter.map(Rc::new)),
        command: RefCell::new(gates.command.map(Rc::new)),
        home: RefCell::new(None),
        copy: request.copy.clone().map(Rc::new),
    };
    let builder = ContainerBuilder::new(request.container_id.clone(), SyscallType::default())
        .with_root_path(CONTAINERS_STATE_DIR)?
        .with_console_socket(request.terminal_socket.as_ref())
        .with_executor(executor);
    let Some(process) = &request.exec_process else {
        let container = builder
            .as_init(&request.bundle)
            .with_systemd(false)
            .as_sibling(true)
            .build()?;
        return container
            .pid()
            .map(|pid| pid.as_raw())
            .ok_or_else(|| LibcontainerError::Other("the container has no process".into()));
    };
    mark_running(&request.container_id)?;
    let pid = builder
        .as_tenant()
        .with_process(Some(process))
        .with_detach(true)
        .as_sibling(true)
        .build()?;
    Ok(pid.as_raw())
}

/// The agent starts containers without `libcontainer`, which has to know for an exec.
fn mark_running(container_id: &str) -> std::result::Result<(), LibcontainerError> {
    let mut container = Container::load(state_dir(container_id))?;
    if container.status() == ContainerStatus::Created {
        container.set_status(ContainerStatus::Running).save()?;
    }
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors say the same as their source.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
