//! The one definition of the command line: parser, help, completions and man pages come from it.

mod checkpoint;
mod cp;
mod create;
mod events;
mod exec;
mod factory;
mod guest;
mod install;
mod network;
mod ps;
mod run;
mod run_bundle;
mod spec;
mod update;

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use checkpoint::{CheckpointArgs, RestoreArgs};
pub(crate) use cp::{CpArgs, Side};
pub(crate) use create::CreateArgs;
pub(crate) use events::EventsArgs;
pub(crate) use exec::ExecArgs;
pub(crate) use factory::{FactoryArgs, FactoryCommand};
pub(crate) use guest::{GuestArgs, GuestCommand};
pub(crate) use install::{
    ContainerdArgs, InstallArgs, InstallTarget, UninstallArgs, UninstallTarget,
};
pub(crate) use network::{NetworkArgs, NetworkCommand};
pub(crate) use ps::PsArgs;
pub(crate) use run::{CwdMode, RunArgs};
pub(crate) use run_bundle::RunBundleArgs;
pub(crate) use spec::SpecArgs;
pub(crate) use update::UpdateArgs;

/// Secure containers: each in a lightweight virtual machine of its own.
#[derive(Debug, Parser)]
#[command(
    name = "virtc",
    version,
    disable_help_subcommand = true,
    propagate_version = false
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The command line of this process.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or that help was asked for.
    pub(crate) fn from_process() -> Result<Self, clap::Error> {
        let command = Self::command();
        let matches = command.clone().try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Command::Run(args), Some((name, given))) = (&mut cli.command, matches.subcommand())
        {
            let flags = command.find_subcommand(name).into_iter();
            let ids = flags.flat_map(|run| run.get_arguments().map(|flag| flag.get_id().as_str()));
            let typed = |id: &&str| given.value_source(id) == Some(ValueSource::CommandLine);
            args.given = ids.filter(typed).map(str::to_owned).collect();
        }
        Ok(cli)
    }
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalArgs {
    /// The configuration file [default: /etc/virtcontainers/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the state of sandboxes is kept [default: /run/virtcontainers]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Write the log to this file instead of stderr
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// The form of the log
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log what a developer wants to know
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// The paths of cgroups have systemd's form, slice:prefix:name
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
    /// Taken for the sake of callers: virtc runs as root. Before the command only, as with runc:
    /// `spec` has a flag of this name.
    #[arg(long, hide = true, value_name = "WHEN")]
    pub(crate) rootless: Option<String>,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The form of what a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    #[default]
    Table,
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one command in a throw-away virtual machine: `virtc run FLAGS -- COMMAND`
    Run(Box<RunArgs>),
    /// Make a container of an OCI bundle
    Create(CreateArgs),
    /// Start the process of a container that was created
    Start(IdArgs),
    /// Run another process in a running container: `virtc exec FLAGS ID COMMAND`
    Exec(Box<ExecArgs>),
    Cp(CpArgs),
    Network(NetworkArgs),
    Guest(GuestArgs),
    /// Show the processes of a container, as its guest knows them
    Ps(PsArgs),
    /// Send a signal to a container
    Kill(KillArgs),
    /// Show the state of a container
    State(IdArgs),
    /// Stop the processes of a container where they are
    Pause(IdArgs),
    /// Let the processes of a paused container go on
    Resume(IdArgs),
    Update(Box<UpdateArgs>),
    Events(EventsArgs),
    /// Say whether this host can run virtual machines, and how well
    Check(FormatArgs),
    Install(InstallArgs),
    Uninstall(UninstallArgs),
    /// List the containers, those of throw-away virtual machines included
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Remove a container and its sandbox
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Write a `config.json` to begin with
    Spec(SpecArgs),
    /// Show what of the OCI runtime specification is there, as JSON
    Features,
    /// Not supported: a checkpoint of a container
    Checkpoint(CheckpointArgs),
    /// Not supported: a container of a checkpoint
    Restore(RestoreArgs),
    /// Show what the guest's console and the processes of a sandbox printed
    Logs(LogsArgs),
    /// Remove what sandboxes whose keeper is gone have left
    Gc(GcArgs),
    /// Show, make and remove the templates from which VMs start
    Factory(FactoryArgs),
    /// Show the configuration in force, and where each value comes from
    Config(FormatArgs),
    /// Show the versions of everything that takes part
    Version(FormatArgs),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write all of them into a directory
    Man {
        /// Write a page for each command into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// A command with nothing but a format.
#[derive(Clone, Debug, Args)]
pub(crate) struct FormatArgs {
    /// The form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: OutputFormat,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Print ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// A command with nothing but the container that it is about.
#[derive(Clone, Debug, Args)]
pub(crate) struct IdArgs {
    /// The container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct KillArgs {
    /// To all processes of the container instead of its first
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The signal, by name or number
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub(crate) signal: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DeleteArgs {
    /// End it first if it runs, and clean up whatever can be found by its name
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The names of what is to be deleted
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArgs {
    /// The sandbox
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The form of the output: lines of text (table), or an object for each line (json)
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: OutputFormat,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_throw_away_form_needs_its_dashes() {
        assert!(Cli::try_parse_from(["virtc", "run", "--", "true"]).is_ok());
        let Ok(Cli {
            command: Command::Run(run),
            ..
        }) = Cli::try_parse_from(["virtc", "run", "id", "--", "true"])
        else {
            panic!("the other form is parsed, to be named in the error");
        };
        assert_eq!(run.id.as_deref(), Some("id"));
    }

    #[test]
    fn flags_after_the_dashes_are_the_commands_own() {
        let Ok(Cli {
            command: Command::Run(run),
            global,
        }) = Cli::try_parse_from(["virtc", "run", "-t", "--", "ls", "--debug", "-q"])
        else {
            panic!("parses");
        };
        assert_eq!(run.command, ["ls", "--debug", "-q"]);
        assert!(!global.debug && !run.quiet && run.terminal);
    }
}
