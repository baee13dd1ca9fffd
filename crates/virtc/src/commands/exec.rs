use std::fs::File;
use std::io::{BufReader, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use oci_spec::runtime::{Capability as OciCapability, LinuxCapabilities, Process as ProcessSpec};
use vc_config::syntax::{Capability, EnvVar, UserPart, UserSpec};
use virtcontainers::{Runtime, SandboxHandle, fault};

use super::{Done, block_on, container, fetch, runtime};
use crate::cli::{ExecArgs, GlobalArgs};
use crate::error::{EXEC_FAILED, Failure, USAGE};
use crate::join::{Added, End, Joined, Signals, exit_code, signal_code};
use crate::output;
use crate::stand_in::{self, Request, Task};

pub(crate) fn exec(global: &GlobalArgs, args: &ExecArgs) -> Done {
    if args.terminal && !args.detach && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("-t needs a terminal on stdin"));
    }
    if args.command.is_empty() && args.process.is_none() {
        return Err(Failure::usage(
            "exec needs a command after the container's name",
        ));
    }
    if args.detach {
        return detached(global, args).map_err(|failure| failure.of_runner(EXEC_FAILED));
    }
    let runtime = runtime(global)?;
    let code = block_on(run(&runtime, args)).and_then(|ended| ended);
    code.map(ExitCode::from)
        .map_err(|failure| failure.of_runner(EXEC_FAILED))
}

/// Leaves the process to a stand-in.
fn detached(global: &GlobalArgs, args: &ExecArgs) -> Done {
    let runtime = runtime(global)?;
    let id = container(&args.id)?;
    let process = match &args.process {
        Some(file) => described(file, args.terminal)?,
        None => {
            let sandbox = runtime.find_container(&id)?;
            changed(runtime.container_process(&sandbox, &id)?, args)?
        }
    };
    let task = Task::Enter {
        process: Box::new(process),
    };
    let stand_in = stand_in::start(&Request::new(
        id.to_string(),
        task,
        &args.console_socket,
        global,
    ))?;
    if let Some(file) = &args.pid_file {
        stand_in::write_pid(file, stand_in.id())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(runtime: &Runtime, args: &ExecArgs) -> Result<u8, Failure> {
    let id = container(&args.id)?;
    let signals = Signals::take().map_err(|error| Failure::plain(EXEC_FAILED, &error))?;
    let sandbox = fetch(runtime, &id).await?;
    let spec = match &args.process {
        Some(file) => described(file, args.terminal)?,
        None => changed(runtime.container_process(sandbox.id(), &id)?, args)?,
    };
    let terminal = spec.terminal() == Some(true);
    if terminal && !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "the process is to have a terminal, and stdin is none",
        ));
    }
    // Where virtc is killed, nobody else looks after the process.
    let (process, _lease) = sandbox.enter_container_leased(&id, &spec).await?;
    let code = joined(runtime, &sandbox, Added::new(process), signals, terminal).await?;
    fault::point("exec.ended")?;
    Ok(code)
}

/// Stays with the process until it has ended and its output is where it belongs.
async fn joined(
    runtime: &Runtime,
    sandbox: &SandboxHandle,
    job: Added,
    signals: Signals,
    terminal: bool,
) -> Result<u8, Failure> {
    let limits = &runtime.config().limits;
    let mut joined = Joined::new(job, limits, signals, terminal, Arc::default());
    let ended = joined.command(None).await?;
    Ok(match ended {
        End::Exited(exit) => {
            if let Some(text) = &exit.start_error {
                output::error(text);
            }
            exit_code(&exit)
        }
        // There is no time limit.
        End::TimedOut => EXEC_FAILED,
        End::Ended(signal) => {
            // The machine goes on, and nobody else looks after the process.
            if let Err(error) = joined.kill().await {
                tracing::debug!(sandbox = %sandbox.id(), %error, "the process is gone already");
            }
            signal_code(signal)
        }
    })
}

/// The process of a file; engines say by a flag too that it is to have a terminal.
fn described(file: &std::path::Path, terminal: bool) -> Result<ProcessSpec, Failure> {
    let named = |failure: Failure| failure.note(format!("--process {}", file.display()));
    let opened = File::open(file).map_err(|error| named(Failure::plain(USAGE, &error)))?;
    let mut process: ProcessSpec = serde_json::from_reader(BufReader::new(opened))
        .map_err(|error| named(Failure::plain(USAGE, &error)))?;
    if terminal {
        process.set_terminal(Some(true));
    }
    Ok(process)
}

