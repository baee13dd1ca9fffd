//! Where the log goes: stderr, or the file of `--log` in the form of `--log-format`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::{GlobalArgs, LogFormat};
use crate::error::{Failure, USAGE};

/// Starts logging. `RUST_LOG` refines what is logged.
///
/// # Errors
///
/// When the log's file cannot be opened.
pub(crate) fn start(global: &GlobalArgs) -> Result<(), Failure> {
    let level = if global.debug { "debug" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    match &global.log {
        None => subscribe(global.log_format, filter, std::io::stderr),
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path);
            let file = file.map_err(|error| {
                Failure::plain(USAGE, &error).note(format!("the log file is {}", path.display()))
            })?;
            subscribe(global.log_format, filter, file);
        }
    }
    Ok(())
}

fn subscribe<W>(format: LogFormat, filter: EnvFilter, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.event_format(JsonLine).init(),
    }
}

/// One object a line, in the form of runc's log, in which engines look for `level` and `msg`.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = Fields(Map::new());
        event.record(&mut line);
        let Fields(mut line) = line;
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        // runc has the longer word.
        let level = if level == "warn" {
            "warning".to_owned()
        } else {
            level
        };
        line.insert("level".into(), level.into());
        line.insert(
            "time".into(),
            virtcontainers::UnixMillis::now().to_string().into(),
        );
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// The fields of an event, the message among them.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            "message" => "msg",
            name => name,
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}
