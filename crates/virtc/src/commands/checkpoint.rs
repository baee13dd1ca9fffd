//! Checkpoints, which are not supported.

use virtcontainers::Error;

use super::{Done, container};
use crate::cli::{CheckpointArgs, RestoreArgs};
use crate::error::Failure;

/// Why not.
const REASON: &str = "its processes are in a virtual machine, and CRIU on the host cannot see them";

pub(crate) fn checkpoint(args: &CheckpointArgs) -> Done {
    let id = container(&args.id)?;
    Err(unsupported(format!("a checkpoint of container {id}")))
}

pub(crate) fn restore(args: &RestoreArgs) -> Done {
    let id = container(&args.id)?;
    Err(unsupported(format!(
        "restoring container {id} from a checkpoint"
    )))
}

fn unsupported(what: String) -> Failure {
    Failure::from(Error::Unsupported { what }).note(REASON)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn answer(line: &str) -> String {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
        let done = match &cli.command {
            Command::Checkpoint(args) => checkpoint(args),
            Command::Restore(args) => restore(args),
            _ => panic!("another command"),
        };
        done.unwrap_err().line()
    }

    #[test]
    fn the_answer_to_runcs_flags_names_container_and_reason() {
        let checkpoint = "virtc checkpoint --image-path i --work-path w --parent-path p \
            --leave-running --tcp-established --ext-unix-sk --shell-job --lazy-pages \
            --status-fd -1 --page-server a:1 --file-locks --pre-dump --manage-cgroups-mode soft \
            --empty-ns network --empty-ns ipc --auto-dedup c1";
        let restore = "virtc restore --console-socket s --image-path i --work-path w \
            --tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode soft \
            -b b -d --pid-file f --no-subreaper --no-pivot --empty-ns network --auto-dedup \
            --lazy-pages --lsm-profile a:b --lsm-mount-context c c1";
        for line in [checkpoint, restore] {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = answer(&line);
            assert!(said.contains("container c1"), "{said}");
            assert!(said.contains("is not supported"), "{said}");
            assert!(said.contains("CRIU"), "{said}");
        }
    }

    #[test]
    fn what_runc_does_not_have_is_wrong_usage() {
        for line in ["checkpoint --detach c1", "restore --pre-dump c1", "restore"] {
            let line = format!("virtc {line}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_is_wrong_usage() {
        assert!(answer("virtc checkpoint a/b").contains("is not valid"));
    }
}
