use std::process::ExitCode;

use virtcontainers::CheckStatus;

use super::{Done, runtime};
use crate::cli::{FormatArgs, GlobalArgs, OutputFormat};
use crate::error::FAILED;
use crate::output;

pub(crate) fn check(global: &GlobalArgs, args: &FormatArgs) -> Done {
    let items = runtime(global)?.check();
    match args.format {
        OutputFormat::Json => output::json(&items)?,
        OutputFormat::Table => {
            let rows: Vec<_> = items
                .iter()
                .map(|item| {
                    let mend = item.mend.as_ref().map(|mend| format!(" (mend: {mend})"));
                    let found = format!("{}{}", item.found, mend.unwrap_or_default());
                    [item.name.to_owned(), item.status.name().to_owned(), found]
                })
                .collect();
            output::table(["WHAT", "STATUS", "FOUND"], &rows)?;
        }
    }
    let starts = items.iter().all(|item| item.status != CheckStatus::Missing);
    Ok(if starts {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}
