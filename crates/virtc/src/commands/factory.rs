//! The templates from which VMs start, and the VMs that wait.

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use vc_config::Config;
use vc_types::SandboxId;
use virtcontainers::factory::{Library, ListedTemplate, Pool, Template, TemplateId};
use virtcontainers::{
    HostCgroup, Runtime, RuntimeOptions, SandboxConfig, WaitingConfig, WaitingReport,
};

use super::{Done, load, own_program};
use crate::cli::{FactoryArgs, FactoryCommand, FormatArgs, GlobalArgs, OutputFormat};
use crate::error::{FAILED, Failure};
use crate::output;
use crate::run::usual_sandbox;

pub(crate) fn factory(global: &GlobalArgs, args: &FactoryArgs) -> Done {
    match &args.command {
        FactoryCommand::Init { containers, size } => {
            init(load(global, &size.flags())?.config, !containers)
        }
        FactoryCommand::Warm {
            containers,
            rootfs,
            number,
            size,
        } => {
            let config = load(global, &size.flags())?.config;
            let number = number.unwrap_or(config.factory.vm_cache_number);
            let whose = match (containers, rootfs) {
                (true, _) => Whose::Containers,
                (_, true) => Whose::RunsWithRoot,
                _ => Whose::Runs,
            };
            warm(&config, number, whose)
        }
        FactoryCommand::Status(format) => status(&load(global, &[])?.config, format),
        FactoryCommand::Destroy { ids } => destroy(&load(global, &[])?.config, ids),
    }
}

/// Starts a VM without a container: what makes a template, and shows that it serves.
fn init(config: Config, throw_away: bool) -> Done {
    let template = Arc::new(Template::new(&config));
    let name = format!("template-{}", std::process::id());
    let id = SandboxId::new(name).map_err(Failure::usage)?;
    let sandbox = match throw_away {
        true => usual_sandbox(id, &config)?,
        false => SandboxConfig::empty(id, &config, false)?,
    };
    let runtime = Runtime::open(RuntimeOptions {
        config,
        program: own_program(),
        factory: Arc::clone(&template) as Arc<_>,
        ..RuntimeOptions::default()
    })?;
    let made = virtcontainers::keeper::block_on(async |_| {
        let sandbox = runtime.create_sandbox(sandbox).await?;
        let template = sandbox.template().cloned();
        sandbox.delete().await?;
        Ok::<_, virtcontainers::Error>(template)
    });
    match made.map_err(|error| Failure::plain(FAILED, &error))?? {
        Some(template) => output::line(template.as_str())?,
        None => {
            return Err(Failure::new(
                FAILED,
                "no template was made: the log says why (--debug)",
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Who takes VMs that wait.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// `virtc run` with the host's system.
    Runs,
    /// `virtc run --rootfs`.
    RunsWithRoot,
    /// Containers of bundles, and pods.
    Containers,
}

/// Makes VMs that wait, one after the other.
fn warm(config: &Config, number: u32, whose: Whose) -> Done {
    if number == 0 {
        return Err(Failure::usage("how many VMs are to wait is not said")
            .hint("--number N, or factory.vm_cache_number in the configuration"));
    }
    let id = SandboxId::new("waiting").map_err(Failure::usage)?;
    let like = match whose {
        Whose::Runs => usual_sandbox(id, config)?,
        Whose::RunsWithRoot => SandboxConfig {
            host_system_later: false,
            ..usual_sandbox(id, config)?
        },
        Whose::Containers => SandboxConfig {
            cgroup: HostCgroup::Own,
            ..SandboxConfig::empty(id, config, false)?
        },
    };
    let waiting = WaitingConfig {
        enough: number,
        patient: true,
        ..WaitingConfig::like(&like, config, &own_program())
    };
    // Each but the last is one more; others may make some too.
    for _ in 0..number {
        match waiting.make()? {
            WaitingReport::Waits(id) => output::line(id.as_str())?,
            WaitingReport::Enough => break,
            WaitingReport::Busy => {
                return Err(Failure::new(FAILED, "another process makes one just now"));
            }
            WaitingReport::Failed(reason) => return Err(Failure::new(FAILED, reason)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a VM can start from, as lists show it.
#[derive(Serialize)]
struct Shown {
    what: What,
    id: String,
    bytes: u64,
    /// When a VM last went on from it, or since when it waits; nothing while it is being made.
    used: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    Template,
    WaitingVm,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::WaitingVm => "waiting VM",
        }
    }
}

fn status(config: &Config, format: &FormatArgs) -> Done {
    let templates = list(&Library::open(&config.factory))?.into_iter();
    let templates = templates.map(|template| Shown {
        what: What::Template,
        id: template.id.to_string(),
        bytes: template.bytes,
        used: Some(template.used.to_string()),
    });
    let waiting = Pool::of(config).list()?.into_iter();
    let waiting = waiting.map(|vm| Shown {
        what: What::WaitingVm,
        id: vm.id.to_string(),
        bytes: vm.bytes,
        used: vm.since.map(|since| since.to_string()),
    });
    let shown: Vec<_> = templates.chain(waiting).collect();
    match format.format {
        OutputFormat::Json => output::json(&shown)?,
        OutputFormat::Table => {
            let rows: Vec<_> = shown
                .into_iter()
                .map(|one| {
                    let mib = one.bytes.div_ceil(1 << 20);
                    let used = one.used.unwrap_or_else(|| "being made".into());
                    [one.what.name().into(), one.id, format!("{mib} MiB"), used]
                })
                .collect();
            output::table(["WHAT", "ID", "MEMORY", "USED"], &rows)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn destroy(config: &Config, ids: &[String]) -> Done {
    let (library, pool) = (Library::open(&config.factory), Pool::of(config));
    if ids.is_empty() {
        pool.end_all()?;
        library.remove_all().map_err(virtcontainers::Error::from)?;
    }
    for id in ids {
        let there = match id.parse::<TemplateId>() {
            Ok(id) => library.remove(&id).map_err(virtcontainers::Error::from)?,
            Err(_) => {
                let id = SandboxId::new(id).map_err(Failure::usage)?;
                pool.end(&id)?
            }
        };
        if !there {
            return Err(Failure::new(
                FAILED,
                format!("template or waiting VM {id} does not exist"),
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(library: &Library) -> Result<Vec<ListedTemplate>, Failure> {
    Ok(library.list().map_err(virtcontainers::Error::from)?)
}
