use std::process::ExitCode;

use super::{Done, runtime};
use crate::cli::{GcArgs, GlobalArgs, OutputFormat};
use crate::error::FAILED;
use crate::output;

pub(crate) fn gc(global: &GlobalArgs, args: &GcArgs) -> Done {
    let report = runtime(global)?.gc(args.dry_run)?;
    match args.format.format {
        OutputFormat::Json => output::json(&report)?,
        OutputFormat::Table => {
            for removed in &report.removed {
                let what = if args.dry_run {
                    "would remove"
                } else {
                    "removed"
                };
                output::line(&format!("{what} {} ({})", removed.name, removed.reason))?;
            }
        }
    }
    for left in &report.left {
        output::error(&format!("not removed: {left}"));
    }
    Ok(if report.left.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}
