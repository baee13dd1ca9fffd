//! The templates from which VMs start.

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use vc_config::Config;
use vc_types::SandboxId;
use virtcontainers::factory::{Library, ListedTemplate, Template, TemplateId};
use virtcontainers::{Runtime, RuntimeOptions, SandboxConfig};

use super::{Done, load, own_program};
use crate::cli::{FactoryArgs, FactoryCommand, FormatArgs, GlobalArgs, OutputFormat};
use crate::error::{FAILED, Failure};
use crate::output;

pub(crate) fn factory(global: &GlobalArgs, args: &FactoryArgs) -> Done {
    match &args.command {
        FactoryCommand::Init {
            containers,
            memory,
            cpus,
        } => {
            let mut flags = Vec::new();
            if let Some(memory) = memory {
                flags.push(("vm.memory", "--memory", memory.clone()));
            }
            if let Some(cpus) = cpus {
                flags.push(("vm.vcpus", "--cpus", cpus.to_string()));
            }
            init(load(global, &flags)?.config, !containers)
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
    let sandbox = SandboxConfig::empty(id, &config, throw_away)?;
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

fn status(config: &Config, format: &FormatArgs) -> Done {
    #[derive(Serialize)]
    struct Shown {
        id: String,
        bytes: u64,
        used: String,
    }
    let library = Library::open(&config.factory);
    let templates: Vec<_> = list(&library)?
        .into_iter()
        .map(|template| Shown {
            id: template.id.to_string(),
            bytes: template.bytes,
            used: template.used.to_string(),
        })
        .collect();
    match format.format {
        OutputFormat::Json => output::json(&templates)?,
        OutputFormat::Table => {
            let rows: Vec<_> = templates
                .into_iter()
                .map(|template| {
                    let mib = template.bytes.div_ceil(1 << 20);
                    [template.id, format!("{mib} MiB"), template.used]
                })
                .collect();
            output::table(["TEMPLATE", "SIZE", "USED"], &rows)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn destroy(config: &Config, ids: &[String]) -> Done {
    let library = Library::open(&config.factory);
    if ids.is_empty() {
        library.remove_all().map_err(virtcontainers::Error::from)?;
    }
    let ids: Result<Vec<TemplateId>, _> = ids.iter().map(|id| id.parse()).collect();
    let ids = ids.map_err(Failure::usage)?;
    for id in ids {
        let removed = library.remove(&id).map_err(virtcontainers::Error::from)?;
        if !removed {
            return Err(Failure::new(
                FAILED,
                format!("template {id} does not exist"),
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(library: &Library) -> Result<Vec<ListedTemplate>, Failure> {
    Ok(library.list().map_err(virtcontainers::Error::from)?)
}
