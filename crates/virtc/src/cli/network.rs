use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Show and change the network of a running container, as its guest has it
///
/// Links, addresses and routes of the container's network namespace come to the guest by themselves,
/// and go with it: there is no command to add or to remove an interface.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    #[command(subcommand)]
    pub(crate) command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List the interfaces with their addresses, as JSON
    Ls {
        /// The container
        #[arg(value_name = "ID")]
        id: String,
    },
    /// List the routes as JSON, after replacing them where --set is given
    Route {
        /// The container
        #[arg(value_name = "ID")]
        id: String,
        /// Replace them by those of this file, in the form in which they are listed; - is stdin.
        /// They hold until the container's network namespace changes
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
    },
    /// Print the rules of the guest's packet filter as iptables-save does, after setting them where
    /// --set is given; an error for a guest without iptables
    Iptables {
        /// The container
        #[arg(value_name = "ID")]
        id: String,
        /// Those of IPv6
        #[arg(long)]
        ipv6: bool,
        /// Set them by this file first, as iptables-restore does; - is stdin
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
    },
}
