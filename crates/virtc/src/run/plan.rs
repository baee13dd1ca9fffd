//! Makes of the flags and the host what the library is asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{Capability as OciCapability, Mount, MountBuilder};
use vc_config::syntax::{
    Capability, EnvVar, Hostname, ScratchSpec, TmpfsSpec, UserSpec, VolumeSpec, env_file,
    resolve_capabilities,
};
use vc_config::{Config, HostFacts};
use vc_types::{ContainerId, SandboxId};
use virtcontainers::{
    Access, ContainerConfig, GeneratedFile, ProcessConfig, Root, RootSource, SandboxConfig,
    Scratch, VmConfig, Volume, default_spec,
};

use super::cwd::{self, Cwd};
use super::environment::{self};
use super::user::Accounts;
use crate::cli::RunArgs;
use crate::error::{Failure, RUN_FAILED};

/// The caller's side of a run.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
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
    let host_root = args.rootfs == Path::new("host");
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

    let mut notices = Vec::new();
    let mut volumes = Vec::new();
    let mut empty_dirs = Vec::new();
    let mut shown = Vec::new();
    let system = |path: &Path| {
        host_root
            && virtcontainers::HOST_SYSTEM
                .iter()
                .any(|dir| path.starts_with(dir))
    };
    let workdir = match cwd::decide(args.cwd, &caller.cwd, &accounts.homes()) {
        // It is there already, as part of the root.
        Cwd::Shared(path) | Cwd::Empty(path, _) if system(&path) && !args.writable_cwd => path,
        Cwd::Shared(path) if path == Path::new("/") => {
            return Err(
                Failure::usage("/ cannot be shared as the current directory")
                    .hint("use --show for a part of it, or --rootfs / for all of it"),
            );
        }
        Cwd::Shared(path) => {
            let access = if args.writable_cwd {
                Access::ReadWrite
            } else {
                Access::Private
            };
            shown.push(path.clone());
            volumes.push(Volume {
                source: path.clone(),
                destination: path.clone(),
                access,
            });
            path
        }
        Cwd::Empty(path, why) => {
            notices.extend(why);
            if args.writable_cwd {
                return Err(Failure::usage(
                    "--writable-cwd needs a current directory that is shared",
                )
                .hint("--cwd share shares it whatever it is"));
            }
            if path != Path::new("/") {
                empty_dirs.push(path.clone());
            }
            path
        }
    };
    let home = PathBuf::from(&user.identity.home);
    if host_root
        && home != Path::new("/")
        && !system(&home)
        && !volumes.iter().any(|v| v.destination == home)
    {
        empty_dirs.push(home);
    }
    empty_dirs.sort();
    empty_dirs.dedup();
    for path in &args.show {
        let path = absolute(&caller.cwd, path);
        shown.push(path.clone());
        volumes.push(Volume {
            source: path.clone(),
            destination: path,
            access: Access::ReadOnly,
        });
    }
    for text in &args.volume {
        let volume: VolumeSpec = text.parse().map_err(usage)?;
        let access = if volume.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let source = absolute(&caller.cwd, &volume.source);
        shown.push(PathBuf::from(volume.destination.as_str()));
        volumes.push(Volume {
            source,
            destination: PathBuf::from(volume.destination.as_str()),
            access,
        });
    }
    // What the user names wins over what virtc makes.
    empty_dirs.retain(|dir| !volumes.iter().any(|volume| volume.destination == *dir));

    let hostname = match &args.hostname {
        Some(name) => name.parse::<Hostname>().map_err(usage)?,
        None => Hostname::from_text(id.as_str()),
    };
    let env = environment::environment(
        &caller.env,
        &user.identity,
        host_root,
        args.terminal,
        &asked_environment(args)?,
    );
    let cwd = args.workdir.clone().unwrap_or(workdir);
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
        mounts: tmpfs_mounts(args)?,
    })
    .map_err(|error| Failure::plain(RUN_FAILED, &error))?;

    let access = match (args.writable, args.read_only) {
        (true, _) => Access::ReadWrite,
        (_, true) => Access::ReadOnly,
        _ => Access::Private,
    };
    let source = match host_root {
        true => RootSource::HostSystem,
        false => RootSource::Directory(absolute(&caller.cwd, &args.rootfs)),
    };
    let size = config.vm.size(&caller.facts);
    let sandbox = SandboxConfig {
        id,
        hostname: Some(hostname.as_str().to_owned()),
        vm: VmConfig {
            vcpus: size.vcpus,
            memory: size.memory,
            accelerator: virtcontainers::accelerator_choice(config.runtime.accelerator),
            kernel_params: config.guest.kernel_params.clone(),
            root_ports: u8::try_from(config.hypervisor.qemu.root_ports_throwaway)
                .unwrap_or(u8::MAX),
        },
        scratch: scratch(args, config)?,
        containers: vec![ContainerConfig {
            id: container.clone(),
            spec,
            root: Root { source, access },
            volumes,
            files: generated_files(hostname.as_str()),
            empty_dirs,
        }],
        annotations: BTreeMap::new(),
        shared_pids: true,
        throw_away: true,
    };
    Ok(Plan {
        sandbox,
        container,
        terminal: args.terminal,
        timeout: args.timeout,
        notices,
        shown,
    })
}

fn usage(error: vc_config::Error) -> Failure {
    Failure::from_error(crate::error::USAGE, &error)
}

fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    cwd.join(path)
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

fn tmpfs_mounts(args: &RunArgs) -> Result<Vec<Mount>, Failure> {
    let mut mounts = Vec::new();
    for text in &args.tmpfs {
        let tmpfs: TmpfsSpec = text.parse().map_err(usage)?;
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
        options.extend(tmpfs.no_exec.then(|| "noexec".to_owned()));
        options.extend(tmpfs.read_only.then(|| "ro".to_owned()));
        options.push(format!("mode={:o}", tmpfs.mode.unwrap_or(0o1777)));
        options.extend(tmpfs.size.map(|size| format!("size={}", size.bytes())));
        let mount = MountBuilder::default()
            .destination(PathBuf::from(tmpfs.destination.as_str()))
            .typ("tmpfs")
            .source("tmpfs")
            .options(options)
            .build()
            .map_err(|error| Failure::plain(RUN_FAILED, &error))?;
        mounts.push(mount);
    }
    Ok(mounts)
}

fn scratch(args: &RunArgs, config: &Config) -> Result<Scratch, Failure> {
    let spec = match &args.scratch {
        Some(text) => text.parse::<ScratchSpec>().map_err(usage)?,
        None => match config.scratch.kind {
            vc_config::ScratchKind::Disk => ScratchSpec::Disk(config.scratch.size),
            vc_config::ScratchKind::Tmpfs => ScratchSpec::Tmpfs(config.scratch.tmpfs_size),
        },
    };
    Ok(match spec {
        ScratchSpec::Disk(size) => Scratch::Disk { size },
        ScratchSpec::Tmpfs(size) => Scratch::Memory { size },
    })
}

/// The files that say who the machine is. It has no network, so there is no resolver to name.
fn generated_files(hostname: &str) -> Vec<GeneratedFile> {
    let hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    [
        ("/etc/hosts", hosts),
        ("/etc/hostname", format!("{hostname}\n")),
        ("/etc/resolv.conf", String::new()),
    ]
    .map(|(path, text)| GeneratedFile {
        destination: path.into(),
        contents: text.into_bytes(),
    })
    .into()
}
