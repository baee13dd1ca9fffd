//! A log of lines: the agent's goes to the console, a launch's to the agent that waits for it.
//!
//! Written by hand because it has to work in a process that was just forked, and because a
//! formatting subscriber would be the larger part of the agent.

use std::fmt::{self, Write as _};
use std::os::fd::OwnedFd;

use agent_protocol::text_prefix;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Bytes of one line: below what a pipe takes in one piece.
const LINE_BYTES_MAX: usize = 1024;

/// Where the lines go.
pub(crate) enum Sink {
    /// The guest's console, which is our standard error.
    Console,
    /// A pipe to the agent.
    Pipe(OwnedFd),
}

/// Writes each event up to `level` as one line.
pub(crate) struct LineLog {
    pub(crate) level: Level,
    pub(crate) prefix: &'static str,
    pub(crate) sink: Sink,
}

impl LineLog {
    /// Makes this the process's log. A second one is ignored.
    pub(crate) fn install(self) {
        let _ = tracing::subscriber::set_global_default(self);
    }

    fn write(&self, line: &str) {
        // A log that cannot be written has nobody to tell.
        let _ = match &self.sink {
            Sink::Console => rustix::io::write(rustix::stdio::stderr(), line.as_bytes()),
            Sink::Pipe(pipe) => rustix::io::write(pipe, line.as_bytes()),
        };
    }
}

impl Subscriber for LineLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What the libraries warn of is their business until somebody looks for it.
        let is_ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        let level = if is_ours || self.level >= Level::DEBUG {
            self.level
        } else {
            Level::ERROR
        };
        metadata.is_event() && *metadata.level() <= level
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(self.prefix.to_owned());
        event.record(&mut line);
        // One event is one line, whatever is in it.
        let line = line.0.replace(['\n', '\r'], " ");
        self.write(&format!("{}\n", text_prefix(&line, LINE_BYTES_MAX - 1)));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_fields() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let log = LineLog {
            level: Level::ERROR,
            prefix: "log ",
            sink: Sink::Pipe(writer),
        };
        tracing::subscriber::with_default(log, || {
            tracing::info!("not this");
            tracing::error!(path = ?"/x", "failed\nto chdir");
            tracing::error!("{}", "y".repeat(10_000));
        });
        let mut text = String::new();
        std::fs::File::from(reader)
            .read_to_string(&mut text)
            .unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "log failed to chdir path=\"/x\"");
        assert_eq!(lines[1].len(), LINE_BYTES_MAX - 1);
        assert_eq!(lines.len(), 2);
    }
}
