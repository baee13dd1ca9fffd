//! The command line as containerd writes it: Go's flags, with one dash or two, then an action.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// What the program is called for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// Serves the tasks of a sandbox: how `start` calls this program again.
    #[default]
    Serve,
    /// Begins to serve a task.
    Start,
    /// Cleans up after a task whose shim is gone.
    Delete,
    /// `-info`: what this runtime is and has.
    Info,
    /// `-v`: the version.
    Version,
}

/// The flags of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) action: Action,
    /// containerd's namespace.
    pub(crate) namespace: String,
    /// The task.
    pub(crate) id: String,
    /// containerd's own socket: tells daemons apart that have the same namespaces.
    pub(crate) address: String,
    /// The bundle, where it is not the working directory.
    pub(crate) bundle: Option<PathBuf>,
    /// The socket to be served, for those who have one ready.
    pub(crate) socket: String,
    /// Whether everything is logged.
    pub(crate) debug: bool,
}

impl Flags {
    /// # Errors
    ///
    /// [`Error::Usage`] for a flag that is not known or has no value, and a second action.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut flags = Self::default();
        let mut args = args;
        let mut actions = Vec::new();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix('-') else {
                actions.push(arg);
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let on = |value: Option<String>| match value.as_deref() {
                None | Some("true" | "1" | "t") => Ok(true),
                Some("false" | "0" | "f") => Ok(false),
                Some(_) => Err(Error::Usage(format!("{arg}: neither true nor false"))),
            };
            let mut text = |value: Option<String>| {
                let given = value.or_else(|| args.next());
                given.ok_or_else(|| Error::Usage(format!("{arg} needs a value")))
            };
            match name {
                "namespace" => flags.namespace = text(value)?,
                "id" => flags.id = text(value)?,
                "address" => flags.address = text(value)?,
                "bundle" => {
                    flags.bundle = Some(text(value)?.into())
                        .filter(|path: &PathBuf| !path.as_os_str().is_empty())
                }
                "socket" => flags.socket = text(value)?,
                // Events go by ttrpc.
                "publish-binary" => _ = text(value)?,
                "debug" => flags.debug = on(value)?,
                "v" | "version" if on(value.clone())? => flags.action = Action::Version,
                "info" if on(value.clone())? => flags.action = Action::Info,
                "v" | "version" | "info" => {}
                _ => return Err(Error::Usage(format!("unknown flag {arg}"))),
            }
        }
        match actions.as_slice() {
            [] => {}
            [one] if one == "start" => flags.action = Action::Start,
            [one] if one == "delete" => flags.action = Action::Delete,
            other => return Err(Error::Usage(format!("unknown action {}", other.join(" ")))),
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags> {
        Flags::parse(args.iter().map(|&arg| arg.to_owned()))
    }

    #[test]
    fn what_containerd_1_6_calls() {
        let flags = parse(&[
            "-namespace",
            "default",
            "-address",
            "/run/containerd/containerd.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "c1",
            "-bundle",
            "/run/b",
            "start",
        ])
        .unwrap();
        assert_eq!(flags.action, Action::Start);
        assert_eq!(
            (flags.namespace.as_str(), flags.id.as_str()),
            ("default", "c1")
        );
        assert_eq!(flags.bundle.unwrap().to_str(), Some("/run/b"));
        assert!(!flags.debug);
    }

    #[test]
    fn flags_are_gos() {
        for args in [["--id=c1", "-debug=true"], ["-id=c1", "--debug"]] {
            let flags = parse(&args).unwrap();
            assert_eq!((flags.id.as_str(), flags.debug), ("c1", true));
            assert_eq!(flags.action, Action::Serve);
        }
        assert_eq!(parse(&["-v"]).unwrap().action, Action::Version);
        assert_eq!(parse(&["-version=false"]).unwrap().action, Action::Serve);
        assert_eq!(parse(&["-info"]).unwrap().action, Action::Info);
        assert_eq!(parse(&["-bundle", "", "delete"]).unwrap().bundle, None);
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (args, word) in [
            (&["-what"][..], "-what"),
            (&["-id"], "-id"),
            (&["-debug=perhaps"], "perhaps"),
            (&["stop"], "stop"),
            (&["start", "delete"], "start delete"),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
