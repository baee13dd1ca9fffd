use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the log says of each machine whose guest answers, and who says it.
const ANSWERS: &str = "its guest answers";
const SAYS_IT: &str = "warn,virtcontainers::sandbox::create=debug";

/// How the machines of a test come to be. Which way a machine really came is looked up in the log:
/// where a way does not serve, virtc takes another one, and a test would not see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Each guest boots: there is no other way then.
    #[default]
    Boot,
    /// Each goes on from a template in this directory.
    Template(PathBuf),
    /// Each waited before it was taken, and had gone on from a template in this directory.
    Waiting(PathBuf),
}

impl Origin {
    /// Has all machines of this command come to be in this way.
    pub(crate) fn set(&self, command: &mut Command, none: &Path) {
        let (any, directory) = match self {
            // A test says when it wants templates, and has a place for them.
            Self::Boot => ("false", none),
            Self::Template(directory) | Self::Waiting(directory) => ("true", directory.as_path()),
        };
        command
            .env("VIRTC_FACTORY_AUTO", any)
            .env("VIRTC_FACTORY_ENABLE_TEMPLATE", any)
            .env("VIRTC_FACTORY_DIR", directory);
    }

    /// Has a command that makes a machine say how that came to be. Gives the flags to begin with.
    pub(crate) fn record(&self, command: &mut Command, log: &Path) -> Vec<OsString> {
        if *self == Self::Boot {
            return Vec::new();
        }
        command.env("RUST_LOG", SAYS_IT);
        vec!["--log".into(), log.into()]
    }

    /// What is wrong with how the machines came to be of which this log tells.
    pub(crate) fn wrong(&self, log: &Path) -> Option<String> {
        let wanted = match self {
            Self::Boot => return None,
            Self::Template(_) => "Cloned",
            Self::Waiting(_) => "Waited",
        };
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let mut machines = log.lines().filter(|line| line.contains(ANSWERS)).peekable();
        let came = machines.peek().is_some();
        let other = machines.any(|line| !line.contains(&format!("origin={wanted}")));
        (!came || other).then(|| format!("not all machines were {wanted}:\n{log}"))
    }
}

/// The flags of `virtc factory warm` for the machine that this command makes, if it makes one.
pub(crate) fn needs_machine(args: &[OsString]) -> Option<&'static [&'static str]> {
    let is = |arg: &OsString, text: &str| arg.as_os_str() == OsStr::new(text);
    let first = args.first()?;
    let of_bundle = is(first, "create") || args.iter().any(|arg| is(arg, "--bundle"));
    let mut flags = args.iter().take_while(|arg| !is(arg, "--"));
    let own_root = flags.any(|arg| is(arg, "--rootfs"));
    match is(first, "run") || of_bundle {
        true if of_bundle => Some(&["--containers"]),
        true if own_root => Some(&["--rootfs"]),
        true => Some(&[]),
        false => None,
    }
}
