//! Reading the configuration: defaults, file, environment and flags, the later over the earlier.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

#[cfg(doc)]
use crate::annotation::ANNOTATION_PREFIX;
use crate::annotation::setting_of;
use crate::config::Config;
use crate::error::{Error, Problem, Result};
use crate::nearest::nearest;
use crate::setting::{Key, list};
use crate::tree;

/// The file that is read when none is named, where it exists.
pub const CONFIG_FILE: &str = "/etc/virtcontainers/config.toml";

/// Every variable that begins so is a key of the configuration.
pub(crate) const VARIABLE_PREFIX: &str = "VIRTC_";

/// But these, which are for tests.
const TEST_PREFIX: &str = "VIRTC_TEST_";

/// Bytes of a configuration file: the documented one with every key is some ten thousand.
const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "origin", rename_all = "kebab-case")]
pub enum Origin {
    /// Nobody: it is the default.
    Default,
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// The variable.
        variable: String,
    },
    /// An annotation of a bundle.
    Annotation {
        /// Its key, such as `io.virtcontainers.network.send_rate`.
        annotation: String,
    },
    /// The body of containerd's options for a runtime.
    OptionsBody {
        /// The line, from 1.
        line: usize,
    },
    /// A flag of the command line.
    Flag {
        /// The flag, such as `--memory`.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "file {} line {line}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Annotation { annotation } => write!(f, "annotation {annotation}"),
            Self::OptionsBody { line } => write!(f, "options of the runtime, line {line}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

/// Where the configuration comes from.
///
/// ```
/// use vc_config::{Origin, Sources};
///
/// let mut sources = Sources::default();
/// sources.environment([("VIRTC_VM_VCPUS".into(), "2".into())]);
/// sources.flag("vm.memory", "--memory", "512m");
/// let loaded = sources.load()?;
/// assert_eq!(loaded.config.vm.vcpus, Some(2));
/// assert_eq!(loaded.origin("vm.memory"), Origin::Flag { flag: "--memory".into() });
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<(PathBuf, Missing)>,
    variables: Vec<(String, String)>,
    flags: Vec<(String, String, FlagValue)>,
    options_body: Option<String>,
    annotations: Vec<AnnotationSetting>,
}

/// What an annotation sets.
#[derive(Clone, Debug)]
struct AnnotationSetting {
    /// Its name, for messages.
    annotation: String,
    key: String,
    text: String,
}

#[derive(Clone, Debug)]
enum FlagValue {
    Text(String),
    List(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Fine,
    AnError,
}

impl Sources {
    /// What a program reads by default: [`CONFIG_FILE`] where it exists, or the file that was
    /// named, and this process's environment.
    pub fn of_process(config: Option<&Path>) -> Self {
        let mut sources = Self::default();
        match config {
            Some(path) => sources.file(path),
            None => sources.file_if_it_exists(CONFIG_FILE),
        }
        sources.environment(std::env::vars_os());
        sources
    }

    /// Reads this file, which must exist.
    pub fn file(&mut self, path: impl Into<PathBuf>) {
        self.file = Some((path.into(), Missing::AnError));
    }

    /// Reads this file where it exists.
    pub fn file_if_it_exists(&mut self, path: impl Into<PathBuf>) {
        self.file = Some((path.into(), Missing::Fine));
    }

    /// Takes the variables that begin with `VIRTC_`.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let ours = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let is_ours = name.starts_with(VARIABLE_PREFIX) && !name.starts_with(TEST_PREFIX);
            is_ours.then(|| (name, value.to_string_lossy().into_owned()))
        });
        self.variables.extend(ours);
    }

    /// Sets `key` to what the flag `flag` was given.
    pub fn flag(&mut self, key: &str, flag: &str, value: impl Into<String>) {
        let value = FlagValue::Text(value.into());
        self.flags.push((key.to_owned(), flag.to_owned(), value));
    }

    /// Sets the list `key` to what the flag `flag` was given, in the order of its uses.
    pub fn flag_list(&mut self, key: &str, flag: &str, values: Vec<String>) {
        let value = FlagValue::List(values);
        self.flags.push((key.to_owned(), flag.to_owned(), value));
    }

    /// Adds the annotations of a bundle. Those that are settings ([`ANNOTATION_PREFIX`], and the names
    /// of Kata Containers for what is a key here) hold over everything else, as far as
    /// `runtime.annotations` allows them; the others are no settings.
    ///
    /// ```
    /// use vc_config::Sources;
    ///
    /// let mut sources = Sources::default();
    /// sources.environment([("VIRTC_RUNTIME_ANNOTATIONS".into(), "network.send_rate".into())]);
    /// sources.annotations([("io.virtcontainers.network.send_rate", "10 Mbit")]);
    /// let rate = sources.load()?.config.network.send_rate;
    /// assert_eq!(rate.map(|rate| rate.bits_per_second()), Some(10_000_000));
    /// # Ok::<(), vc_config::Error>(())
    /// ```
    pub fn annotations<'a>(&mut self, annotations: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let settings = annotations.into_iter().filter_map(|(annotation, text)| {
            let (key, text) = setting_of(annotation, text)?;
            Some(AnnotationSetting {
                annotation: annotation.to_owned(),
                key,
                text,
            })
        });
        self.annotations.extend(settings);
    }

    /// Adds the body of the options that containerd has for a runtime: keys as in a file. They hold
    /// over the file, the environment and the flags, as far as `runtime.annotations` allows them.
    ///
    /// ```
    /// use vc_config::Sources;
    ///
    /// let mut sources = Sources::default();
    /// sources.environment([("VIRTC_RUNTIME_ANNOTATIONS".into(), "vm.vcpus".into())]);
    /// sources.options_body("[vm]\nvcpus = 2\n");
    /// assert_eq!(sources.load()?.config.vm.vcpus, Some(2));
    /// sources.options_body("[vm]\nmemory = \"1g\"\n");
    /// assert!(sources.load().is_err());
    /// # Ok::<(), vc_config::Error>(())
    /// ```
    pub fn options_body(&mut self, text: impl Into<String>) {
        self.options_body = Some(text.into());
    }

    /// Reads everything, and checks it.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] when a file that was named cannot be read, [`Error::Parse`] when it is not
    /// TOML, [`Error::Invalid`] with every problem of every source otherwise.
    pub fn load(&self) -> Result<Loaded> {
        let mut layers = Layers::default();
        if let Some((path, missing)) = &self.file {
            layers.add_file(path, *missing)?;
        }
        self.add_to(&mut layers);
        layers.finish()
    }

    /// Reads everything for cleaning up, which must be possible whatever the configuration says by
    /// now: what is wrong of it is as if it was not set, and is told.
    ///
    /// ```
    /// use vc_config::Sources;
    ///
    /// let mut sources = Sources::default();
    /// sources.environment([
    ///     ("VIRTC_RUNTIME_ROOT".into(), "/run/other".into()),
    ///     ("VIRTC_VM_MEMORY".into(), "lots".into()),
    /// ]);
    /// let (config, wrong) = sources.load_for_cleaning();
    /// assert_eq!(config.runtime.root.to_str(), Some("/run/other"));
    /// assert!(wrong.unwrap().to_string().contains("VIRTC_VM_MEMORY"));
    /// ```
    pub fn load_for_cleaning(&self) -> (Config, Option<Error>) {
        let mut layers = Layers::default();
        let file = self.file.as_ref();
        let read = file.map_or(Ok(()), |(path, missing)| layers.add_file(path, *missing));
        self.add_to(&mut layers);
        let config = layers.config.clone();
        (config, read.and_then(|()| layers.finish()).err())
    }

    /// All layers above the file.
    fn add_to(&self, layers: &mut Layers) {
        for (variable, text) in &self.variables {
            layers.add_variable(variable, text);
        }
        for (key, flag, value) in &self.flags {
            layers.add_flag(key, flag, value);
        }
        if let Some(text) = &self.options_body {
            layers.add_options_body(text);
        }
        layers.add_annotations(&self.annotations);
    }
}

