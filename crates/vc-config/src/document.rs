//! `docs/config.md`, made from the keys.

use std::fmt::Write;

use crate::annotation::ANNOTATION_KEYS;
use crate::config::{Config, shown_range};
use crate::setting::{Key, Kind};

const HEAD: &str = "\
# Configuration

Values come from four places, the later over the earlier: the defaults below, the file
`/etc/virtcontainers/config.toml` (or the one that `--config` names), the environment, and flags.
`virtc config` prints what holds, with the origin of each value. A key that is not known is an
error, which names the nearest known one.

A size is a number of bytes or text with a binary unit: `512m`, `2 GiB`. A rate is a number of bits a
second or text with a decimal unit: `64 kbit`, `10 Mbit`, `1 Gbit`. A list in a variable is
separated by commas, or written as in the file: `[\"a\", \"b\"]`. Variables that begin with
`VIRTC_TEST_` are for the project's tests and no part of the configuration.

Where `runtime.annotations` allows a key, the annotation `io.virtcontainers.KEY` of a bundle sets it for
its sandbox, over everything else. An annotation with that prefix that is not allowed, and one that is
no key, is refused by name.

This page is made from the code; a test holds it true.
";

/// The page that documents every key, as Markdown.
pub fn document() -> String {
    let config = Config::default();
    let mut page = HEAD.to_owned();
    for section in config.sections() {
        let keys = section.keys();
        let name = keys.first().map_or("", |key| key.section);
        let _ = write!(
            page,
            "\n## `[{name}]`\n\n| key | default | takes | meaning |\n|---|---|---|---|\n"
        );
        for key in keys {
            let default = match (config.get(key), key.unset) {
                (Some(value), _) => format!("`{value}`"),
                (None, unset) => unset.unwrap_or("not set").to_owned(),
            };
            let doc: Vec<_> = key.doc.iter().map(|line| line.trim()).collect();
            let _ = writeln!(
                page,
                "| `{}`<br>`{}` | {default} | {} | {} |",
                key.name,
                key.variable(),
                takes(key),
                doc.join(" "),
            );
        }
    }
    page
}

fn takes(key: &Key) -> String {
    let kind = match key.kind {
        Kind::Path => "an absolute path".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Choice(words) => format!("`{}`", words.join("`, `")),
        Kind::Integer => "a number".to_owned(),
        Kind::Milliseconds => "milliseconds".to_owned(),
        Kind::Size => "a size".to_owned(),
        Kind::Switch => "`true`, `false`".to_owned(),
        Kind::Rate => "a rate".to_owned(),
        Kind::KernelParams => "a list of kernel parameters".to_owned(),
        Kind::Paths => "a list of absolute paths".to_owned(),
        Kind::AllowedKeys => format!("a list of `{}`", ANNOTATION_KEYS.join("`, `")),
    };
    match shown_range(key) {
        Some(range) => format!("{kind}, {range}"),
        None => kind,
    }
}
