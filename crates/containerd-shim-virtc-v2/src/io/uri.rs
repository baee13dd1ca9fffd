use std::path::PathBuf;

use crate::error::{Error, Result};

/// What a stream may begin with; a path alone is the first.
const SCHEMES: [&str; 3] = ["fifo", "file", "binary"];

/// Where a stream goes or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamUri {
    /// Nowhere.
    Nothing,
    /// A pipe with a name.
    Path(PathBuf),
    /// A file, to which is added.
    File(PathBuf),
    /// A program that gets the output.
    Binary(LoggerProgram),
}

/// A program that gets the output of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoggerProgram {
    pub(crate) path: PathBuf,
    /// Each key, followed by its value where it has one.
    pub(crate) args: Vec<String>,
}

impl StreamUri {
    /// # Errors
    ///
    /// [`Error::Invalid`] for a scheme that is not known and a path that is not absolute.
    pub(crate) fn parse(uri: &str) -> Result<Self> {
        if uri.is_empty() {
            return Ok(Self::Nothing);
        }
        let (scheme, rest) = uri.split_once("://").unwrap_or(("fifo", uri));
        let (path, query) = match scheme {
            "binary" => rest.split_once('?').unwrap_or((rest, "")),
            _ => (rest, ""),
        };
        let path = match scheme {
            "binary" => PathBuf::from(unescaped(path)),
            _ => PathBuf::from(path),
        };
        if !SCHEMES.contains(&scheme) {
            return Err(Error::Invalid(format!(
                "the stream {uri} is of none of the kinds {}",
                SCHEMES.join(", ")
            )));
        }
        if !path.is_absolute() {
            return Err(Error::Invalid(format!(
                "the stream {uri} has no absolute path"
            )));
        }
        match scheme {
            "file" => Ok(Self::File(path)),
            "binary" => Ok(Self::Binary(LoggerProgram {
                path,
                args: arguments(query),
            })),
            _ => Ok(Self::Path(path)),
        }
    }

    /// That this kind cannot be what it is asked for.
    pub(crate) fn refused(&self, uri: &str) -> Error {
        Error::Invalid(format!("the stream {uri} cannot be read"))
    }
}

/// The pairs of a query, in the order of their keys, as containerd's own shim gives them.
fn arguments(query: &str) -> Vec<String> {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |text: &str| unescaped(&text.replace('+', " "));
            (plain(key), plain(value))
        })
        .collect();
    pairs.sort();
    pairs
        .into_iter()
        .flat_map(|(key, value)| [key, value])
        .filter(|text| !text.is_empty())
        .collect()
}

/// Percent escapes resolved; what is none stays.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known_by_its_scheme() {
        let parse = |uri| StreamUri::parse(uri).unwrap();
        assert_eq!(parse(""), StreamUri::Nothing);
        for uri in ["/run/f o", "fifo:///run/f o"] {
            assert_eq!(parse(uri), StreamUri::Path("/run/f o".into()));
        }
        assert_eq!(parse("file:///log"), StreamUri::File("/log".into()));
        let program = LoggerProgram {
            path: "/bin/a b".into(),
            args: ["-x", "1 2", "name"].map(str::to_owned).to_vec(),
        };
        let uri = "binary:///bin/a%20b?name&-x=1+2";
        assert_eq!(parse(uri), StreamUri::Binary(program));
    }

    #[test]
    fn others_are_refused() {
        for uri in ["relative", "http://host/x", "file://x", "binary://"] {
            assert!(StreamUri::parse(uri).is_err(), "{uri}");
        }
        let error = StreamUri::parse("http://host/x").unwrap_err().to_string();
        assert!(error.contains("fifo, file, binary"), "{error}");
    }
}
