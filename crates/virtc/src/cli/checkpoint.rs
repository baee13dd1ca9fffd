//! Checkpoints are not supported. Their flags are known, so that whoever asks with runc's gets
//! that answer instead of one about a flag.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// A flag of runc 1.1: its name, its letter, and what it takes.
type Flag = (&'static str, Option<char>, Takes);

#[derive(Clone, Copy, Debug)]
enum Takes {
    Nothing,
    Value,
}
use Takes::{Nothing, Value};

/// Those that both commands have.
const SHARED: [Flag; 10] = [
    ("image-path", None, Value),
    ("work-path", None, Value),
    ("tcp-established", None, Nothing),
    ("ext-unix-sk", None, Nothing),
    ("shell-job", None, Nothing),
    ("lazy-pages", None, Nothing),
    ("file-locks", None, Nothing),
    ("manage-cgroups-mode", None, Value),
    ("empty-ns", None, Value),
    ("auto-dedup", None, Nothing),
];

const CHECKPOINT: [Flag; 5] = [
    ("parent-path", None, Value),
    ("leave-running", None, Nothing),
    ("status-fd", None, Value),
    ("page-server", None, Value),
    ("pre-dump", None, Nothing),
];

const RESTORE: [Flag; 8] = [
    ("console-socket", None, Value),
    ("bundle", Some('b'), Value),
    ("detach", Some('d'), Nothing),
    ("pid-file", None, Value),
    ("no-subreaper", None, Nothing),
    ("no-pivot", None, Nothing),
    ("lsm-profile", None, Value),
    ("lsm-mount-context", None, Value),
];

/// What `virtc checkpoint` is about; its flags change nothing.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointArgs {
    /// The container
    pub(crate) id: String,
}

/// What `virtc restore` is about; its flags change nothing.
#[derive(Clone, Debug)]
pub(crate) struct RestoreArgs {
    /// The container
    pub(crate) id: String,
}

fn with_flags(command: Command, own: &[Flag]) -> Command {
    let flags = SHARED.iter().chain(own).map(|&(name, letter, takes)| {
        let flag = Arg::new(name).long(name).hide(true);
        let flag = match letter {
            Some(letter) => flag.short(letter),
            None => flag,
        };
        match takes {
            Nothing => flag.action(ArgAction::SetTrue),
            // One that is given twice is no other answer.
            Value => flag.action(ArgAction::Append).allow_hyphen_values(true),
        }
    });
    let id = Arg::new("id").value_name("ID").help("The container");
    command.args(flags).arg(id.required(true))
}

fn id(matches: &ArgMatches) -> String {
    matches.get_one::<String>("id").cloned().unwrap_or_default()
}

macro_rules! args {
    ($name:ident, $flags:ident) => {
        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self { id: id(matches) })
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.id = id(matches);
                Ok(())
            }
        }

        impl Args for $name {
            fn augment_args(command: Command) -> Command {
                with_flags(command, &$flags)
            }

            fn augment_args_for_update(command: Command) -> Command {
                with_flags(command, &$flags)
            }
        }
    };
}

args!(CheckpointArgs, CHECKPOINT);
args!(RestoreArgs, RESTORE);
