//! One key of the configuration: its type, its default, its range, and its words.
//!
//! The `section!` macro makes a section's struct, its defaults and its list of [`Key`]s from one
//! definition, so that what is read, checked, printed and documented cannot differ.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Deserialize;
use vc_types::ByteSize;

/// What kind of value a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A path.
    Path,
    /// Text, which whoever uses it understands.
    Text,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A whole number.
    Integer,
    /// A whole number of milliseconds.
    Milliseconds,
    /// A number of bytes, or text such as `512m` or `2 GiB`.
    Size,
    /// `true` or `false`.
    Switch,
    /// Bits a second, or text such as `10 Mbit`.
    Rate,
    /// A list of parameters of the guest's kernel.
    KernelParams,
    /// A list of keys of the configuration.
    AllowedKeys,
    /// A list of paths.
    Paths,
}

impl Kind {
    /// Reads the text of an environment variable or of a flag as a value of this kind.
    pub(crate) fn value_from_text(self, text: &str) -> Result<toml::Value, String> {
        match self {
            Self::Path | Self::Text | Self::Choice(_) | Self::Size | Self::Rate => {
                Ok(toml::Value::String(text.to_owned()))
            }
            Self::Switch => text
                .trim()
                .parse()
                .map(toml::Value::Boolean)
                .map_err(|_| format!("{text:?} is neither true nor false")),
            Self::Integer | Self::Milliseconds => text
                .trim()
                .parse()
                .map(toml::Value::Integer)
                .map_err(|_| format!("{text:?} is not a whole number")),
            Self::KernelParams | Self::AllowedKeys | Self::Paths
                if text.trim_start().starts_with('[') =>
            {
                toml::from_str::<toml::Table>(&format!("list = {text}"))
                    .ok()
                    .and_then(|mut table| table.remove("list"))
                    .ok_or_else(|| format!("{text:?} is not a list such as [\"a\", \"b\"]"))
            }
            Self::KernelParams | Self::AllowedKeys | Self::Paths => {
                Ok(list(text.split(',').filter(|item| !item.is_empty())))
            }
        }
    }
}

pub(crate) fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> toml::Value {
    toml::Value::Array(items.into_iter().map(toml::Value::from).collect())
}

/// One key of one section.
#[derive(Clone, Debug)]
pub struct Key {
    /// The section's path, such as `hypervisor.qemu`.
    pub section: &'static str,
    /// The key's name in it.
    pub name: &'static str,
    /// What it is for, a line each.
    pub doc: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
    /// The numbers that are allowed, both ends included.
    pub range: Option<RangeInclusive<u64>>,
    /// What is done where it is not set, for keys that have no fixed default.
    pub unset: Option<&'static str>,
}

impl Key {
    /// The whole path, such as `hypervisor.qemu.path`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it, such as `VIRTC_HYPERVISOR_QEMU_PATH`.
    pub fn variable(&self) -> String {
        let path = self.path().replace('.', "_").to_ascii_uppercase();
        format!("{}{path}", crate::load::VARIABLE_PREFIX)
    }
}

/// A section of the configuration, its values reached by name.
pub trait Section {
    /// Its keys, in the order of the documentation.
    fn keys(&self) -> &'static [Key];

    /// The value of the key `name`; nothing where it is not set or not known.
    fn get(&self, name: &str) -> Option<toml::Value>;

    /// The value of the key `name` where it is a number, for its range.
    fn number(&self, name: &str) -> Option<u64>;

    /// Sets the key `name`.
    ///
    /// # Errors
    ///
    /// What is wrong with the value, in words.
    fn set(&mut self, name: &str, value: toml::Value) -> Result<(), String>;
}

/// A type that a key may have.
pub(crate) trait Setting: Sized {
    const KIND: Kind;

    fn read(value: toml::Value) -> Result<Self, String>;

    fn show(&self) -> Option<toml::Value>;

    fn number(&self) -> Option<u64> {
        None
    }
}

fn by_serde<T: for<'de> Deserialize<'de>>(value: toml::Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| error.message().to_owned())
}

impl Setting for u32 {
    const KIND: Kind = Kind::Integer;

    fn read(value: toml::Value) -> Result<Self, String> {
        by_serde(value)
    }

    fn show(&self) -> Option<toml::Value> {
        Some(i64::from(*self).into())
    }

    fn number(&self) -> Option<u64> {
        Some(u64::from(*self))
    }
}

