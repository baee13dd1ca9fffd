use std::process::ExitCode;

use virtcontainers::Error;

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{GlobalArgs, OutputFormat, PsArgs};
use crate::error::Failure;
use crate::output;

/// Who gives the host's `ps` options looks for these processes on the host.
const REASON: &str = "the processes are the guest's, and have no pids on the host";

/// The processes of a container. The numbers are the guest's: on the host there are no such
/// processes.
pub(crate) fn ps(global: &GlobalArgs, args: &PsArgs) -> Done {
    let unsupported = |what: &str| {
        let what = what.to_owned();
        Err(Failure::from(Error::Unsupported { what }).note(REASON))
    };
    if !args.options.is_empty() {
        return unsupported("an option of the host's ps");
    }
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    if args.format.format == OutputFormat::Json {
        // Pids of the host, which engines give to the host's ps: those that stand for processes.
        let sandbox = runtime.find_container(&id)?;
        let pid = runtime.status_container(&sandbox, &id)?.pid;
        output::json(&Vec::from_iter(pid))?;
        return Ok(ExitCode::SUCCESS);
    }
    let processes = block_on(async {
        fetch(&runtime, &id)
            .await?
            .process_list_container(&id)
            .await
    })?
    .map_err(Failure::from)?;
    let rows: Vec<_> = processes
        .into_iter()
        .map(|process| {
            let command = match process.args.is_empty() {
                true => format!("[{}]", process.command),
                false => process.args.join(" "),
            };
            [
                process.uid.to_string(),
                process.pid.to_string(),
                process.parent.to_string(),
                process.state,
                command,
            ]
        })
        .collect();
    let headings = ["UID", "GUEST PID", "PARENT", "STATE", "COMMAND"];
    output::table(headings, &rows)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn refusal(line: &str) -> String {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Ps(args) = &cli.command else {
            panic!("another command");
        };
        ps(&cli.global, args).unwrap_err().line()
    }

    #[test]
    fn what_is_about_pids_of_the_host_is_refused_before_anything_is_asked() {
        let said = refusal("virtc ps c1 -ef");
        assert!(said.contains("is not supported"), "{said}");
        assert!(!refusal("virtc ps --root /nonexistent c1").contains("not supported"));
    }
}