/// A configuration that was read and checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Who set the value of the key with this path.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// Why a setting does not hold that came with a bundle or a request.
const NOT_ALLOWED: &str = "`runtime.annotations` of the configuration does not allow it";

#[derive(Default)]
struct Layers {
    config: Config,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Layers {
    fn add_file(&mut self, path: &Path, missing: Missing) -> Result<()> {
        let text = match read_bounded(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && missing == Missing::Fine => {
                return Ok(());
            }
            Err(source) => {
                let path = path.to_owned();
                return Err(Error::Read { path, source });
            }
        };
        let entries = tree::entries(&text).map_err(|error| Error::Parse {
            path: path.to_owned(),
            line: error.line,
            message: error.message,
        })?;
        for entry in entries {
            let path = path.to_owned();
            let origin = Origin::File {
                path,
                line: entry.line,
            };
            self.set(&entry.path, Ok(entry.value), origin);
        }
        Ok(())
    }

    fn add_variable(&mut self, variable: &str, text: &str) {
        let origin = Origin::Environment {
            variable: variable.to_owned(),
        };
        let keys = Config::keys();
        let Some(key) = keys.iter().find(|key| key.variable() == variable) else {
            let known: Vec<_> = keys.iter().map(|key| key.variable()).collect();
            let nearest = nearest(variable, known.iter().map(String::as_str));
            self.problems.push(unknown(variable, origin, nearest));
            return;
        };
        self.set(&key.path(), key.kind.value_from_text(text), origin);
    }

    fn add_flag(&mut self, path: &str, flag: &str, value: &FlagValue) {
        let origin = Origin::Flag {
            flag: flag.to_owned(),
        };
        let value = match (value, key(path)) {
            (FlagValue::List(items), _) => Ok(list(items.iter().map(String::as_str))),
            (FlagValue::Text(text), Some(key)) => key.kind.value_from_text(text),
            (FlagValue::Text(text), None) => Ok(toml::Value::String(text.clone())),
        };
        self.set(path, value, origin);
    }

    /// Those keys that are allowed by what was set before.
    fn add_options_body(&mut self, text: &str) {
        let allowed = self.config.runtime.annotations.clone();
        let entries = tree::entries(text).unwrap_or_else(|error| {
            self.problems.push(Problem {
                key: "the options of the runtime".to_owned(),
                origin: Origin::OptionsBody { line: error.line },
                message: error.message,
                nearest: None,
            });
            Vec::new()
        });
        for entry in entries {
            let value = match key(&entry.path) {
                Some(_) if !allowed.contains(&entry.path) => Err(NOT_ALLOWED.to_owned()),
                _ => Ok(entry.value),
            };
            let origin = Origin::OptionsBody { line: entry.line };
            self.set(&entry.path, value, origin);
        }
    }

    /// Those that are allowed by what was set before.
    fn add_annotations(&mut self, annotations: &[AnnotationSetting]) {
        let allowed = self.config.runtime.annotations.clone();
        for setting in annotations {
            let origin = Origin::Annotation {
                annotation: setting.annotation.clone(),
            };
            let (path, text) = (setting.key.as_str(), &setting.text);
            let value = match key(path) {
                Some(_) if !allowed.contains(path) => Err(NOT_ALLOWED.to_owned()),
                Some(key) => key.kind.value_from_text(text),
                None => Ok(toml::Value::String(text.clone())),
            };
            self.set(path, value, origin);
        }
    }

    fn set(&mut self, path: &str, value: Result<toml::Value, String>, origin: Origin) {
        let Some(key) = key(path) else {
            let known: Vec<_> = Config::keys().iter().map(|key| key.path()).collect();
            let nearest = nearest(path, known.iter().map(String::as_str));
            self.problems.push(unknown(path, origin, nearest));
            return;
        };
        match value.and_then(|value| self.config.set(key, value)) {
            Ok(()) => {
                self.origins.insert(path.to_owned(), origin);
            }
            Err(message) => self.problems.push(Problem {
                key: path.to_owned(),
                origin,
                message,
                nearest: None,
            }),
        }
    }

    fn finish(mut self) -> Result<Loaded> {
        for violation in self.config.violations() {
            let origin = self.origins.get(&violation.key).cloned();
            self.problems.push(Problem {
                key: violation.key,
                origin: origin.unwrap_or(Origin::Default),
                message: violation.message,
                nearest: None,
            });
        }
        if self.problems.is_empty() {
            Ok(Loaded {
                config: self.config,
                origins: self.origins,
            })
        } else {
            Err(Error::Invalid {
                problems: self.problems,
            })
        }
    }
}

fn key(path: &str) -> Option<&'static Key> {
    Config::keys().into_iter().find(|key| key.path() == path)
}

fn unknown(key: &str, origin: Origin, nearest: Option<&str>) -> Problem {
    Problem {
        key: key.to_owned(),
        origin,
        message: "it is not a known key".to_owned(),
        nearest: nearest.map(str::to_owned),
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(CONFIG_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_FILE_BYTES_MAX {
        let message = format!("it is larger than {CONFIG_FILE_BYTES_MAX} bytes");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}