/// The container's own process with what the flags say.
fn changed(mut process: ProcessSpec, args: &ExecArgs) -> Result<ProcessSpec, Failure> {
    process
        .set_args(Some(args.command.clone()))
        .set_terminal(Some(args.terminal))
        .set_console_size(None);
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    for text in &args.env {
        let variable: EnvVar = text.parse().map_err(Failure::usage)?;
        let Some(value) = variable.value else {
            return Err(Failure::usage(format!("--env {text} gives no value")));
        };
        let begin = format!("{}=", variable.name);
        env.retain(|entry| !entry.starts_with(&begin));
        env.push(format!("{begin}{value}"));
    }
    process.set_env(Some(env));
    if let Some(text) = &args.user {
        set_user(&mut process, text)?;
    }
    let mut groups = process.user().additional_gids().clone().unwrap_or_default();
    groups.extend(&args.additional_gids);
    process.user_mut().set_additional_gids(Some(groups));
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

/// Another user has none of the groups of the container's, and no capabilities in effect unless it
/// is root.
fn set_user(process: &mut ProcessSpec, text: &str) -> Result<(), Failure> {
    let spec: UserSpec = text.parse().map_err(Failure::usage)?;
    let number = |part: &UserPart| match part {
        UserPart::Id(id) => Ok(*id),
        UserPart::Name(name) => Err(Failure::usage(format!(
            "--user {name}: names are not looked up in a running container; give numbers"
        ))),
    };
    let uid = number(&spec.user)?;
    let gid = spec.group.as_ref().map_or(Ok(0), number)?;
    process
        .user_mut()
        .set_uid(uid)
        .set_gid(gid)
        .set_additional_gids(None);
    if let Some(mut capabilities) = process.capabilities().clone() {
        let effective = match uid {
            0 => capabilities.bounding().clone(),
            _ => Some(Default::default()),
        };
        capabilities
            .set_effective(effective.clone())
            .set_permitted(effective)
            .set_ambient(Some(Default::default()));
        process.set_capabilities(Some(capabilities));
    }
    Ok(())
}

fn add_capabilities(process: &mut ProcessSpec, texts: &[String]) -> Result<(), Failure> {
    for text in texts {
        let capability: Capability = text.parse().map_err(Failure::usage)?;
        let name = capability.to_string();
        let bare = name.strip_prefix("CAP_").unwrap_or(&name);
        let capability: OciCapability = bare
            .parse()
            .map_err(|_| Failure::usage(format!("--cap {text} is not one capability")))?;
        let mut all = process.capabilities().clone().unwrap_or_else(none);
        let with = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) = (
            with(all.bounding()),
            with(all.effective()),
            with(all.permitted()),
        );
        all.set_bounding(bounding)
            .set_effective(effective)
            .set_permitted(permitted);
        process.set_capabilities(Some(all));
    }
    Ok(())
}

fn none() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    let empty = Some(oci_spec::runtime::Capabilities::default());
    none.set_bounding(empty.clone())
        .set_effective(empty.clone())
        .set_permitted(empty.clone())
        .set_inheritable(empty.clone())
        .set_ambient(empty);
    none
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(flags: &[&str]) -> ExecArgs {
        let line = ["virtc", "exec"]
            .iter()
            .chain(flags)
            .chain(&["c1", "ps", "-ef"]);
        let Ok(Cli {
            command: Command::Exec(args),
            ..
        }) = Cli::try_parse_from(line)
        else {
            panic!("{flags:?} parse");
        };
        *args
    }

    #[test]
    fn flags_change_the_containers_process_and_leave_the_rest() {
        let mut own = ProcessSpec::default();
        own.set_env(Some(vec!["A=1".into(), "B=2".into()]))
            .set_cwd("/srv".into());
        let plain = changed(own.clone(), &args(&[])).unwrap();
        assert_eq!(plain.args().as_deref().unwrap(), ["ps", "-ef"]);
        assert_eq!(plain.cwd().to_str(), Some("/srv"));

        let flags = [
            "-e", "A=3", "--cwd", "/", "-u", "7:8", "-g", "9", "-c", "CAP_KILL",
        ];
        let process = changed(own, &args(&flags)).unwrap();
        assert_eq!(process.env().as_deref().unwrap(), ["B=2", "A=3"]);
        let user = process.user();
        assert_eq!((user.uid(), user.gid()), (7, 8));
        assert_eq!(user.additional_gids().as_deref(), Some(&[9][..]));
        let capabilities = process.capabilities().as_ref().unwrap();
        for set in [capabilities.effective(), capabilities.bounding()] {
            assert!(set.as_ref().unwrap().contains(&OciCapability::Kill));
        }
    }

    #[test]
    fn another_user_loses_what_root_has_in_effect() {
        let effective = |uid: &str| {
            let process = changed(ProcessSpec::default(), &args(&["-u", uid])).unwrap();
            process
                .capabilities()
                .as_ref()
                .unwrap()
                .effective()
                .clone()
                .unwrap()
        };
        assert!(effective("5").is_empty());
        assert!(!effective("0").is_empty());
        assert!(changed(ProcessSpec::default(), &args(&["-u", "nobody"])).is_err());
        assert!(changed(ProcessSpec::default(), &args(&["-e", "A"])).is_err());
    }
}
