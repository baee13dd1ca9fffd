use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::ExitCode;

use serde::Serialize;
use vc_types::SandboxId;
use vc_types::limits::CONSOLE_LOG_BYTES_MAX;
use virtcontainers::{CONSOLE_LOG, PROCESS_LOGS, VMM_LOG};

use super::{Done, runtime};
use crate::cli::{GlobalArgs, LogsArgs, OutputFormat};
use crate::error::Failure;
use crate::output;

/// One line of a log.
#[derive(Debug, Serialize)]
struct Line<'a> {
    source: &'a str,
    line: &'a str,
}

/// Prints the console and what the processes said. Control characters are escaped: the guest
/// wrote most of it.
pub(crate) fn logs(global: &GlobalArgs, args: &LogsArgs) -> Done {
    let id = SandboxId::new(args.name.clone()).map_err(Failure::usage)?;
    let directory = runtime(global)?.sandbox_directory(&id)?;
    for name in [CONSOLE_LOG, VMM_LOG].into_iter().chain(PROCESS_LOGS) {
        let file = match File::open(directory.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let source = name.trim_end_matches(".log");
        for line in BufReader::new(file.take(2 * CONSOLE_LOG_BYTES_MAX)).split(b'\n') {
            let line = vc_types::one_line(&String::from_utf8_lossy(&line?));
            match args.format {
                OutputFormat::Table => output::line(&format!("{source}: {line}"))?,
                OutputFormat::Json => {
                    let object = Line {
                        source,
                        line: &line,
                    };
                    let text = serde_json::to_string(&object).map_err(std::io::Error::from)?;
                    output::line(&text)?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
