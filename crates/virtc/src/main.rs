//! `virtc`: the command line of virtcontainers. It parses arguments, shows what the library says,
//! and joins the standard streams; how a sandbox works is not here.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod error;
mod join;
mod log;
mod output;
mod run;
mod stand_in;

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::error::Failure;

fn main() -> ExitCode {
    let entered = vc_types::Timeline::now();
    // The processes of a sandbox begin here too; they get nothing of what a command needs.
    if let Some(code) = commands::internal::dispatch() {
        return code;
    }
    let cli = match Cli::from_process() {
        Ok(cli) => cli,
        Err(error) => {
            let shown = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            // A reader of the help that leaves early is no fault.
            let _ = error.print();
            return if shown {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(error::USAGE)
            };
        }
    };
    if let Err(failure) = log::start(&cli.global) {
        return failure.report();
    }
    // Guards have undone what was begun; the hook has said where it was.
    std::panic::catch_unwind(|| command(&cli, entered)).unwrap_or_else(|_| {
        let code = match &cli.command {
            Command::Run(_) => error::RUN_FAILED,
            Command::Exec(_) => error::EXEC_FAILED,
            _ => error::FAILED,
        };
        Failure::new(code, "this is a defect of virtc")
            .hint("please report it with what is above")
            .report()
    })
}

fn command(cli: &Cli, entered: u64) -> ExitCode {
    let global = &cli.global;
    let done = match &cli.command {
        Command::Run(args) => run::run(global, args, entered),
        Command::Create(args) => commands::create::create(global, args),
        Command::Start(args) => commands::start::start(global, args),
        Command::Exec(args) => commands::exec::exec(global, args),
        Command::Cp(args) => commands::cp::cp(global, args),
        Command::Network(args) => commands::network::network(global, args),
        Command::Guest(args) => commands::guest::guest(args),
        Command::Ps(args) => commands::ps::ps(global, args),
        Command::Kill(args) => commands::kill::kill(global, args),
        Command::State(args) => commands::state::state(global, args),
        Command::Pause(args) => commands::pause::pause(global, args),
        Command::Resume(args) => commands::pause::resume(global, args),
        Command::Update(args) => commands::update::update(global, args),
        Command::Events(args) => commands::events::events(global, args),
        Command::Check(args) => commands::check::check(global, args),
        Command::Install(args) => commands::install::install(global, args),
        Command::Uninstall(args) => commands::install::uninstall(global, args),
        Command::List(args) => commands::list::list(global, args),
        Command::Delete(args) => commands::delete::delete(global, args),
        Command::Spec(args) => commands::spec::spec(args),
        Command::Features => commands::features::features(),
        Command::Checkpoint(args) => commands::checkpoint::checkpoint(args),
        Command::Restore(args) => commands::checkpoint::restore(args),
        Command::Logs(args) => commands::logs::logs(global, args),
        Command::Gc(args) => commands::gc::gc(global, args),
        Command::Factory(args) => commands::factory::factory(global, args),
        Command::Config(args) => commands::config::config(global, args),
        Command::Version(args) => commands::version::version(global, args),
        Command::Completions { shell } => commands::generate::completions(*shell),
        Command::Man { dir } => commands::generate::man(dir.as_deref()),
    };
    done.unwrap_or_else(|failure| {
        if global.log.is_some() {
            // Where engines look for the reason.
            tracing::error!("{}", failure.line());
        }
        failure.report()
    })
}
