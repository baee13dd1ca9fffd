//! The process that makes a container process: it lives for one launch.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use rustix::io::FdFlags;
use tracing::Level;

use super::executor::StartExecutor;
use super::hooks;
use super::report::{Made, failure_line};
use super::request::{CONTAINERS_STATE_DIR, Request, state_dir};
use crate::clock::uptime_us;
use crate::error::{Attempt as _, Result};
use crate::log::{LineLog, Sink};

/// Does what `argument` says and ends. The standard streams are the container's: nothing may be
/// printed.
pub(crate) fn run(argument: &str) -> ! {
    let code = match Request::from_argument(argument).and_then(|request| make(&request)) {
        Ok(()) => 0,
        // There is no report pipe to tell it by.
        Err(_) => 1,
    };
    std::process::exit(code)
}

fn make(request: &Request) -> Result<()> {
    let report = inherited(request.report_fd)?;
    let start = inherited(request.start_fd)?;
    let filter = request.filter_fd.map(inherited).transpose()?;
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

    let line = match build(request, start, filter) {
        Ok(pid) => Made::to_line(pid, uptime_us()),
        Err(error) => failure_line(&chain(&error)),
    };
    rustix::io::write(&report, line.as_bytes()).attempt(|| "write the report".into())?;
    Ok(())
}

/// A descriptor that was passed to us; from here on it goes no further than a fork.
fn inherited(number: i32) -> Result<OwnedFd> {
    let attempt = || format!("use descriptor {number}");
    let fd = crate::sys::inherited_fd(number).attempt(attempt)?;
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).attempt(attempt)?;
    Ok(fd)
}

fn build(
    request: &Request,
    start: OwnedFd,
    filter: Option<OwnedFd>,
) -> std::result::Result<i32, LibcontainerError> {
    let hooks = request.start_hooks.as_deref().map(hooks::read).transpose();
    let executor = StartExecutor {
        hooks: Rc::new(
            hooks
                .map_err(LibcontainerError::OtherIO)?
                .unwrap_or_default(),
        ),
        start: Rc::new(start),
        filter: RefCell::new(filter.map(Rc::new)),
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
