use std::time::Duration;

use crate::error::{Error, Result};

/// Bytes of a tag: the device has room for so many.
const TAG_BYTES_MAX: usize = 36;

/// How long names and attributes are believed with [`Cache::Checked`].
pub const CHECKED_FOR: Duration = Duration::from_secs(1);

/// What stands for ever, as far as a machine lives.
const FOR_GOOD: Duration = Duration::from_secs(86_400);

/// How long the guest may believe what it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Names and attributes for [`CHECKED_FOR`], content until size or time of change differ.
    Checked,
    /// Everything for good: for what does not change while the guest lives. Directories are listed
    /// without looking at every file in them, so that the guest knows, and this process holds, only
    /// what is used.
    Always,
}

/// How a share is served. It is passed to the process as arguments.
///
/// ```
/// use vc_share_device::{Cache, Options};
///
/// let options = Options {
///     listener: 3,
///     directory: "/share".into(),
///     tag: None,
///     cache: Cache::Checked,
///     extended_attributes: true,
/// };
/// assert_eq!(Options::parse(options.arguments())?, options);
/// # Ok::<(), vc_share_device::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The number of the descriptor at which the VMM connects.
    pub listener: i32,
    /// What is shared.
    pub directory: String,
    /// By which the guest mounts it, where the VMM asks this process for that.
    pub tag: Option<String>,
    /// How long the guest may believe what it has read.
    pub cache: Cache,
    /// Whether extended attributes are passed.
    pub extended_attributes: bool,
}

impl Options {
    /// The arguments that say this.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--fd={}", self.listener),
            format!("--shared-dir={}", self.directory),
            format!("--cache={}", self.cache.name()),
        ];
        arguments.extend(self.tag.as_ref().map(|tag| format!("--tag={tag}")));
        if self.extended_attributes {
            arguments.push("--xattr".to_owned());
        }
        arguments
    }

    /// Reads such arguments.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] for one that is none, [`Error::Missing`].
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let (mut listener, mut directory, mut cache) = (None, None, None);
        let mut tag = None;
        let mut extended_attributes = false;
        for argument in arguments {
            let known = match argument.split_once('=') {
                Some(("--fd", number)) => {
                    listener = number.parse().ok();
                    listener.is_some()
                }
                Some(("--shared-dir", path)) => {
                    directory = Some(path.to_owned());
                    true
                }
                Some(("--tag", name)) => {
                    let fits = (1..=TAG_BYTES_MAX).contains(&name.len());
                    tag = fits.then(|| name.to_owned());
                    fits
                }
                Some(("--cache", name)) => {
                    cache = Cache::of_name(name);
                    cache.is_some()
                }
                _ => {
                    extended_attributes |= argument == "--xattr";
                    argument == "--xattr"
                }
            };
            if !known {
                return Err(Error::Argument { argument });
            }
        }
        let missing = |argument| Error::Missing { argument };
        Ok(Self {
            listener: listener.ok_or_else(|| missing("--fd"))?,
            directory: directory.ok_or_else(|| missing("--shared-dir"))?,
            tag,
            cache: cache.ok_or_else(|| missing("--cache"))?,
            extended_attributes,
        })
    }
}

impl Cache {
    fn name(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Always => "always",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Checked, Self::Always]
            .into_iter()
            .find(|cache| cache.name() == name)
    }

    pub(crate) fn lifetime(self) -> Duration {
        match self {
            Self::Checked => CHECKED_FOR,
            Self::Always => FOR_GOOD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_survives_its_arguments() {
        for cache in [Cache::Checked, Cache::Always] {
            for extended_attributes in [true, false] {
                let options = Options {
                    listener: 7,
                    directory: "/a=b c".into(),
                    tag: extended_attributes.then(|| "a=b".into()),
                    cache,
                    extended_attributes,
                };
                assert_eq!(Options::parse(options.arguments()).unwrap(), options);
            }
        }
    }

    #[test]
    fn what_is_no_argument_is_refused() {
        let parse = |text: &str| Options::parse(text.split(' ').map(str::to_owned));
        let long = format!("--tag={}", "x".repeat(TAG_BYTES_MAX + 1));
        for text in [
            "--fd=x",
            "--cache=auto",
            "--xattr=1",
            "--writeback",
            "",
            "--tag=",
            &long,
        ] {
            assert!(
                matches!(parse(text), Err(Error::Argument { .. })),
                "{text:?}"
            );
        }
        let missing = parse("--fd=3 --cache=always").unwrap_err();
        assert_eq!(missing.to_string(), "the share device needs --shared-dir");
    }
}
