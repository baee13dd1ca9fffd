//! The options that containerd's configuration, or a client, gives to a runtime: with the action
//! `start`, and again with the request that makes a task.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message};
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use vc_config::Sources;

use crate::error::{Error, Result};

/// The file of a bundle that keeps them as they came, for the process that serves and for `delete`.
const FILE: &str = "runtime-options";

/// Bytes of them: a configuration that is written out has some ten thousand.
const BYTES_MAX: usize = 1 << 20;

/// What containerd gives to runtimes that it does not know itself.
const GENERIC: &str = "runtimeoptions.v1.Options";

/// What it gives to those that stand for `runc`.
const RUNC: &str = "containerd.runc.v1.Options";

/// What is used of a runtime's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `ConfigPath`: the configuration file, in place of the one that is read otherwise.
    config_path: Option<PathBuf>,
    /// The body of a configuration, whose keys are held to what annotations may set.
    config_body: Option<String>,
    /// `BinaryName`: the program in place of the `virtc` beside this one.
    binary_name: Option<PathBuf>,
}

impl Options {
    /// # Errors
    ///
    /// [`Error::Invalid`] with the type for one that is not known, and with the option for one that
    /// asks for what is not there.
    pub(crate) fn of(any: &Any) -> Result<Self> {
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if any.value.len() > BYTES_MAX {
            return Err(Error::Invalid(format!(
                "the options of the runtime are larger than {BYTES_MAX} bytes"
            )));
        }
        match name {
            "" => Ok(Self::default()),
            GENERIC => Self::generic(&any.value),
            RUNC => Self::runc(&RuncOptions::parse_from_bytes(&any.value)?),
            other => Err(Error::Invalid(format!(
                "options of the type {other} are not known, but {GENERIC} and {RUNC}"
            ))),
        }
    }

    /// Reads `type_url`, which says what the path names, the path and the body: fields 1 to 3.
    fn generic(bytes: &[u8]) -> Result<Self> {
        let mut options = Self::default();
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            let (field, kind) = (tag >> 3, tag & 7);
            match (field, kind) {
                (2, LENGTH_DELIMITED) => {
                    options.config_path = set(input.read_string()?).map(PathBuf::from);
                }
                (3, LENGTH_DELIMITED) => {
                    // The field has bytes, which are text here.
                    let body = String::from_utf8(input.read_bytes()?);
                    let body = body.map_err(|_| {
                        Error::Invalid("the body of the runtime's options is not text".into())
                    })?;
                    options.config_body = set(body);
                }
                (_, LENGTH_DELIMITED) => _ = input.read_bytes()?,
                _ => {
                    return Err(Error::Invalid(format!(
                        "field {field} of {GENERIC} is not known"
                    )));
                }
            }
        }
        Ok(options)
    }

    /// Those about how `runc` is run mean nothing here; those about where the shim or its task is do.
    fn runc(options: &RuncOptions) -> Result<Self> {
        for (name, value) in [
            ("ShimCgroup", &options.shim_cgroup),
            ("TaskApiAddress", &options.task_api_address),
        ] {
            if !value.is_empty() {
                return Err(Error::Invalid(format!(
                    "the option {name} is not supported"
                )));
            }
        }
        Ok(Self {
            binary_name: set(options.binary_name.clone()).map(PathBuf::from),
            ..Self::default()
        })
    }

    /// Whether nothing is asked for.
    pub(crate) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what the administrator does not allow, and gives the configuration's sources and the
    /// program: `own` where none is named.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the option, [`Error::Config`] where the administrator's own
    /// configuration is wrong.
    pub(crate) fn sources(&self, own: PathBuf) -> Result<(Sources, PathBuf)> {
        let mut program = own;
        let mut config_path = None;
        if self.config_path.is_some() || self.binary_name.is_some() {
            let allowed = Sources::of_process(None)
                .load()?
                .config
                .runtime
                .option_paths;
            if let Some(path) = &self.config_path {
                config_path = Some(below("ConfigPath", path, &allowed)?);
            }
            if let Some(path) = self.binary_name.as_ref().filter(|path| **path != program) {
                program = below("BinaryName", path, &allowed)?;
            }
        }
        let mut sources = Sources::of_process(config_path.as_deref());
        if let Some(body) = &self.config_body {
            sources.options_body(body);
        }
        Ok((sources, program))
    }

    /// Where the options were that a bundle's task was made with. Whether they are allowed was asked
    /// before they were kept.
    pub(crate) fn sources_for_cleaning(&self, own: PathBuf) -> (Sources, PathBuf) {
        let mut sources = Sources::of_process(self.config_path.as_deref());
        if let Some(body) = &self.config_body {
            sources.options_body(body);
        }
        let named = self.binary_name.clone().filter(|path| path.is_file());
        (sources, named.unwrap_or(own))
    }

    /// Those that were kept with a bundle; none where there are none.
    ///
    /// # Errors
    ///
    /// Those of [`Options::of`], and [`Error::System`].
    pub(crate) fn of_bundle(bundle: &Path) -> Result<Self> {
        let path = bundle.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Self::of(&Any::parse_from_bytes(&bytes)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::System {
                attempt: format!("read {}", path.display()),
                source,
            }),
        }
    }
}

