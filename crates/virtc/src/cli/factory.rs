use clap::{Args, Subcommand};

use super::FormatArgs;

/// Show, make and remove the templates from which VMs start
#[derive(Debug, Args)]
pub(crate) struct FactoryArgs {
    #[command(subcommand)]
    pub(crate) command: FactoryCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FactoryCommand {
    /// Make the template of a throw-away VM, unless there is one, and start a VM from it
    Init {
        /// That of a VM for OCI bundles, containerd and Kubernetes instead
        #[arg(long)]
        containers: bool,
        /// The guest's memory, such as 512m or 2g
        #[arg(short, long, value_name = "SIZE")]
        memory: Option<String>,
        /// The guest's processors
        #[arg(long, value_name = "N")]
        cpus: Option<u32>,
    },
    /// List the templates, the one that was used last at the end
    Status(FormatArgs),
    /// Remove all templates, or those of these ids. VMs that started from them go on
    Destroy {
        /// The templates
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
}
