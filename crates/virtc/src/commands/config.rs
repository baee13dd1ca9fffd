use std::process::ExitCode;

use super::{Done, load};
use crate::cli::{FormatArgs, GlobalArgs, OutputFormat};
use crate::output;

pub(crate) fn config(global: &GlobalArgs, args: &FormatArgs) -> Done {
    let effective = load(global, &[])?.effective();
    match args.format {
        OutputFormat::Json => output::json(&effective)?,
        OutputFormat::Table => {
            let rows: Vec<_> = effective
                .iter()
                .map(|one| [one.key.clone(), one.shown(), one.origin.to_string()])
                .collect();
            output::table(["KEY", "VALUE", "FROM"], &rows)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
