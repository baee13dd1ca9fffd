//! Makes of the flags and the host what the library is asked for.

mod files;
mod machine_id;
mod network;
mod resolver;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::Capability as OciCapability;
use vc_config::syntax::{
    Capability, EnvVar, Hostname, ScratchSpec, UserSpec, env_file, resolve_capabilities,
};
use vc_config::{Config, HostFacts};
use vc_types::{ContainerId, SandboxId};
use virtcontainers::{
    Access, ContainerConfig, EndpointConfig, HostCgroup, ProcessConfig, Root, RootSource,
    SandboxConfig, Scratch, VmConfig, default_spec,
};

use self::files::{Files, is_host_root};
use self::network::Networking;
use super::environment;
use super::user::Accounts;
use crate::cli::RunArgs;
use crate::error::{Failure, RUN_FAILED};

/// The caller's side of a run.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The current directory, by a path without links.
    pub(crate) cwd: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) facts: HostFacts,
}

/// A run, decided.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) sandbox: SandboxConfig,
    pub(crate) container: ContainerId,
    pub(crate) terminal: bool,
    pub(crate) timeout: Option<Duration>,
    /// What the user should know before it starts.
    pub(crate) notices: Vec<String>,
    /// What the machine sees of the host, for the message about a command that is not found.
    pub(crate) shown: Vec<PathBuf>,
}

/// Decides everything about a run.
///
/// # Errors
///
/// Wrong usage, or a value that names nothing.
pub(crate) fn plan(args: &RunArgs, config: &Config, caller: &Caller) -> Result<Plan, Failure> {
    let id = match &args.name {
        Some(name) => SandboxId::new(name.clone()).map_err(Failure::usage)?,
        None => vc_config::random_name().map_err(|error| Failure::plain(RUN_FAILED, &error))?,
    };
    let container = ContainerId::new(id.as_str()).map_err(Failure::usage)?;
    let host_root = is_host_root(args);
    if host_root && args.writable {
        return Err(Failure::usage(
            "--writable needs the --rootfs that it is to write to",
        ));
    }
    let root_dir = if host_root {
        Path::new("/")
    } else {
        &args.rootfs
    };
    let accounts = Accounts::read(root_dir);
    let user_spec: UserSpec = args.user.as_deref().unwrap_or("0").parse().map_err(usage)?;
    let user = accounts.find(&user_spec)?;

    let hostname = match &args.hostname {
        Some(name) => name.parse::<Hostname>().map_err(usage)?,
        None => Hostname::from_text(id.as_str()),
    };
    let home = Path::new(&user.identity.home);
    let people = Accounts::read(Path::new("/"));
    let networking = Networking::of(args, &caller.cwd)?;
    let resolver = networking.resolver;
    let files = Files::of(args, caller, &people, home, hostname.as_str(), resolver)?;
    let env = environment::environment(
        &caller.env,
        &user.identity,
        host_root,
        args.terminal,
        &asked_environment(args)?,
    );
    let cwd = args.workdir.clone().unwrap_or(files.workdir);
    if !cwd.is_absolute() {
        return Err(Failure::usage(format!(
            "--workdir {} is not absolute",
            cwd.display()
        )));
    }
    let spec = default_spec(ProcessConfig {
        args: args.command.clone(),
        env,
        cwd,
        user: (user.uid, user.gid, user.groups),
        terminal: args.terminal,
        capabilities: capabilities(args)?,
        read_only: args.read_only,
        hostname: Some(hostname.as_str().to_owned()),
    })
    .map_err(|error| Failure::plain(RUN_FAILED, &error))?;

    let access = match (args.writable, args.read_only) {
        (true, _) => Access::ReadWrite,
        (_, true) => Access::ReadOnly,
        _ => Access::Private,
    };
    let source = match host_root {
        true => RootSource::HostSystem,
        false => RootSource::Directory(caller.cwd.join(&args.rootfs)),
    };
    let sandbox = SandboxConfig {
        network: networking.config,
        endpoints: EndpointConfig::of(&config.network)?,
        id,
        hostname: Some(hostname.as_str().to_owned()),
        vm: VmConfig::of(config, &caller.facts, true),
        scratch: scratch(args, config)?,
        containers: vec![ContainerConfig {
            id: container.clone(),
            spec,
            root: Root { source, access },
            volumes: files.volumes,
            mounts: files.mounts,
            files: files.generated,
            attach: true,
            bundle: None,
            stand_in: false,
            cgroup: None,
            hooks: None,
            empty_dirs: files.empty_dirs,
        }],
        annotations: BTreeMap::new(),
        cgroup: HostCgroup::Inherited,
        shared_pids: true,
        throw_away: true,
        host_system_later: false,
    };
    Ok(Plan {
        sandbox,
        container,
        terminal: args.terminal,
        timeout: args.timeout,
        notices: [files.notices, networking.notices].concat(),
        shown: files.shown,
    })
}

fn usage(error: vc_config::Error) -> Failure {
    Failure::from_error(crate::error::USAGE, &error)
}

fn asked_environment(args: &RunArgs) -> Result<Vec<(String, Option<String>)>, Failure> {
    let mut asked = Vec::new();
    for file in &args.env_file {
        asked.extend(
            env_file(file)
                .map_err(usage)?
                .into_iter()
                .map(|v| (v.name, v.value)),
        );
    }
    for text in &args.env {
        let variable: EnvVar = text.parse().map_err(usage)?;
        asked.push((variable.name, variable.value));
    }
    Ok(asked)
}

fn capabilities(args: &RunArgs) -> Result<Vec<OciCapability>, Failure> {
    let parse = |texts: &[String]| {
        texts
            .iter()
            .map(|text| text.parse::<Capability>())
            .collect::<Result<Vec<_>, _>>()
    };
    let add = parse(&args.cap_add).map_err(usage)?;
    let drop = parse(&args.cap_drop).map_err(usage)?;
    let names = resolve_capabilities(&add, &drop).map_err(usage)?;
    names
        .into_iter()
        .map(|name| {
            let bare = name.strip_prefix("CAP_").unwrap_or(name);
            bare.parse::<OciCapability>()
                .map_err(|_| Failure::usage(format!("capability {name} cannot be given")))
        })
        .collect()
}

fn scratch(args: &RunArgs, config: &Config) -> Result<Scratch, Failure> {
    let spec = match &args.scratch {
        Some(text) => text.parse::<ScratchSpec>().map_err(usage)?,
        None => return Ok(usual_scratch(config)),
    };
    Ok(match spec {
        ScratchSpec::Disk(size) => Scratch::Disk { size },
        ScratchSpec::Tmpfs(size) => Scratch::Memory { size },
    })
}

/// The scratch space of a run that asks for none.
fn usual_scratch(config: &Config) -> Scratch {
    match config.scratch.kind {
        vc_config::ScratchKind::Disk => Scratch::Disk {
            size: config.scratch.size,
        },
        vc_config::ScratchKind::Tmpfs => Scratch::Memory {
            size: config.scratch.tmpfs_size,
        },
    }
}

/// The machine of a run that asks for nothing special, without its container.
///
/// # Errors
///
/// When the host cannot be looked at.
pub(crate) fn usual_sandbox(
    id: SandboxId,
    config: &Config,
) -> Result<SandboxConfig, virtcontainers::Error> {
    Ok(SandboxConfig {
        scratch: usual_scratch(config),
        shared_pids: true,
        ..SandboxConfig::empty(id, config, true)?
    })
}
