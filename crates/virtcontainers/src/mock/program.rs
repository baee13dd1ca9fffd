use vc_types::{ExitStatus, Signal};

/// What a process of a played guest does. It is found by the first of the process's arguments.
///
/// ```
/// use vc_types::Signal;
/// use virtcontainers::mock::Program;
///
/// let server = Program::running().printing("listening\n").ignoring(Signal::TERM);
/// let check = Program::exiting(1).printing_error("no such file\n");
/// # let _ = (server, check);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    /// Whether what it reads goes to its output, until there is no more.
    pub(super) echoes: bool,
    /// How it ends by itself.
    pub(super) exit: Option<ExitStatus>,
    pub(super) ignored: Vec<Signal>,
    /// Why it cannot be executed.
    pub(super) start_error: Option<String>,
}

impl Program {
    /// It runs until a signal ends it.
    pub fn running() -> Self {
        Self::default()
    }

    /// It ends with this code as soon as it has printed.
    pub fn exiting(code: u8) -> Self {
        Self {
            exit: Some(ExitStatus::Code(code)),
            ..Self::default()
        }
    }

    /// It prints what it reads, as `cat`, and ends with code 0 when there is no more.
    pub fn echoing() -> Self {
        Self {
            echoes: true,
            exit: Some(ExitStatus::Code(0)),
            ..Self::default()
        }
    }

    /// It is ended by this signal as soon as it has printed.
    pub fn killed_by(signal: Signal) -> Self {
        Self {
            exit: Some(ExitStatus::Signal {
                signal: signal.number(),
                oom: false,
            }),
            ..Self::default()
        }
    }

    /// It cannot be executed because it is not there: the code is 127.
    pub fn missing() -> Self {
        Self {
            exit: Some(ExitStatus::Code(127)),
            start_error: Some("no such file or directory".into()),
            ..Self::default()
        }
    }

    /// It prints this first.
    #[must_use]
    pub fn printing(mut self, text: impl AsRef<[u8]>) -> Self {
        self.stdout.extend_from_slice(text.as_ref());
        self
    }

    /// It prints this to its standard error first.
    #[must_use]
    pub fn printing_error(mut self, text: impl AsRef<[u8]>) -> Self {
        self.stderr.extend_from_slice(text.as_ref());
        self
    }

    /// The signal does not end it. KILL cannot be ignored.
    #[must_use]
    pub fn ignoring(mut self, signal: Signal) -> Self {
        self.ignored.push(signal);
        self
    }

    /// Whether the signal ends it.
    pub(super) fn ends_by(&self, signal: Signal) -> bool {
        /// CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH, see signal(7).
        const HARMLESS: [u8; 8] = [17, 18, 19, 20, 21, 22, 23, 28];
        signal == Signal::KILL
            || !(self.ignored.contains(&signal) || HARMLESS.contains(&signal.number()))
    }
}
