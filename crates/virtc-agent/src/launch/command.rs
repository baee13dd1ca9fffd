//! What a ready-made container executes, which comes by a pipe when it is known.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

/// Bytes of a command. A pipe takes them at once, whoever reads.
const COMMAND_BYTES_MAX: usize = 32 << 10;

/// A program with what it is executed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Command {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: PathBuf,
}

/// A command as it goes through the pipe.
#[derive(Debug)]
pub(crate) struct CommandMessage(Vec<u8>);

impl Command {
    /// The command of a process.
    pub(super) fn of(process: &Process) -> Self {
        Self {
            args: process.args().clone().unwrap_or_default(),
            env: process.env().clone().unwrap_or_default(),
            cwd: process.cwd().clone(),
        }
    }

    /// Waits for the command that comes through a pipe.
    pub(super) fn receive(pipe: &OwnedFd) -> io::Result<Self> {
        let mut message = Vec::new();
        File::from(pipe.try_clone()?)
            .take(COMMAND_BYTES_MAX as u64)
            .read_to_end(&mut message)?;
        serde_json::from_slice(&message).map_err(Into::into)
    }
}

impl CommandMessage {
    /// The message for a process; none where it is too long for the pipe.
    pub(crate) fn of(process: &Process) -> Option<Self> {
        let message = serde_json::to_vec(&Command::of(process)).ok()?;
        (message.len() <= COMMAND_BYTES_MAX).then_some(Self(message))
    }

    /// Puts it into a pipe, which takes it at once, and closes that.
    pub(super) fn send(&self, pipe: OwnedFd) -> io::Result<()> {
        File::from(pipe).write_all(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;

    fn process(args: Vec<String>) -> Process {
        let mut process = Process::default();
        process
            .set_args(Some(args))
            .set_env(Some(vec!["A=ä".into()]))
            .set_cwd("/a b".into());
        process
    }

    #[test]
    fn a_command_comes_as_it_was() {
        let process = process(vec!["x".into(), String::new(), "\n\"".into()]);
        let (reading, writing) = pipe().unwrap();
        CommandMessage::of(&process).unwrap().send(writing).unwrap();
        assert_eq!(Command::receive(&reading).unwrap(), Command::of(&process));
    }

    #[test]
    fn what_a_pipe_does_not_take_at_once_is_no_message() {
        let long = process(vec!["x".repeat(COMMAND_BYTES_MAX)]);
        assert!(CommandMessage::of(&long).is_none());
    }

    #[test]
    fn none_is_not_half_of_one() {
        let (reading, writing) = pipe().unwrap();
        File::from(writing).write_all(b"{\"args\":[").unwrap();
        assert!(Command::receive(&reading).is_err());
    }
}
