use std::path::PathBuf;

use clap::Args;

/// Run another process in a running container.
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "virtc exec [FLAGS] ID COMMAND [ARG]…",
    after_help = "Exit codes: the process's own; 128+N when signal N ended it; 127 not found; \
                  126 not executable; 255 virtc itself failed; 2 wrong usage."
)]
pub(crate) struct ExecArgs {
    /// Give it a terminal
    #[arg(short, long = "tty")]
    pub(crate) terminal: bool,

    /// Set a variable of its environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,

    /// Its working directory, instead of the container's
    #[arg(long, visible_alias = "workdir", short_alias = 'w', value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,

    /// Its user and group by number, instead of the container's
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,

    /// A further group, by number
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,

    /// A further capability
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,

    /// Let it gain no rights by executing a program
    #[arg(long)]
    pub(crate) no_new_privs: bool,

    /// A file with the process as the OCI specification describes it
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["env", "cwd", "user",
        "additional_gids", "cap", "no_new_privs", "command"])]
    pub(crate) process: Option<PathBuf>,

    /// Do not wait for its end; a process of the host stands for it
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Write the pid of the process that stands for it into this file
    #[arg(long, value_name = "FILE", requires = "detach")]
    pub(crate) pid_file: Option<PathBuf>,

    /// A socket that gets its terminal
    #[arg(long, value_name = "SOCKET", requires = "detach")]
    pub(crate) console_socket: Option<PathBuf>,

    /// The container
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// The command and its arguments
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}
