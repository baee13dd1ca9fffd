//! A program of a measurement that does not outlive it.

use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};

/// It is killed and reaped when this is dropped.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts it.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.spawn();
        Ok(Self(child.with_context(|| {
            format!("{}", command.get_program().display())
        })?))
    }

    /// Waits until it has ended, as it should.
    ///
    /// # Errors
    ///
    /// How it ended otherwise.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.0.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has mostly ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
