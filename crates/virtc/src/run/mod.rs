//! `virtc run -- COMMAND`: one command in a throw-away virtual machine.

mod bundle;
mod cwd;
mod environment;
mod not_found;
mod plan;
mod progress;
mod session;
pub(crate) mod user;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use vc_config::HostFacts;
use vc_config::syntax::KernelParam;
use virtcontainers::{Runtime, RuntimeOptions, factory};

use crate::cli::{GlobalArgs, RunArgs, RunBundleArgs};
use crate::commands::{Done, load, own_program};
use crate::error::{Failure, RUN_FAILED, USAGE};
use crate::output;
use plan::Caller;
pub(crate) use plan::usual_sandbox;

/// How long what was begun and given up may take to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// Runs it. `entered` is when this process began, on the monotonic clock.
pub(crate) fn run(global: &GlobalArgs, args: &RunArgs, entered: u64) -> Done {
    match (&args.id, args.command.is_empty()) {
        (Some(id), true) => return bundle::run(global, args, id),
        (Some(_), false) => {
            return Err(Failure::usage(
                "run needs its command after `--`, and nothing else before it",
            )
            .hint("virtc run [FLAGS] -- COMMAND, or virtc run [--bundle DIR] ID"));
        }
        (None, _) => {}
    }
    // A failure of run itself has a code that no command of the user's should have.
    run_in_machine(global, args, entered).map_err(|failure| failure.of_runner(RUN_FAILED))
}

fn run_in_machine(global: &GlobalArgs, args: &RunArgs, entered: u64) -> Done {
    let bundle_flag = args.given.iter().find(|flag| RunBundleArgs::owns(flag));
    if let Some(flag) = bundle_flag {
        let flag = flag.replace('_', "-");
        return Err(Failure::usage(format!(
            "--{flag} is of the form `virtc run ID`, which runs a bundle"
        )));
    }
    if args.command.is_empty() {
        return Err(Failure::usage("run needs its command after `--`")
            .hint("virtc run [FLAGS] -- COMMAND, or virtc run [--bundle DIR] ID"));
    }
    if args.terminal && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("-t needs a terminal on stdin"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::from_error(
            RUN_FAILED,
            &virtcontainers::Error::NotRoot,
        ));
    }
    let mut flags = Vec::new();
    if let Some(memory) = args.memory {
        flags.push(("vm.memory", "--memory", memory.bytes().to_string()));
    }
    if let Some(cpus) = args.cpus {
        flags.push(("vm.vcpus", "--cpus", cpus.to_string()));
    }
    let mut loaded = load(global, &flags)?;
    for text in &args.kernel_param {
        let param = text
            .parse::<KernelParam>()
            .map_err(|error| Failure::from_error(USAGE, &error))?;
        loaded.config.guest.kernel_params.push(param.to_string());
    }
    let caller = caller()?;
    let plan = plan::plan(args, &loaded.config, &caller)?;
    if !args.quiet {
        for notice in &plan.notices {
            output::notice(notice);
        }
    }
    let factory = factory::configured(&loaded.config, true);
    let options = RuntimeOptions {
        factory,
        config: loaded.config,
        program: own_program(),
        ..RuntimeOptions::default()
    };
    let runtime = Runtime::open(options)?;
    clean(&runtime);
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::plain(RUN_FAILED, &error))?;
    let code = executor.block_on(session::run(&runtime, args, plan, &caller, entered));
    // What still writes to the disk is undone or done; a thread that reads the host's stdin may
    // wait for ever, and is none of the executor's.
    executor.shutdown_timeout(SHUTDOWN_LIMIT);
    code.map(ExitCode::from)
}

/// Removes what was left by runs that were killed. It is no reason not to run.
fn clean(runtime: &Runtime) {
    match runtime.gc(false) {
        Ok(report) => {
            for removed in &report.removed {
                tracing::info!(name = removed.name, reason = removed.reason, "removed");
            }
            for left in &report.left {
                tracing::warn!(left, "could not be removed");
            }
        }
        Err(error) => tracing::warn!(%error, "what earlier runs left cannot be looked at"),
    }
}

fn caller() -> Result<Caller, Failure> {
    let cwd = std::env::current_dir().map_err(|error| {
        Failure::plain(RUN_FAILED, &error).note("the current directory cannot be found")
    })?;
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    Ok(Caller {
        cwd,
        env: std::env::vars_os().filter_map(text).collect(),
        facts: HostFacts::read()?,
    })
}
