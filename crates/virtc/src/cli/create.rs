use std::path::PathBuf;

use clap::Args;

/// Make a container of an OCI bundle; its process waits for `virtc start`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CreateArgs {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,

    /// Write the pid of the process that stands for the container into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// A socket that gets the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,

    /// Descriptors that the process is to inherit besides its standard streams
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,

    /// Do not use pivot_root
    #[arg(long)]
    pub(crate) no_pivot: bool,

    /// Make no keyring for the container's session: the guest makes none
    #[arg(long)]
    pub(crate) no_new_keyring: bool,

    /// The container's name
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}