/// Whether this is what a runtime's options come in, among other things that containerd sends.
pub(crate) fn is_options(any: &Any) -> bool {
    any.type_url.ends_with(GENERIC) || any.type_url.ends_with(RUNC)
}

/// Keeps options with a bundle.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn keep(any: &Any, bundle: &Path) -> Result<()> {
    if any.type_url.is_empty() {
        return Ok(());
    }
    let path = bundle.join(FILE);
    std::fs::write(&path, any.write_to_bytes()?).map_err(|source| Error::System {
        attempt: format!("write {}", path.display()),
        source,
    })
}

/// The kind of a field that is text, bytes or a message.
const LENGTH_DELIMITED: u32 = 2;

/// Where a message has nothing, it has the empty text.
fn set(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// What a path names, which is to be one of these or below it.
fn below(option: &str, path: &Path, allowed: &[PathBuf]) -> Result<PathBuf> {
    let refused = |why: String| Error::Invalid(format!("{option} {}: {why}", path.display()));
    if !path.is_absolute() {
        return Err(refused("it is not an absolute path".into()));
    }
    let named = path
        .canonicalize()
        .map_err(|error| refused(error.to_string()))?;
    let mut directories = allowed.iter().filter_map(|path| path.canonicalize().ok());
    match directories.any(|directory| named.starts_with(directory)) {
        true => Ok(named),
        false => Err(refused(
            "it is in none of the directories of `runtime.option_paths`".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, value: &[u8]) -> Any {
        Any {
            type_url: type_url.into(),
            value: value.into(),
            ..Any::default()
        }
    }

    fn field(number: u8, text: &str) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap();
        [&[number << 3 | 2, length], text.as_bytes()].concat()
    }

    #[test]
    fn what_containerd_sends_is_understood() {
        let bytes = [field(1, "x"), field(2, "/etc/v.toml"), field(3, "[vm]")].concat();
        for name in [GENERIC, "types.containerd.io/runtimeoptions.v1.Options"] {
            let options = Options::of(&any(name, &bytes)).unwrap();
            assert_eq!(
                options.config_path.as_deref(),
                Some(Path::new("/etc/v.toml"))
            );
            assert_eq!(options.config_body.as_deref(), Some("[vm]"));
        }
        let runc = RuncOptions {
            binary_name: "/usr/bin/v".into(),
            systemd_cgroup: true,
            ..RuncOptions::default()
        };
        let options = Options::of(&any(RUNC, &runc.write_to_bytes().unwrap())).unwrap();
        assert_eq!(
            options.binary_name.as_deref(),
            Some(Path::new("/usr/bin/v"))
        );
        assert_eq!(Options::of(&Any::default()).unwrap(), Options::default());
        assert_eq!(Options::of(&any(GENERIC, b"")).unwrap(), Options::default());
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_name() {
        let cgroup = RuncOptions {
            shim_cgroup: "/x".into(),
            ..RuncOptions::default()
        };
        for (any, named) in [
            (any("windows.Options", b""), "windows.Options"),
            (any(RUNC, &cgroup.write_to_bytes().unwrap()), "ShimCgroup"),
            (any(GENERIC, &[9 << 3, 1]), "field 9"),
        ] {
            let said = Options::of(&any).unwrap_err().to_string();
            assert!(said.contains(named), "{said}");
        }
        assert!(Options::of(&any(GENERIC, &[2 << 3 | 2, 200])).is_err());
    }

    #[test]
    fn only_what_is_below_a_directory_that_is_allowed_may_be_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("allowed")).unwrap();
        for name in ["allowed/a", "other"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink(at("other"), at("allowed/link")).unwrap();
        let allowed = [at("allowed"), at("missing")];
        below("ConfigPath", &at("allowed/a"), &allowed).unwrap();
        for name in ["other", "allowed/link", "allowed/../other", "allowed/none"] {
            let said = below("ConfigPath", &at(name), &allowed).unwrap_err();
            assert!(said.to_string().starts_with("ConfigPath "), "{said}");
        }
        below("ConfigPath", Path::new("a"), &allowed).unwrap_err();
    }
}
