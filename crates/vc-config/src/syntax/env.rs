use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::error::Error;

const FORM: &str = "NAME[=VALUE]";

/// Bytes of a file with environment variables; the kernel takes 2 MiB for all of a process.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;

/// A variable for the command: `--env NAME[=VALUE]`.
///
/// Without a value it is the caller's, and nothing where the caller has none.
///
/// ```
/// use vc_config::syntax::EnvVar;
///
/// let variable: EnvVar = "CC=gcc -m32".parse()?;
/// assert_eq!(variable.value.as_deref(), Some("gcc -m32"));
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// What was given.
    pub value: Option<String>,
}

impl EnvVar {
    /// The value that holds, with the caller's environment for one without.
    pub fn resolve(&self, caller: impl FnOnce(&str) -> Option<String>) -> Option<String> {
        self.value.clone().or_else(|| caller(&self.name))
    }
}

impl FromStr for EnvVar {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Err(invalid("environment variable", FORM, text, reason));
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return wrong("it has no name");
        }
        if name.chars().any(char::is_whitespace) {
            return wrong("its name holds blanks");
        }
        if value.is_none() && name.contains('*') {
            return wrong("patterns of names are not supported");
        }
        if text.contains('\0') {
            return wrong("it holds a zero byte");
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

impl fmt::Display for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Reads a file of `--env-file`: a variable a line, as podman reads it.
///
/// Blank lines and lines that begin with `#` are left out; blanks before a name are; a value is
/// taken as it is, quotes included.
///
/// # Errors
///
/// [`Error::EnvFile`] when the file cannot be read, [`Error::Syntax`] for a line that is no
/// variable.
pub fn env_file(path: &Path) -> Result<Vec<EnvVar>, Error> {
    let failed = |source| Error::EnvFile {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(ENV_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > ENV_FILE_BYTES_MAX {
        return Err(failed(ErrorKind::FileTooLarge.into()));
    }
    variables(&text)
}

fn variables(text: &str) -> Result<Vec<EnvVar>, Error> {
    let lines = text.lines().map(str::trim_start);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::parse)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_read_as_podman_reads_it() {
        let read = variables("# no\n\n  A=1\nB= \"x\" \nC\n#D=2\nE==\r\n").unwrap();
        let shown: Vec<_> = read.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["A=1", "B= \"x\" ", "C", "E=="]);
        assert!(variables("export A=1").is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = env_file(Path::new("/nowhere/env")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/env"), "{error}");
    }

    #[test]
    fn a_variable_without_a_value_is_the_callers() {
        let variable: EnvVar = "TERM".parse().unwrap();
        assert_eq!(
            variable.resolve(|_| Some("dumb".into())),
            Some("dumb".into())
        );
        assert_eq!(variable.resolve(|_| None), None);
        let empty: EnvVar = "TERM=".parse().unwrap();
        assert_eq!(empty.resolve(|_| Some("dumb".into())), Some(String::new()));
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for bad in ["", "=", "=x", "A B=1", "LC_*", "A=\0"] {
            assert!(bad.parse::<EnvVar>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in "(?s).{0,30}") {
            if let Ok(variable) = text.parse::<EnvVar>() {
                prop_assert_eq!(variable.to_string(), text);
            }
        }

        #[test]
        fn a_file_never_panics(text in "(?s).{0,100}") {
            let _ = variables(&text);
        }
    }
}
