use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Make a program of this machine use virtual machines
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(subcommand)]
    pub(crate) what: InstallTarget,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstallTarget {
    /// Add the handler `virtc` to containerd's settings, for pods of Kubernetes
    ///
    /// The table that is added stands between two marks at the end of the file, of which a copy is kept
    /// beside it. What is there stays as it is, comments and all. Programs that are nowhere where a service
    /// looks for them get a link.
    Containerd(InstallContainerdArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InstallContainerdArgs {
    #[command(flatten)]
    pub(crate) containerd: ContainerdArgs,
}

/// Undo what `virtc install` did
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    #[command(subcommand)]
    pub(crate) what: UninstallTarget,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UninstallTarget {
    /// Take the handler `virtc` out of containerd's settings again, and the links
    Containerd(UninstallContainerdArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UninstallContainerdArgs {
    #[command(flatten)]
    pub(crate) containerd: ContainerdArgs,
    /// Also while there are sandboxes of containerd's
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Where containerd is.
#[derive(Debug, Args)]
pub(crate) struct ContainerdArgs {
    /// Show what would be changed, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The settings of containerd; --config is the file of virtc's own
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/containerd/config.toml"
    )]
    pub(crate) containerd_config: PathBuf,
    /// Where programs get a link that containerd would not find
    #[arg(long, value_name = "DIR", default_value = "/usr/local/bin")]
    pub(crate) bin_dir: PathBuf,
    /// Restart containerd by systemd if something has changed
    #[arg(long)]
    pub(crate) restart: bool,
}
