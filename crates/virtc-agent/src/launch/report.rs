//! What a launch says back, as lines: `log TEXT` any number of times, then `ok PID UPTIME` or
//! `err TEXT`. And what a start says when it fails: `CODE TEXT`, or `hook TEXT`.

use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

/// Logged lines that an error quotes.
const QUOTED_LINES_MAX: usize = 4;

/// What the log of `libcontainer` begins with when it cannot enter the working directory; the
/// error itself does not say what it was about.
const CHDIR_LOG: &str = "failed to chdir";

/// Errors in it, by the names that the library prints.
const ENOENT: &str = "ENOENT";
const ENOTDIR: &str = "ENOTDIR";

/// Logs that the working directory cannot be entered, as the library does.
pub(super) fn log_chdir(error: Errno) {
    let name = match error {
        Errno::NOENT => ENOENT,
        Errno::NOTDIR => ENOTDIR,
        _ => "",
    };
    tracing::error!(e = name, "{CHDIR_LOG}");
}

/// A process was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) pid: Pid,
    pub(super) uptime_us: u64,
}

impl Made {
    pub(super) fn to_line(pid: i32, uptime_us: u64) -> String {
        format!("ok {pid} {uptime_us}\n")
    }
}

/// The last line of a failure.
pub(super) fn failure_line(text: &str) -> String {
    format!("err {}\n", text.replace('\n', " "))
}

/// Whether the last line is there.
pub(super) fn is_complete(report: &[u8]) -> bool {
    report.ends_with(b"\n") && {
        let last = report[..report.len() - 1]
            .rsplit(|byte| *byte == b'\n')
            .next();
        last.is_some_and(|line| line.starts_with(b"ok ") || line.starts_with(b"err "))
    }
}

/// The result, or the cause with what was logged on the way to it.
pub(super) fn parse(report: &[u8], cwd: Option<&Path>) -> Result<Made, String> {
    let text = String::from_utf8_lossy(report);
    let mut logged: Vec<&str> = Vec::new();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("ok", rest)) => {
                return parse_made(rest).ok_or_else(|| format!("it reports {line:?}"));
            }
            Some(("err", cause)) => return Err(describe(cause, &logged, cwd)),
            Some(("log", text)) => logged.push(text),
            _ => {}
        }
    }
    Err(describe("its process ended without a report", &logged, cwd))
}

fn parse_made(rest: &str) -> Option<Made> {
    let (pid, uptime) = rest.split_once(' ')?;
    Some(Made {
        pid: Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?)?,
        uptime_us: uptime.parse().ok()?,
    })
}

fn describe(cause: &str, logged: &[&str], cwd: Option<&Path>) -> String {
    if let (Some(line), Some(cwd)) = (logged.iter().find(|line| line.starts_with(CHDIR_LOG)), cwd) {
        let reason = if line.contains(ENOENT) {
            "does not exist"
        } else if line.contains(ENOTDIR) {
            "is not a directory"
        } else {
            "cannot be entered"
        };
        return format!("working directory {cwd:?} {reason}");
    }
    if logged.is_empty() {
        return cause.to_owned();
    }
    // The first lines are nearest to what failed.
    let quoted = logged[..logged.len().min(QUOTED_LINES_MAX)].join("; ");
    format!("{cause} ({quoted})")
}

/// How far a start came that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailedAt {
    /// At a hook: the container cannot be started.
    Hook,
    /// At the program, which could not be executed. The code is 127 when there is no such program,
    /// 126 when it cannot be executed.
    Program { code: i32 },
}

/// Exit code of a process that a hook kept from its program, as for other runtimes.
const HOOK_FAILED: i32 = 1;

/// How a message says that it was a hook.
const HOOK: &str = "hook";

/// Why a program could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartFailure {
    pub(crate) at: FailedAt,
    pub(crate) text: String,
}

impl StartFailure {
    pub(super) fn exit_code(&self) -> i32 {
        match self.at {
            FailedAt::Hook => HOOK_FAILED,
            FailedAt::Program { code } => code,
        }
    }

    pub(super) fn to_message(&self) -> String {
        match self.at {
            FailedAt::Hook => format!("{HOOK} {}", self.text),
            FailedAt::Program { code } => format!("{code} {}", self.text),
        }
    }

    /// Reads what the start pipe carried; nothing at all means that the program runs.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        if message.is_empty() {
            return None;
        }
        let message = String::from_utf8_lossy(message);
        let (word, text) = message.split_once(' ').unwrap_or(("126", &message));
        let at = match word {
            HOOK => FailedAt::Hook,
            code => FailedAt::Program {
                code: code.parse().unwrap_or(126),
            },
        };
        Some(Self {
            at,
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_after_any_log() {
        let report = b"log odd\nok 12 3456\n";
        assert!(is_complete(report));
        assert!(!is_complete(b"log odd\n"));
        assert!(!is_complete(b"log odd\nok 12 34"));
        let made = parse(report, None).unwrap();
        assert_eq!(
            (made.pid.as_raw_nonzero().get(), made.uptime_us),
            (12, 3456)
        );
    }

    #[test]
    fn a_failure_quotes_what_was_logged() {
        let report = b"log failed to mount /x\nerr failed to create container\n";
        assert_eq!(
            parse(report, None).unwrap_err(),
            "failed to create container (failed to mount /x)"
        );
        assert!(parse(b"", None).is_err());
        assert!(parse(b"ok -1 3\n", None).is_err());
    }

    #[test]
    fn a_missing_working_directory_is_named() {
        for (error, reason) in [
            ("ENOENT", "does not exist"),
            ("ENOTDIR", "is not a directory"),
            ("EACCES", "cannot be entered"),
        ] {
            let report = format!("log failed to chdir e={error}\nerr failed\n");
            assert_eq!(
                parse(report.as_bytes(), Some(Path::new("/x"))).unwrap_err(),
                format!("working directory \"/x\" {reason}")
            );
        }
    }

    #[test]
    fn a_start_failure_survives_the_pipe() {
        let program = FailedAt::Program { code: 127 };
        for (at, code) in [(program, 127), (FailedAt::Hook, 1)] {
            let failure = StartFailure {
                at,
                text: "cannot execute \"x\": not found".into(),
            };
            assert_eq!(failure.exit_code(), code);
            let message = failure.to_message();
            assert_eq!(StartFailure::parse(message.as_bytes()), Some(failure));
        }
        assert_eq!(StartFailure::parse(b""), None);
    }
}
