//! The handler as text, between two marks at the end of a file.
//!
//! Nothing else of the file is written anew, so that comments, order and line ends stay, and the handler
//! can be taken out to the byte.

use super::settings::Version;
use crate::error::{FAILED, Failure};

/// The name by which a RuntimeClass has it.
pub(super) const HANDLER: &str = "virtc";

pub(super) const RUNTIME_TYPE: &str = "io.containerd.virtc.v2";

const BEGIN: &str =
    "# BEGIN virtc: by `virtc install containerd`, gone with `virtc uninstall containerd`";
const END: &str = "# END virtc";

/// What a file begins with that was made from nothing.
const MADE: &str = "# Made by `virtc install containerd`.\n";

/// Annotations of pods and containers that reach the runtime.
const ANNOTATIONS: [&str; 2] = ["io.virtcontainers.*", "io.katacontainers.*"];

/// A file that has nothing but the handler.
pub(super) fn made(version: Version) -> String {
    let before = format!("{MADE}version = {}\n", version.number());
    append(&before, &block(version, Runtimes::BuiltIn))
}

/// Whether this is what is left of [`made`] without the handler.
pub(super) fn is_made_by_us(rest: &str) -> bool {
    rest.starts_with(MADE) && rest.lines().count() == 2
}

/// The text without what stands between the marks, and the line end before.
///
/// # Errors
///
/// When one of the marks is missing.
pub(super) fn without_block(text: &str) -> Result<String, Failure> {
    let mut rest = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            BEGIN if !inside => {
                inside = true;
                for end in ["\r\n", "\n"] {
                    if let Some(shorter) = rest.strip_suffix(end) {
                        rest.truncate(shorter.len());
                        break;
                    }
                }
            }
            END if inside => inside = false,
            BEGIN | END => return Err(marks()),
            _ if inside => {}
            _ => rest.push_str(line),
        }
    }
    match inside {
        true => Err(marks()),
        false => Ok(rest),
    }
}

fn marks() -> Failure {
    Failure::new(
        FAILED,
        "the marks around the handler do not belong together",
    )
    .hint(format!(
        "take out by hand what is between {BEGIN:?} and {END:?}, and the marks"
    ))
}

/// One line end and the block: the last line may have none.
pub(super) fn append(text: &str, block: &str) -> String {
    let end = match text.contains("\r\n") {
        true => "\r\n",
        false => "\n",
    };
    let block = block.replace('\n', end);
    format!("{text}{end}{block}")
}

/// The runtimes that settings have without the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtimes {
    /// None are named: those that containerd has by itself.
    BuiltIn,
    Named,
}

/// The handler, with its marks. In settings of version 2, the first runtime that is named replaces those
/// that are built in, so that the one of these is named too.
pub(super) fn block(version: Version, runtimes: Runtimes) -> String {
    let annotations = ANNOTATIONS.map(|pattern| format!("{pattern:?}")).join(", ");
    let parent = format!("plugins.{:?}.containerd.runtimes", version.plugin());
    let built_in = match (version, runtimes) {
        (Version::Two, Runtimes::BuiltIn) => format!(
            "[{parent}.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n"
        ),
        _ => String::new(),
    };
    format!(
        "{BEGIN}\n\
         {built_in}\
         [{parent}.{HANDLER}]\n\
         runtime_type = {RUNTIME_TYPE:?}\n\
         pod_annotations = [{annotations}]\n\
         container_annotations = [{annotations}]\n\
         privileged_without_host_devices = true\n\
         {END}\n"
    )
}
