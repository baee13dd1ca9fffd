//! The last step in a container's process: the exec itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;

use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::Spec;
use rustix::io::Errno;

use super::command::Command;
use super::copy::{self, Copy};
use super::hooks::StartHooks;
use super::lookup::execute_first;
use super::new_root::enter_directory;
use super::report::{FailedAt, StartFailure};
use crate::seccomp::Filter;

/// Runs the hooks and executes the program, or says by the start pipe why it cannot and ends.
#[derive(Clone)]
pub(super) struct StartExecutor {
    /// Closes by itself when `execve` succeeds.
    pub(super) start: Rc<OwnedFd>,
    /// The filter of system calls comes by this.
    pub(super) filter: RefCell<Option<Rc<OwnedFd>>>,
    /// What takes the place of the specification's command comes by this.
    pub(super) command: RefCell<Option<Rc<OwnedFd>>>,
    pub(super) home: RefCell<Option<String>>,
    pub(super) hooks: Rc<StartHooks>,
    /// What is done in place of a program.
    pub(super) copy: Option<Rc<Copy>>,
}

impl StartExecutor {
    /// Waits for the filter and loads it.
    fn load_filter(&self) -> std::io::Result<()> {
        match self.filter.take() {
            Some(pipe) => Filter::receive(&pipe)?.load(),
            None => Ok(()),
        }
    }

    /// The specification's command, or the one that a ready-made container was given, in whose
    /// working directory this is then.
    fn command(&self, spec: &Spec) -> Result<Command, StartFailure> {
        if let Some(pipe) = self.command.take() {
            let command = Command::receive(&pipe)
                .map_err(|error| not_executable(format!("cannot take the command: {error}")))?;
            enter_directory(&command.cwd).map_err(|error| {
                let cwd = command.cwd.display();
                not_executable(format!(
                    "cannot enter {cwd}: {}",
                    std::io::Error::from(error)
                ))
            })?;
            return Ok(command);
        }
        let process = spec.process().as_ref();
        process
            .map(Command::of)
            .ok_or_else(|| not_executable("no process to execute".into()))
    }

    fn execute(&self, spec: &Spec) -> StartFailure {
        let Command {
            args,
            env: mut environment,
            ..
        } = match self.command(spec) {
            Ok(command) => command,
            Err(failure) => return failure,
        };
        if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
            environment.extend(
                self.home
                    .borrow()
                    .as_ref()
                    .map(|home| format!("HOME={home}")),
            );
        }
        let (Some(arguments), Some(entries)) = (c_strings(&args), c_strings(&environment)) else {
            return not_executable("a NUL byte in an argument".into());
        };
        if let Err(failure) = self.prepare(&environment) {
            return failure;
        }
        let name = args.first().map_or("", String::as_str);
        execute_first(name, &environment, |path| {
            let error = crate::sys::execve(path, &arguments, &entries);
            Errno::from_io_error(&error).unwrap_or(Errno::IO)
        })
    }

    /// Copies as this process, which has the rights of the container's by now. Nothing is executed:
    /// the container has no program for it, and ours stays out of its sight.
    fn copy(&self, copy: &Copy) -> StartFailure {
        let filter = self.filter.borrow().as_ref().map(|pipe| pipe.as_raw_fd());
        let alone = copy::be_alone(self.start.as_raw_fd(), filter);
        if let Err(error) = alone {
            return not_executable(format!("cannot close what a copy does not use: {error}"));
        }
        if let Err(failure) = self.prepare(&[]) {
            return failure;
        }
        // As `execve` would: it has begun.
        if let Err(error) = copy::be_started(self.start.as_raw_fd()) {
            return not_executable(format!("cannot say that a copy begins: {error}"));
        }
        std::process::exit(copy.run())
    }

    /// Loads the filter and runs the hooks: they are programs of the container's image, and get its
    /// filter too.
    fn prepare(&self, environment: &[String]) -> Result<(), StartFailure> {
        let hook_failed = |text| StartFailure {
            at: FailedAt::Hook,
            text,
        };
        // Before the filter, which need not allow what only this takes.
        let input = match self.hooks.is_empty() {
            true => None,
            false => Some(self.hooks.input().map_err(|error| {
                hook_failed(format!(
                    "cannot write the state for startContainer hooks: {error}"
                ))
            })?),
        };
        self.load_filter().map_err(|error| {
            not_executable(format!("cannot apply the filter of system calls: {error}"))
        })?;
        match input {
            None => Ok(()),
            Some(input) => self.hooks.run(input, environment).map_err(hook_failed),
        }
    }
}

fn not_executable(text: String) -> StartFailure {
    StartFailure {
        at: FailedAt::Program { code: 126 },
        text,
    }
}

impl Executor for StartExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = match crate::sys::reset_signals() {
            Ok(()) => match &self.copy {
                Some(copy) => self.copy(copy),
                None => self.execute(spec),
            },
            Err(error) => not_executable(format!("cannot reset signals: {error}")),
        };
        // Nobody reads: then nobody wants to know.
        let _ = rustix::io::write(&*self.start, failure.to_message().as_bytes());
        std::process::exit(failure.exit_code())
    }

    /// Whether a program can be executed is not decided before the start: it may come with a mount
    /// or a hook.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The environment is passed to `execve` as it stands in the specification, in its order; only
    /// the home directory, which was looked up in the container, is new.
    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        *self.home.borrow_mut() = envs.get("HOME").cloned();
        Ok(())
    }
}

fn c_strings(texts: &[String]) -> Option<Vec<CString>> {
    texts
        .iter()
        .map(|text| CString::new(text.as_bytes()).ok())
        .collect()
}
