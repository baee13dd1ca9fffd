use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vc_types::ByteSize;

use super::run_bundle::RunBundleArgs;

/// Run one command in a throw-away virtual machine.
///
/// The machine sees the host's own system below /usr, /etc and their like, read-only, and the
/// current directory; what the command changes vanishes with it. It has no network unless --net
/// asks for one. Nothing is left on the host afterwards.
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "virtc run [FLAGS] -- COMMAND [ARG]…\n       virtc run [--bundle DIR] [--detach] ID",
    after_help = "Exit codes: the command's own; 128+N when signal N ended it; 127 not found; \
                  126 not executable; 124 timed out; 125 virtc itself failed; 2 wrong usage."
)]
pub(crate) struct RunArgs {
    /// The other form of `run` has an id here
    #[arg(hide = true, value_name = "ID")]
    pub(crate) id: Option<String>,

    #[command(flatten)]
    pub(crate) oci: RunBundleArgs,

    /// Do not wait for the end; with ID only
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// The flags that were given, by their names.
    #[arg(skip)]
    pub(crate) given: Vec<String>,

    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,

    /// The root file system: `host`, or a directory
    #[arg(
        long,
        value_name = "host|DIR",
        default_value = "host",
        help_heading = "Files"
    )]
    pub(crate) rootfs: PathBuf,

    /// Let changes of the root reach the directory of --rootfs
    #[arg(long, help_heading = "Files")]
    pub(crate) writable: bool,

    /// Make the root read-only
    #[arg(long, conflicts_with = "writable", help_heading = "Files")]
    pub(crate) read_only: bool,

    /// Show a further path of the host, read-only and as you may read it
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    pub(crate) show: Vec<PathBuf>,

    /// Bring a directory or file of the host: SRC:DST, with :ro so that it cannot be changed
    #[arg(short, long, value_name = "SRC:DST[:ro]", help_heading = "Files")]
    pub(crate) volume: Vec<String>,

    /// Mount an empty tmpfs
    #[arg(long, value_name = "DST[:SIZE]", help_heading = "Files")]
    pub(crate) tmpfs: Vec<String>,

    /// When the current directory is shared; otherwise the command starts in an empty one
    #[arg(
        long,
        value_name = "MODE",
        default_value = "auto",
        help_heading = "Files"
    )]
    pub(crate) cwd: CwdMode,

    /// Let changes in the current directory reach the host
    #[arg(long, help_heading = "Files")]
    pub(crate) writable_cwd: bool,

    /// Where changes go that vanish: a disk of this size, or `tmpfs[:SIZE]` [default: 10g]
    #[arg(long, value_name = "SIZE|tmpfs[:SIZE]", help_heading = "Files")]
    pub(crate) scratch: Option<String>,

    /// Give the command a terminal
    #[arg(short, long = "tty", help_heading = "Process")]
    pub(crate) terminal: bool,

    /// Accepted and without effect: stdin is always passed
    #[arg(short, long, help_heading = "Process")]
    pub(crate) interactive: bool,

    /// Set a variable, or pass the host's of that name
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Process")]
    pub(crate) env: Vec<String>,

    /// Set the variables of a file
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    pub(crate) env_file: Vec<PathBuf>,

    /// The working directory
    #[arg(short, long, value_name = "DIR", help_heading = "Process")]
    pub(crate) workdir: Option<PathBuf>,

    /// Run as this user
    #[arg(short, long, value_name = "UID[:GID]|NAME", help_heading = "Process")]
    pub(crate) user: Option<String>,

    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP", help_heading = "Process")]
    pub(crate) cap_add: Vec<String>,

    /// Take away a capability, or ALL
    #[arg(long, value_name = "CAP", help_heading = "Process")]
    pub(crate) cap_drop: Vec<String>,

    /// End the command after so many seconds: SIGTERM, and SIGKILL 10 s later
    #[arg(long, value_name = "SECONDS", help_heading = "Process", value_parser = parse_seconds)]
    pub(crate) timeout: Option<std::time::Duration>,

    /// The machine's memory [default: 2g, or half of what is available]
    #[arg(short, long, value_name = "SIZE", help_heading = "Machine")]
    pub(crate) memory: Option<ByteSize>,

    /// The machine's processors [default: up to 4]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) cpus: Option<u32>,

    /// The network: none, connections that a process of the host makes (user; not to the host's
    /// loopback), an address behind a private bridge of the host (nat), or what is in a network
    /// namespace [default: none, or user with --publish]
    #[arg(long, value_name = "none|user|nat|ns:PATH", help_heading = "Network")]
    pub(crate) net: Option<String>,

    /// Let a port of the host lead to one of the machine, on 127.0.0.1 if no address is given; an
    /// address of IPv6 is in brackets, as in `[::1]:8080:80`
    #[arg(
        short,
        long,
        value_name = "[IP:]HOST:GUEST[/udp]",
        help_heading = "Network"
    )]
    pub(crate) publish: Vec<String>,

    /// The machine's host name
    #[arg(long, value_name = "NAME", help_heading = "Machine")]
    pub(crate) hostname: Option<String>,

    /// The sandbox's name [default: a random one]
    #[arg(long, value_name = "NAME", help_heading = "Machine")]
    pub(crate) name: Option<String>,

    /// A further parameter of the guest's kernel
    #[arg(long, value_name = "PARAM", help_heading = "Machine")]
    pub(crate) kernel_param: Vec<String>,

    /// Print when the start came to which point
    #[arg(long, help_heading = "Output")]
    pub(crate) timeline: bool,

    /// Keep the stopped sandbox, its state and logs, until `virtc delete`
    #[arg(long, help_heading = "Output")]
    pub(crate) keep: bool,

    /// Print nothing but what the command prints, and errors
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

/// Whether the current directory is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CwdMode {
    /// Unless it is the root or a home directory.
    Auto,
    /// Whatever it is.
    Share,
    /// Never: the working directory is an empty one of that name.
    Empty,
}

fn parse_seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "it must be a number of seconds".to_owned())?;
    if !(seconds > 0.0 && seconds < 1e9) {
        return Err("it must be more than 0 and less than a billion".to_owned());
    }
    Ok(std::time::Duration::from_secs_f64(seconds))
}
