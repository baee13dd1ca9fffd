//! A container that is started and left to itself, until a process that is added to it has succeeded.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::Origin;
use super::stage::Stage;
use crate::commands::bundle;
use crate::rows::Rows;
use crate::running::Running;

/// The container that is measured.
const ID: &str = "measured";

/// A bundle whose container sleeps, for machines of the stage's virtc.
pub(super) struct Detached<'a> {
    stage: &'a Stage,
    bundle: PathBuf,
}

impl<'a> Detached<'a> {
    /// Makes the bundle, and the template of machines for containers.
    pub(super) fn make(stage: &'a Stage, work: &Path) -> Result<Self> {
        let detached = Self {
            stage,
            bundle: bundle::make(work)?,
        };
        detached.done(Origin::Template, &["factory", "init", "--containers"])?;
        Ok(detached)
    }

    /// Measures from the start of a container until an exec in it has succeeded.
    pub(super) fn measure(&self, origin: Origin, rows: &mut Rows) -> Result<()> {
        if origin == Origin::Cache {
            let warm = ["factory", "warm", "--containers", "--number", "1"];
            self.done(origin, &warm)?;
        }
        let bundle = self.bundle.display().to_string();
        let began = Instant::now();
        let _started = Started(self, origin);
        let mut run = self.command(origin, &["run", "--detach", "--bundle", &bundle, ID]);
        // What stands for the container complains there of how it is removed.
        run.stderr(Stdio::null());
        Running::spawn(&mut run)?.finish().context("virtc run")?;
        self.done(origin, &["exec", ID, "/bin/busybox", "true"])?;
        rows.add(&origin.first_exec(), began.elapsed());
        Ok(())
    }

    /// Runs virtc, which is to succeed.
    fn done(&self, origin: Origin, args: &[&str]) -> Result<()> {
        let running = Running::spawn(&mut self.command(origin, args))?;
        running.finish().with_context(|| format!("virtc {args:?}"))
    }

    fn command(&self, origin: Origin, args: &[&str]) -> Command {
        let mut command = self.stage.virtc(origin);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

/// A container that may have been started, and is removed with this.
struct Started<'a>(&'a Detached<'a>, Origin);

impl Drop for Started<'_> {
    fn drop(&mut self) {
        // Where it was not made, there is nothing to remove; the next one of its name fails else.
        let Self(detached, origin) = self;
        let _ = detached
            .command(*origin, &["delete", "--force", ID])
            .status();
    }
}
