use std::path::PathBuf;

use clap::{Args, Command};

/// Flags of `virtc run ID`, which runs the container of a bundle.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "virtc run ID")]
pub(crate) struct RunBundleArgs {
    /// The bundle's directory [default: .]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,

    /// Write the pid of the process that stands for the container into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// A socket that gets the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,

    /// Descriptors that the process is to inherit besides its standard streams
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    pub(crate) preserve_fds: u32,

    /// Do not use pivot_root
    #[arg(long, hide = true)]
    pub(crate) no_pivot: bool,

    /// Make no keyring for the container's session: the guest makes none
    #[arg(long, hide = true)]
    pub(crate) no_new_keyring: bool,

    /// Taken for the sake of callers: nobody becomes a reaper of orphans
    #[arg(long, hide = true)]
    pub(crate) no_subreaper: bool,
}

impl RunBundleArgs {
    /// Whether a flag is of this form of `run` alone.
    pub(crate) fn owns(flag: &str) -> bool {
        let own = Self::augment_args(Command::new("run"));
        own.get_arguments().any(|one| one.get_id() == flag) || flag == "detach"
    }
}
