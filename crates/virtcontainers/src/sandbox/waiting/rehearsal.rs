//! What a machine does once before it waits: it has its containers, so that its emulator has
//! translated, and its guest has in memory, what those of a taker need.

use std::path::Path;

use default_spec::{DEFAULT_CAPABILITIES, ProcessConfig, default_spec};
use vc_types::ContainerId;

use super::request::WaitingConfig;
use crate::container::{
    Access, ContainerConfig, GeneratedFile, Propagation, Root, RootSource, Volume,
};
use crate::error::{Error, Result};
use crate::runtime::blocking;
use crate::sandbox::Sandbox;
use crate::stream::{GuestWait, Streams};

/// How often. What the first time has translated, the second time connects.
const TIMES: usize = 2;

/// A program that every system has, and that ends at once.
const COMMAND: &str = "true";

/// Where a container with a root of its own finds a program, and what makes that end at once.
const PROGRAM: [&str; 2] = ["/program", "version"];

/// Where the container has a directory of the host, and one of its own.
const SHOWN: &str = "/mnt/rehearsal";
const EMPTY: &str = "/mnt/empty";

/// Has the sandbox make, run and remove containers like those of a run, with this directory of the
/// host as the current one.
///
/// # Errors
///
/// Those of making and removing a container. That its program fails is none.
pub(super) async fn rehearse(
    sandbox: &Sandbox,
    directory: &Path,
    waiting: &WaitingConfig,
) -> Result<()> {
    let agent = &sandbox.handle().0.guest.agent;
    for time in 0..TIMES {
        let id = ContainerId::new(format!("rehearsal-{time}"))?;
        let mut process = sandbox
            .create_container(container(&id, directory, waiting)?)
            .await?;
        let streams = process.take_streams();
        sandbox.start_container(&id).await?;
        if let Some(Streams {
            stdin,
            stdout,
            stderr,
        }) = streams
        {
            drop(stdin);
            let read = blocking(move || {
                let wait = GuestWait::default();
                for output in [Some(stdout), stderr].into_iter().flatten() {
                    output.copy_to(&mut std::io::sink(), &wait)?;
                }
                Ok(())
            });
            read.await?;
        }
        let exit = sandbox.wait_process(&id).await?;
        tracing::debug!(sandbox = %sandbox.id(), ?exit, "rehearsed");
        sandbox.delete_container(&id, true).await?;
        if waiting.throw_away
            && waiting.shared_pids
            && let Err(error) = agent.stand_by().await
        {
            // The next container is made as ever.
            tracing::warn!(sandbox = %sandbox.id(), %error, "no container waits ready-made");
        }
    }
    // What it has read of the host may be something else by the time that it is taken.
    agent.forget_files().await?;
    Ok(())
}

fn container(
    id: &ContainerId,
    directory: &Path,
    waiting: &WaitingConfig,
) -> Result<ContainerConfig> {
    // Others bring their roots.
    let (source, args, program) = match waiting.host_system {
        true => (RootSource::HostSystem, vec![COMMAND.to_owned()], None),
        false => {
            let program = Volume {
                source: waiting.program.clone(),
                destination: PROGRAM[0].into(),
                access: Access::ReadOnly,
                propagation: Propagation::Private,
            };
            let root = RootSource::Directory(directory.to_owned());
            (root, PROGRAM.map(str::to_owned).into(), Some(program))
        }
    };
    let mut env = vec!["PATH=/usr/bin:/bin".to_owned()];
    if waiting.throw_away {
        // A throw-away VM's container is ready-made. Those of others are made as theirs will be: a
        // home directory has to be looked up for them.
        env.push("HOME=/root".to_owned());
    }
    let shown = Volume {
        source: directory.to_owned(),
        destination: SHOWN.into(),
        access: Access::Private,
        propagation: Propagation::Private,
    };
    let capabilities = DEFAULT_CAPABILITIES.iter();
    let capabilities = capabilities.filter_map(|name| name.strip_prefix("CAP_")?.parse().ok());
    let spec = default_spec(ProcessConfig {
        args,
        env,
        cwd: SHOWN.into(),
        user: (0, 0, vec![]),
        terminal: false,
        capabilities: capabilities.collect(),
        read_only: false,
        hostname: Some(id.to_string()),
    });
    let spec = spec.map_err(|error| Error::System {
        attempt: "describe a rehearsal".into(),
        source: std::io::Error::other(error),
    })?;
    Ok(ContainerConfig {
        id: id.clone(),
        spec,
        root: Root {
            source,
            access: Access::Private,
        },
        volumes: program.into_iter().chain([shown]).collect(),
        mounts: Vec::new(),
        files: vec![GeneratedFile {
            destination: "/etc/hostname".into(),
            contents: b"rehearsal\n".to_vec(),
        }],
        attach: true,
        bundle: None,
        stand_in: false,
        cgroup: None,
        hooks: None,
        empty_dirs: vec![EMPTY.into()],
    })
}
