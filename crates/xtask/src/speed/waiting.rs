//! A machine that is started and then waits for input.

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, Stdio};

use anyhow::{Context, Result};

use super::Origin;
use super::stage::Stage;
use crate::floor::Machine;
use crate::process::Process;
use crate::running::Running;

/// Echoes what it reads: it answers, and then waits.
const ECHO: [&str; 2] = ["/bin/busybox", "cat"];

/// A machine whose job has answered, and waits for more.
pub(super) struct Waiting {
    virtc: Running,
    stdin: ChildStdin,
}

/// One whose job may not have answered yet.
pub(super) struct Begun(Waiting);

impl Waiting {
    pub(super) fn begin(stage: &Stage, origin: Origin) -> Result<Begun> {
        let mut command = stage.command_for(origin, "--quiet", &ECHO);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut virtc = Running::spawn(&mut command)?;
        let mut stdin = virtc.0.stdin.take().context("no stdin")?;
        stdin.write_all(b"\n")?;
        Ok(Begun(Self { virtc, stdin }))
    }

    pub(super) fn start(stage: &Stage, origin: Origin) -> Result<Self> {
        Self::begin(stage, origin)?.answered()
    }

    /// The processes of virtc and of the machine.
    pub(super) fn processes(&self) -> Result<Vec<Process>> {
        Process::tree(self.virtc.0.id())
    }

    /// How the machine is made.
    pub(super) fn machine(&self) -> Result<Machine> {
        Machine::of(&self.processes()?)
    }

    /// Ends the job, and waits until nothing is left of the machine.
    pub(super) fn end(self) -> Result<()> {
        drop(self.stdin);
        self.virtc.finish().context("virtc")
    }
}

impl Begun {
    pub(super) fn answered(self) -> Result<Waiting> {
        let mut waiting = self.0;
        let stdout = waiting.virtc.0.stdout.as_mut().context("no stdout")?;
        stdout
            .read_exact(&mut [0])
            .context("the job answered nothing")?;
        Ok(waiting)
    }
}
