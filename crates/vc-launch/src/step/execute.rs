//! The last step.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::fcntl::AtFlags;
use nix::unistd::{execve, execveat};

use super::{AtStep, StepResult};
use crate::error::Step;
use crate::spec::{LaunchSpec, Program};

pub(super) fn execute(spec: &LaunchSpec, program: Option<&OwnedFd>) -> StepResult<Infallible> {
    let path = spec.program.path();
    let first = spec.arg0.as_deref().unwrap_or(path);
    let args = std::iter::once(first).chain(spec.args.iter().map(String::as_str));
    let args = strings(args.map(str::to_owned))?;
    let env = strings(spec.env.iter().map(|(key, value)| format!("{key}={value}")))?;
    match (&spec.program, program) {
        (Program::Path(path), _) => {
            let file = string(path.clone())?;
            execve(&file, &args, &env).at(Step::Exec, || path.clone())
        }
        (Program::Descriptor { path }, Some(file)) => {
            execveat(file, c"", &args, &env, AtFlags::AT_EMPTY_PATH).at(Step::Exec, || path.clone())
        }
        (Program::Descriptor { path }, None) => {
            Err(rustix::io::Errno::BADF).at(Step::Exec, || path.clone())
        }
    }
}

fn strings(all: impl Iterator<Item = String>) -> StepResult<Vec<CString>> {
    all.map(string).collect()
}

fn string(text: String) -> StepResult<CString> {
    CString::new(text)
        .map_err(|_| rustix::io::Errno::INVAL)
        .at(Step::Exec, || "a string with a zero byte".to_owned())
}
