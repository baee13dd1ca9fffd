use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// How a virtc ended, and what it printed.
#[derive(Debug)]
pub struct Outcome {
    pub(crate) status: ExitStatus,
    /// What it printed on stdout.
    pub stdout: Vec<u8>,
    /// What it printed on stderr.
    pub stderr: Vec<u8>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Its exit code; 128 + N when signal N ended it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        let found = self.code();
        let (out, err) = (self.out(), self.err());
        assert_eq!(
            found, code,
            "exit code\n--- stdout\n{out}\n--- stderr\n{err}"
        );
        self
    }

    /// Fails the test unless stderr has all of `texts`.
    #[track_caller]
    pub fn expect_err(self, texts: &[&str]) -> Self {
        let err = self.err();
        for text in texts {
            assert!(err.contains(text), "{text:?} is not in stderr:\n{err}");
        }
        self
    }
}
