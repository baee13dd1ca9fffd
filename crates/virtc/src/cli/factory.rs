use clap::{Args, Subcommand};

use super::FormatArgs;

/// Show, make and remove the templates from which VMs start, and the VMs that wait
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
        #[command(flatten)]
        size: SizeArgs,
    },
    /// Make throw-away VMs that wait for `virtc run`, until so many do. Each takes memory
    Warm {
        /// VMs for OCI bundles, containerd and Kubernetes instead
        #[arg(long)]
        containers: bool,
        /// VMs for `virtc run --rootfs` instead, whose guests are not shown the host's system
        #[arg(long, conflicts_with = "containers")]
        rootfs: bool,
        /// How many; those of the configuration (factory.vm_cache_number) when not given
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=64))]
        number: Option<u32>,
        #[command(flatten)]
        size: SizeArgs,
    },
    /// List the templates, the one that was used last at the end, and the VMs that wait
    Status(FormatArgs),
    /// Remove all templates and end all VMs that wait, or those of these ids. VMs that started from
    /// them go on
    Destroy {
        /// The templates, and the VMs that wait
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
}

/// The size of a VM.
#[derive(Debug, Args)]
pub(crate) struct SizeArgs {
    /// The guest's memory, such as 512m or 2g
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// The guest's processors
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
}

impl SizeArgs {
    /// As settings.
    pub(crate) fn flags(&self) -> Vec<(&'static str, &'static str, String)> {
        let memory = self.memory.iter();
        let memory = memory.map(|memory| ("vm.memory", "--memory", memory.clone()));
        let cpus = self.cpus.iter();
        let cpus = cpus.map(|cpus| ("vm.vcpus", "--cpus", cpus.to_string()));
        memory.chain(cpus).collect()
    }
}
