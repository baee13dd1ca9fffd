//! How virtc fails: a message with its causes and advice, and an exit code from one table.

use std::fmt;
use std::process::ExitCode;

use vc_types::Hint;

use crate::output;

/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// A command of virtc failed.
pub(crate) const FAILED: u8 = 1;
/// `run` itself failed, not what it ran.
pub(crate) const RUN_FAILED: u8 = 125;
/// `exec` itself failed, not what it ran.
pub(crate) const EXEC_FAILED: u8 = 255;
/// What was to run cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// What was to run does not exist.
pub(crate) const NOT_FOUND: u8 = 127;
/// `run --timeout` passed.
pub(crate) const TIMED_OUT: u8 = 124;

/// Why virtc ends without having done what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    causes: Vec<String>,
    notes: Vec<String>,
    hint: Option<String>,
    /// The reader of what was printed has left, which is its right.
    reader_left: bool,
}

impl Failure {
    /// A failure that is told in these words.
    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            causes: Vec::new(),
            notes: Vec::new(),
            hint: None,
            reader_left: false,
        }
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(USAGE, message)
    }

    /// An error with all its causes, and its own advice.
    pub(crate) fn from_error(code: u8, error: &(impl std::error::Error + Hint)) -> Self {
        let mut failure = Self::plain(code, error);
        failure.hint = error.hint();
        failure
    }

    /// An error with all its causes.
    pub(crate) fn plain(code: u8, error: &dyn std::error::Error) -> Self {
        let mut causes = Vec::new();
        let mut said = error.to_string();
        let message = said.clone();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // A wrapper that only repeats its cause says nothing new.
            if text != said {
                causes.push(text.clone());
            }
            said = text;
            next = cause.source();
        }
        Self {
            code,
            message,
            causes,
            notes: Vec::new(),
            hint: None,
            reader_left: false,
        }
    }

    /// The same failure as one of a command that runs others: what is no wrong usage has `code`,
    /// [`RUN_FAILED`] or [`EXEC_FAILED`].
    #[must_use]
    pub(crate) fn of_runner(mut self, code: u8) -> Self {
        if self.code == FAILED {
            self.code = code;
        }
        self
    }

    /// A failure that another process told.
    pub(crate) fn told(
        code: u8,
        message: String,
        causes: Vec<String>,
        hint: Option<String>,
    ) -> Self {
        Self {
            causes,
            hint,
            ..Self::new(code, message)
        }
    }

    /// Message, causes with notes, and advice, to be told by another process.
    pub(crate) fn into_parts(self) -> (String, Vec<String>, Option<String>) {
        let mut causes = self.causes;
        causes.extend(self.notes);
        (self.message, causes, self.hint)
    }

    /// Message and causes on one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.message.clone();
        for cause in self.causes.iter().chain(&self.notes) {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }

    /// Adds advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a line of what else is known.
    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Tells it on stderr, one cause a line.
    pub(crate) fn report(self) -> ExitCode {
        if self.reader_left {
            return ExitCode::SUCCESS;
        }
        output::error(&self.message);
        for cause in &self.causes {
            output::stderr_line(&format!("  cause: {cause}"));
        }
        for note in &self.notes {
            output::stderr_line(&format!("  {note}"));
        }
        if let Some(hint) = &self.hint {
            output::stderr_line(&format!("  hint: {hint}"));
        }
        ExitCode::from(self.code)
    }
}

impl From<virtcontainers::Error> for Failure {
    fn from(error: virtcontainers::Error) -> Self {
        Self::from_error(FAILED, &error)
    }
}

impl From<vc_config::Error> for Failure {
    fn from(error: vc_config::Error) -> Self {
        Self::from_error(FAILED, &error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let reader_left = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self {
            reader_left,
            ..Self::plain(FAILED, &error)
        }
    }
}
