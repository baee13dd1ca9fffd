use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Copy files into or out of a running container
///
/// It is done in the container's guest, by the rules of `cp -a`: into a directory that exists, or
/// with a new name. A source that ends with `/.` is what is in the directory.
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "virtc cp [FLAGS] ID:PATH DEST\n       virtc cp [FLAGS] SOURCE ID:PATH",
    after_help = "A path in the container begins at its root. A local path that has a colon is \
                  written as `./NAME:REST`. `-` is a tar archive on stdin or stdout."
)]
pub(crate) struct CpArgs {
    /// Keep owners, by their numbers
    #[arg(short, long)]
    pub(crate) archive: bool,

    /// Follow a link that is the source itself
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,

    /// Taken for the sake of callers: nothing is said about a copy that works
    #[arg(short, long, hide = true)]
    pub(crate) quiet: bool,

    /// What is copied: ID:PATH, a local path, or `-`
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Side,

    /// Where it goes
    #[arg(value_name = "DEST")]
    pub(crate) destination: Side,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// In the container of this name.
    Container { id: String, path: String },
    /// On the host.
    Local(PathBuf),
    /// A tar archive on stdin or stdout.
    Stream,
}

impl FromStr for Side {
    type Err = Infallible;

    /// What begins with a slash or a dot, or has one of the former before its first colon, is
    /// local: no container has such a name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((id, path)) if !id.starts_with('.') && !id.contains('/') => Self::Container {
                id: id.to_owned(),
                path: path.to_owned(),
            },
            _ => Self::Local(text.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_of_a_container_only_where_a_name_comes_before_a_colon() {
        let side = |text: &str| text.parse::<Side>().unwrap();
        let container = |id: &str, path: &str| Side::Container {
            id: id.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(side("box:/etc"), container("box", "/etc"));
        assert_eq!(side("box:a:b"), container("box", "a:b"));
        assert_eq!(side("box:"), container("box", ""));
        assert_eq!(side(":x"), container("", "x"));
        assert_eq!(side("-"), Side::Stream);
        for local in ["./a:b", "/a:b", "../a:b", "a", "a/b:c", ".", "", "--", "/"] {
            assert_eq!(side(local), Side::Local(local.into()), "{local}");
        }
    }
}
