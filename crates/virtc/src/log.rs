//! Where the log goes: stderr, or the file of `--log` in the form of `--log-format`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
        LogFormat::Json => builder.json().init(),
    }
}
