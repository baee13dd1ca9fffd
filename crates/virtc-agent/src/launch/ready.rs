//! Makes a container before it is known what for, and completes it when it is.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::command::CommandMessage;
use super::new_root::NewRoot;
use super::request::Request;
use super::task::Role;
use super::{ChildStdio, Launched, Launcher, Making, Working, new_pipe, send_filter, with_killed};
use crate::error::{Attempt as _, Result};
use crate::process::pipe_of;
use crate::seccomp::{Filter, PendingFilter};

/// What the first process of a container that waits has not been told yet. Without it, it cannot go
/// on.
#[derive(Debug)]
pub(crate) struct Waiting {
    command: OwnedFd,
    filter: Option<OwnedFd>,
}

/// Makes a container whose process waits to be told what it executes, and the filter of system
/// calls, if it is to get one.
pub(crate) async fn launch_waiting(
    launcher: &Launcher,
    request: Request,
    stdio: ChildStdio,
    filtered: bool,
) -> Result<(Launched, Waiting)> {
    let (start, start_writer) = new_pipe()?;
    let (command_reader, command) = new_pipe()?;
    let (filter_reader, filter) = match filtered {
        true => new_pipe().map(|(reader, writer)| (Some(reader), Some(writer)))?,
        false => (None, None),
    };
    let gates = [
        (Role::Start, Some(start_writer)),
        (Role::Command, Some(command_reader)),
        (Role::Filter, filter_reader),
    ];
    let expectation = launcher.reaper.expect();
    let making = Making::begin(launcher, request, stdio, gates, Vec::new())?;
    let (made, (), maker) = making.finish(async {}).await?;
    let made = made.map_err(|error| with_killed(error, &expectation, &maker))?;
    let launched = Launched {
        pid: made.pid,
        exit: expectation.claim(made.pid),
        reported_uptime_us: made.uptime_us,
        start: pipe_of(start)?,
        terminal: None,
        filter: None,
    };
    Ok((launched, Waiting { command, filter }))
}

/// Gives a container that waits its root, its command and its filter. The filter is given back, with
/// the maker, which ends when that is dropped.
pub(crate) async fn complete_waiting(
    launcher: &Launcher,
    waiting: Waiting,
    container_id: &str,
    new_root: NewRoot,
    command: &CommandMessage,
    filter: Option<PendingFilter>,
) -> Result<(Option<Arc<Filter>>, Working)> {
    command
        .send(waiting.command)
        .attempt(|| format!("give container {container_id:?} its command"))?;
    let request = Request {
        container_id: container_id.to_owned(),
        cwd: Some(new_root.cwd.clone()),
        new_root: Some(new_root),
        ..Request::default()
    };
    let expectation = launcher.reaper.expect();
    let making = Making::begin(launcher, request, ChildStdio::default(), [], Vec::new())?;
    let beside = send_filter(filter.zip(waiting.filter));
    let (made, filter, maker) = making.finish(beside).await?;
    made.map_err(|error| with_killed(error, &expectation, &maker))?;
    Ok((filter?, maker))
}
