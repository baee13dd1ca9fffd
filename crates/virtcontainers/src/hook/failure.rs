use std::time::Duration;

use vc_types::Hint;

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookFailure {
    /// Its path depends on where one is.
    #[error("its path is not absolute")]
    RelativePath,
    /// Its time is up before it begins.
    #[error("its timeout of {seconds} s is not more than 0")]
    Timeout {
        /// What the bundle has.
        seconds: i64,
    },
    /// What is no variable cannot be in an environment.
    #[error("{entry:?} of its environment is not of the form NAME=VALUE")]
    Environment {
        /// The entry, its beginning.
        entry: String,
    },
    /// The container's state has no form as JSON.
    #[error("the container's state cannot be written")]
    State(#[source] serde_json::Error),
    /// It cannot be started.
    #[error("it cannot be started")]
    Start(#[source] std::io::Error),
    /// The system does not say how it ended.
    #[error("it cannot be waited for")]
    Wait(#[source] std::io::Error),
    /// It ended with an exit code that says so.
    #[error("it ended with exit code {code}{}", said(output))]
    ExitCode {
        /// The code, not 0.
        code: i32,
        /// The last line that it said, escaped; empty when it said nothing.
        output: String,
    },
    /// A signal ended it.
    #[error("signal {signal} ended it{}", said(output))]
    Signal {
        /// The signal's number.
        signal: i32,
        /// The last line that it said, escaped; empty when it said nothing.
        output: String,
    },
    /// It took too long, and was killed.
    #[error("it did not end within {} ms ({}) and was killed{}", limit.as_millis(),
        limit_name(*own), said(output))]
    TimedOut {
        /// How long it had.
        limit: Duration,
        /// Whether that is its own `timeout`; otherwise it is the runtime's limit.
        own: bool,
        /// The last line that it said, escaped; empty when it said nothing.
        output: String,
    },
}

const fn limit_name(own: bool) -> &'static str {
    if own { "its timeout" } else { "limits.hook_ms" }
}

fn said(output: &str) -> String {
    match output {
        "" => String::new(),
        line => format!(": {line}"),
    }
}

impl Hint for HookFailure {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TimedOut { own: true, .. } => {
                Some("raise the hook's `timeout` in config.json if it needs longer".into())
            }
            Self::TimedOut { own: false, .. } => {
                Some("raise `limits.hook_ms` in the configuration if it needs longer".into())
            }
            _ => None,
        }
    }
}
