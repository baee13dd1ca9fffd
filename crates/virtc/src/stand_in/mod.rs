//! The stand-in: the process on the host that stands for a process of the OCI command line's.
//!
//! `create` and `exec --detach` start it with the process's standard streams as its own, and it
//! lives as long as the process: it carries the streams, forwards signals, and ends with the exit
//! code. That of a container also keeps the sandbox's machine.

mod console;
mod enter;
mod keep;
mod member;
mod outcome;
mod report;
mod request;
mod view;

use outcome::Outcome;
pub(crate) use report::Report;
use report::Reporter;
pub(crate) use request::{Request, Task};

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode};

use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use oci_spec::runtime::Process as ProcessSpec;

use vc_types::SandboxId;
use virtcontainers::{Bundle, HostNamespaces, Neighbours, PodRole, fault};

use crate::commands::{container, own_program, runtime};
use crate::error::{FAILED, Failure};
use crate::log;

/// Starts a stand-in with our standard streams, which are its process's, and waits until that is
/// made. It outlives us.
///
/// # Errors
///
/// What the stand-in reports, or that it could not be started.
pub(crate) fn start(request: &Request) -> Result<Child, Failure> {
    let (child, report) = spawn(request).map_err(|error| {
        Failure::plain(FAILED, &error).note("the process that stands for the guest's")
    })?;
    fault::point("caller.spawned")?;
    match Report::receive(report).map_err(|error| Failure::plain(FAILED, &error))? {
        Some(Report::Created) => {
            fault::point("caller.reported")?;
            Ok(child)
        }
        Some(Report::Failed(failed)) => Err(Failure::told(
            FAILED,
            failed.message,
            failed.causes,
            failed.hint,
        )),
        None => Err(Failure::new(
            FAILED,
            "the process that stands for the guest's ended without a word",
        )),
    }
}

fn spawn(request: &Request) -> std::io::Result<(Child, File)> {
    let request: OwnedFd = request.to_file()?.into();
    let (report, report_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // This process has one thread and starts one other: nobody else inherits them.
    for fd in [&request, &report_writer] {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    let child = Command::new(own_program())
        .arg0("virtc")
        .args(["internal", "stand-in"])
        .args([&request, &report_writer].map(|fd| fd.as_raw_fd().to_string()))
        .current_dir("/")
        .spawn()?;
    Ok((child, report.into()))
}

/// Writes a stand-in's pid as other runtimes do: without a newline, and never half.
///
/// # Errors
///
/// With the file's name.
pub(crate) fn write_pid(file: &Path, pid: u32) -> Result<(), Failure> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".virtc");
    std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, file))
        .map_err(|error| {
            Failure::plain(FAILED, &error).note(format!("--pid-file {}", file.display()))
        })?;
    Ok(fault::point("caller.pid-written")?)
}

/// Runs the stand-in that these descriptors describe: the request is read from the first, and the
/// report goes to the second.
///
/// # Errors
///
/// When there is no request, or nobody to report to.
pub(crate) fn run(request: i32, report: i32) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let request: File = vc_launch::inherited_descriptor(request)?.into();
    let reporter = Reporter::new(vc_launch::inherited_descriptor(report)?.into());
    let request = Request::read(request)?;
    // Neither a terminal nor a job control of whoever called `create` reaches it.
    let _ = rustix::process::setsid();
    let outcome = match log::start(&request.global()) {
        Ok(()) => match &request.task {
            Task::Create { bundle } => create(&request, bundle, reporter)?,
            Task::Enter { process } => enter::enter(&request, process, reporter),
        },
        Err(failure) => {
            reporter.send(&Report::Failed(failure.into()))?;
            Outcome::FAILED
        }
    };
    Ok(outcome.end())
}

/// Stands for a container: in a sandbox of its own, or in the one that its bundle names.
fn create(request: &Request, bundle: &Path, reporter: Reporter) -> std::io::Result<Outcome> {
    let opened = || {
        let bundle = Bundle::open(bundle)?;
        let role = bundle.pod_role()?;
        refuse_known(request)?;
        bundle.check_namespaces(&neighbours(request, &role)?)?;
        let entered = HostNamespaces::enter(bundle.spec(), false)?;
        Ok::<_, Failure>((role, bundle, entered))
    };
    match opened() {
        Ok((PodRole::Sandbox, bundle, entered)) => {
            view::beside(|viewer| keep::keep(request, bundle, entered, viewer, reporter))
        }
        // The network is that of the sandbox.
        Ok((PodRole::Member(sandbox), bundle, _)) => {
            view::beside(|viewer| member::join(request, bundle, &sandbox, viewer, reporter))
        }
        Err(error) => {
            reporter.send(&Report::Failed(error.into()))?;
            Ok(Outcome::FAILED)
        }
    }
}

/// A container's name is its own below one root, whichever sandbox it is in.
fn refuse_known(request: &Request) -> Result<(), Failure> {
    let known = runtime(&request.global())?.find_container(&container(&request.id)?);
    match known {
        Ok(sandbox) => Err(Failure::new(
            FAILED,
            format!(
                "container with id {} exists already, in sandbox {sandbox}",
                request.id
            ),
        )),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whose namespaces a container may share. A sandbox that is not there has nobody, and is named
/// later.
fn neighbours(request: &Request, role: &PodRole) -> Result<Neighbours, Failure> {
    match role {
        PodRole::Sandbox => Ok(Neighbours::default()),
        PodRole::Member(sandbox) => match runtime(&request.global())?.neighbours(sandbox) {
            Err(error) if error.is_not_found() => Err(no_sandbox(&request.id, sandbox)),
            neighbours => Ok(neighbours?),
        },
    }
}

/// The sandbox that a container is to join is not there.
fn no_sandbox(container: &str, sandbox: &SandboxId) -> Failure {
    Failure::new(
        FAILED,
        format!("container {container} is of the sandbox {sandbox}, which does not exist"),
    )
}

/// Takes the terminal that the process is to have, where it is to have one. Says whether it is.
///
/// # Errors
///
/// A terminal without a socket to give it to, or the other way round, and what the system says.
fn take_terminal(request: &Request, process: Option<&ProcessSpec>) -> Result<bool, Failure> {
    let terminal = process.and_then(ProcessSpec::terminal) == Some(true);
    match (terminal, &request.console_socket) {
        (true, Some(socket)) => console::take(socket)
            .map(|()| true)
            .map_err(|error| Failure::plain(FAILED, &error).note("--console-socket")),
        (false, None) => Ok(false),
        (true, None) if request.foreground => Ok(true),
        (true, None) => Err(Failure::new(
            FAILED,
            "the process is to have a terminal: --console-socket says who holds its other end",
        )),
        (false, Some(_)) => Err(Failure::new(
            FAILED,
            "--console-socket is given, and the process is to have no terminal",
        )),
    }
}

impl From<Failure> for report::Failed {
    fn from(failure: Failure) -> Self {
        let (message, causes, hint) = failure.into_parts();
        Self {
            message,
            causes,
            hint,
        }
    }
}
