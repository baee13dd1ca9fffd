//! Keeps the sandbox of one container, from its making to its end.

use std::fs::File;

use vc_config::HostFacts;
use vc_types::{ContainerId, EndReason, ExitStatus, SandboxId};
use virtcontainers::{
    Bundle, Error, Neighbours, Runtime, RuntimeOptions, Sandbox, SandboxConfig, Scratch, VmConfig,
};

use super::{Report, Request, take_terminal};
use crate::commands::{block_on, container, load, own_program};
use crate::error::{FAILED, Failure};
use crate::join::{End, Joined, Kept, Signals, exit_code, signal_code};

/// Makes the sandbox, reports, and stays until the container has ended. Gives the exit code.
pub(super) fn keep(request: &Request, bundle: Bundle, report: File) -> u8 {
    let kept = block_on(async {
        match make(request, bundle).await {
            Ok(made) => stay(made, report).await,
            Err(failure) => {
                if let Err(error) = Report::Failed(failure.into()).send(report) {
                    tracing::debug!(%error, "nobody waits for the report");
                }
                FAILED
            }
        }
    });
    kept.unwrap_or(FAILED)
}

/// A sandbox whose container waits for its start.
struct Made {
    runtime: Runtime,
    sandbox: Sandbox,
    container: ContainerId,
    signals: Signals,
    terminal: bool,
}

async fn make(request: &Request, bundle: Bundle) -> Result<Made, Failure> {
    let loaded = load(&request.global(), &[])?;
    // Signals count from here on: they are the container's.
    let signals = Signals::take().map_err(|error| Failure::plain(FAILED, &error))?;
    let container = container(&request.id)?;
    let terminal = take_terminal(request, bundle.spec().process().as_ref())?;
    let config = sandbox_config(bundle, &container, &loaded.config)?;
    let runtime = Runtime::open(RuntimeOptions {
        config: loaded.config,
        program: own_program(),
        ..RuntimeOptions::default()
    })?;
    let sandbox = runtime.create_sandbox(config).await?;
    Ok(Made {
        runtime,
        sandbox,
        container,
        signals,
        terminal,
    })
}

fn sandbox_config(
    bundle: Bundle,
    container: &ContainerId,
    config: &vc_config::Config,
) -> Result<SandboxConfig, Failure> {
    let size = config.vm.size(&HostFacts::read()?);
    Ok(SandboxConfig {
        id: SandboxId::new(container.as_str()).map_err(Failure::usage)?,
        hostname: bundle.hostname(),
        vm: VmConfig {
            vcpus: size.vcpus,
            memory: size.memory,
            accelerator: virtcontainers::accelerator_choice(config.runtime.accelerator),
            kernel_params: config.guest.kernel_params.clone(),
            root_ports: u8::try_from(config.hypervisor.qemu.root_ports).unwrap_or(u8::MAX),
        },
        scratch: Scratch::Memory { size: None },
        annotations: bundle.annotations(),
        containers: vec![bundle.container(container.clone(), &Neighbours::default())?],
        shared_pids: false,
        throw_away: false,
    })
}

/// Carries streams and signals until the container's process has ended, and writes its end down.
async fn stay(made: Made, report: File) -> u8 {
    let Made {
        runtime,
        sandbox,
        container,
        signals,
        terminal,
    } = made;
    if let Err(error) = Report::Created.send(report) {
        // Whoever asked for the container is gone, and nobody else knows of it.
        tracing::warn!(%error, "nobody waits for the container; it is removed");
        if let Err(error) = sandbox.delete().await {
            tracing::warn!(%error, "not everything of it is removed");
        }
        return FAILED;
    }
    let job = Kept {
        sandbox: &sandbox,
        container: &container,
        throw_away: false,
    };
    let limits = &runtime.config().limits;
    let mut joined = Joined::forwarding(job, limits, signals, terminal);
    let ended = joined.command(None).await;
    drop(joined);
    let (code, exit) = match ended {
        Ok(End::Exited(exit)) => {
            if let Some(text) = &exit.start_error {
                crate::output::error(text);
            }
            (exit_code(&exit), exit.status)
        }
        Ok(End::TimedOut) => (FAILED, lost(EndReason::TimedOut)),
        Ok(End::Ended(signal)) => (signal_code(signal), lost(EndReason::Requested)),
        Err(error) => {
            Failure::from_error(FAILED, &error).report();
            let exit = match error {
                Error::Ended { reason, .. } => lost(reason),
                error => lost(EndReason::VmCrashed {
                    detail: error.to_string(),
                }),
            };
            (exit.shell_code(), exit)
        }
    };
    if let Err(error) = end(sandbox, &container, exit).await {
        tracing::error!(%error, "the container's end is not written down");
    }
    code
}

fn lost(reason: EndReason) -> ExitStatus {
    ExitStatus::Lost { reason }
}

/// Ends the machine; the state stays until somebody deletes it.
async fn end(sandbox: Sandbox, container: &ContainerId, exit: ExitStatus) -> Result<(), Error> {
    sandbox.stop().await?;
    sandbox.keep(container, exit).await?;
    Ok(())
}
