//! What the program is called for.

mod delete;
mod info;
mod serve;
mod start;

use std::io::Write;
use std::path::PathBuf;

use crate::cli::{Action, Flags};
use crate::error::{Error, Result};

/// # Errors
///
/// What went wrong, for containerd's log.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    match flags.action {
        Action::Serve => serve::serve(flags),
        Action::Start => start::start(flags),
        Action::Delete => delete::delete(flags),
        Action::Info => info::info(),
        Action::Version => info::version(),
    }
}

/// The bundle of the task: the working directory, where nothing else is said.
fn bundle(flags: &Flags) -> Result<PathBuf> {
    match &flags.bundle {
        Some(bundle) => Ok(bundle.clone()),
        None => std::env::current_dir().map_err(|source| Error::System {
            attempt: "find the bundle".into(),
            source,
        }),
    }
}

/// Answers containerd.
fn answer(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|source| Error::System {
        attempt: "answer containerd".into(),
        source,
    })
}
