use std::path::PathBuf;

use clap::Args;

/// Write a `config.json` to begin with.
///
/// Its process is `sh` with a terminal, its root the directory `rootfs` of the bundle.
#[derive(Clone, Debug, Args)]
pub(crate) struct SpecArgs {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,

    /// For a container without root's rights: not supported
    #[arg(long, hide = true)]
    pub(crate) rootless: bool,
}
