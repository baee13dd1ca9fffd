use std::fmt;
use std::path::PathBuf;

use vc_types::Hint;

use crate::load::Origin;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A configuration or an argument that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("the configuration file {}, line {line}, is not valid: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The configuration has problems: all of them.
    #[error("the configuration is not valid:{}", list(problems))]
    Invalid {
        /// At least one.
        problems: Vec<Problem>,
    },
    /// An argument that does not follow its form.
    #[error("{what} {value:?} is not valid: {reason}")]
    Syntax {
        /// What it is, such as `volume`.
        what: &'static str,
        /// What was given, shortened.
        value: String,
        /// The rule that it breaks.
        reason: String,
        /// The form, such as `SRC:DST[:ro|rw]`.
        form: &'static str,
    },
    /// A file with environment variables that could not be read.
    #[error("cannot read the environment file {}", path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A fact about the host could not be learnt.
    #[error("cannot read {} to learn about this host", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's whole path.
    pub key: String,
    /// Who set it.
    pub origin: Origin,
    /// What is wrong, in words.
    pub message: String,
    /// The known key that is nearest, for a key that is not known.
    pub nearest: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.key, self.message)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; the nearest known one is {nearest}"),
            None => Ok(()),
        }
    }
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [only] => format!(" {only}"),
        many => many
            .iter()
            .map(|problem| format!("\n  {problem}"))
            .collect(),
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid { problems } => {
                let nearest = problems.iter().find_map(|problem| problem.nearest.as_ref());
                Some(match nearest {
                    Some(key) => format!("write `{key}`, or remove the key"),
                    None => "correct the values that are named, or remove them".to_owned(),
                })
            }
            Self::Syntax { form, .. } => Some(format!("the form is {form}")),
            Self::Read { .. } => {
                Some("name a file that can be read with --config, or leave it out".to_owned())
            }
            Self::Parse { .. } | Self::EnvFile { .. } | Self::Host { .. } => None,
        }
    }
}