impl Setting for PathBuf {
    const KIND: Kind = Kind::Path;

    fn read(value: toml::Value) -> Result<Self, String> {
        by_serde(value)
    }

    fn show(&self) -> Option<toml::Value> {
        Some(self.to_string_lossy().into_owned().into())
    }
}

impl Setting for bool {
    const KIND: Kind = Kind::Switch;

    fn read(value: toml::Value) -> Result<Self, String> {
        by_serde(value)
    }

    fn show(&self) -> Option<toml::Value> {
        Some((*self).into())
    }
}

impl Setting for String {
    const KIND: Kind = Kind::Text;

    fn read(value: toml::Value) -> Result<Self, String> {
        by_serde(value)
    }

    fn show(&self) -> Option<toml::Value> {
        Some(self.clone().into())
    }
}

impl Setting for Vec<String> {
    const KIND: Kind = Kind::KernelParams;

    fn read(value: toml::Value) -> Result<Self, String> {
        by_serde(value)
    }

    fn show(&self) -> Option<toml::Value> {
        Some(list(self.iter().map(String::as_str)))
    }
}

impl Setting for Vec<PathBuf> {
    const KIND: Kind = Kind::Paths;

    fn read(value: toml::Value) -> Result<Self, String> {
        let paths: Self = by_serde(value)?;
        match paths.iter().find(|path| !path.is_absolute()) {
            Some(path) => Err(format!("{path:?} is not an absolute path")),
            None => Ok(paths),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(list(self.iter().filter_map(|path| path.to_str())))
    }
}

impl Setting for ByteSize {
    const KIND: Kind = Kind::Size;

    fn read(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(bytes) => u64::try_from(bytes)
                .map(Self::from_bytes)
                .map_err(|_| "a size cannot be negative".to_owned()),
            toml::Value::String(text) => text
                .parse()
                .map_err(|error: vc_types::Error| error.to_string()),
            other => Err(format!(
                "a size is a number of bytes or text such as \"2 GiB\", not a {}",
                other.type_str()
            )),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        let shown = self.to_string();
        // What is no multiple of a unit is shown as the number that it is.
        Some(match shown.strip_suffix(" bytes") {
            None => shown.into(),
            Some(bytes) => bytes.to_owned().into(),
        })
    }

    fn number(&self) -> Option<u64> {
        Some(self.bytes())
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(value: toml::Value) -> Result<Self, String> {
        T::read(value).map(Some)
    }

    fn show(&self) -> Option<toml::Value> {
        self.as_ref().and_then(T::show)
    }

    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(T::number)
    }
}

/// Makes an enum of words from one list.
macro_rules! choice {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// The word that stands for it.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl $crate::setting::Setting for $name {
            const KIND: $crate::setting::Kind = $crate::setting::Kind::Choice(&[$($word),*]);

            fn read(value: toml::Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => Err(format!("{value} is not one of {}", [$($word),*].join(", "))),
                }
            }

            fn show(&self) -> Option<toml::Value> {
                Some(self.word().into())
            }
        }
    };
}

/// Makes a section: the struct, its defaults, and its keys.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident at $path:literal {
            $(
                $(#[doc = $field_doc:literal])*
                pub $field:ident: $type:ty = $default:expr
                $(, in $range:expr)? $(, unset $unset:literal)?;
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::setting::Section for $name {
            fn keys(&self) -> &'static [$crate::setting::Key] {
                const KEYS: &[$crate::setting::Key] = &[$($crate::setting::Key {
                    section: $path,
                    name: stringify!($field),
                    doc: &[$($field_doc),*],
                    kind: <$type as $crate::setting::Setting>::KIND,
                    range: $crate::setting::optional!($($range)?),
                    unset: $crate::setting::optional!($($unset)?),
                },)*];
                KEYS
            }

            fn get(&self, name: &str) -> Option<toml::Value> {
                match name {
                    $(stringify!($field) => $crate::setting::Setting::show(&self.$field),)*
                    _ => None,
                }
            }

            fn number(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($field) => $crate::setting::Setting::number(&self.$field),)*
                    _ => None,
                }
            }

            fn set(&mut self, name: &str, value: toml::Value) -> Result<(), String> {
                match name {
                    $(stringify!($field) => {
                        self.$field = $crate::setting::Setting::read(value)?;
                        Ok(())
                    })*
                    _ => Err("it is not a key of this section".to_owned()),
                }
            }
        }
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

pub(crate) use {choice, optional, section};
