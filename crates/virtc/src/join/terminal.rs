//! The host's terminal: raw while the command has it, and as before whatever happens.

use std::io;
use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal on stdin in raw mode. Dropping it restores the terminal.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes the terminal on stdin raw.
    ///
    /// # Errors
    ///
    /// When stdin is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let terminal = Self { before };
        terminal.raw()?;
        Ok(terminal)
    }

    /// Makes it raw again, after a stop and a continue.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub(crate) fn raw(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        Ok(tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?)
    }
}

impl RawTerminal {
    /// Makes it as it was before, for as long as this process is stopped.
    pub(crate) fn restore(&self) {
        // Nothing more can be done for a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Rows and columns of the terminal on `fd`, where it is one and has a size.
pub(crate) fn size(fd: impl AsFd) -> Option<(u16, u16)> {
    let size = tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
