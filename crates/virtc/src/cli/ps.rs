use clap::Args;

use super::FormatArgs;

/// Show the processes of a container, as its guest knows them.
#[derive(Clone, Debug, Args)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,

    /// The container
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// Options of a host's ps: not supported
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}
