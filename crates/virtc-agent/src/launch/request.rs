//! What the agent tells the process that makes a container process.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::copy::Copy;
use super::new_root::NewRoot;

/// Where `libcontainer` keeps its state.
pub(crate) const CONTAINERS_STATE_DIR: &str = "/run/virtc/libcontainer";

/// The directory of one container's state.
pub(crate) fn state_dir(container_id: &str) -> PathBuf {
    Path::new(CONTAINERS_STATE_DIR).join(container_id)
}

/// One process to make, or a container to complete.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) container_id: String,
    /// Where the container's `config.json` is.
    pub(crate) bundle: PathBuf,
    /// The file with the process of an exec; without one, the container itself is made.
    pub(crate) exec_process: Option<PathBuf>,
    /// What a container that waits ready-made is given; nothing is made then.
    pub(crate) new_root: Option<NewRoot>,
    /// What an exec does instead of executing a program.
    pub(crate) copy: Option<Copy>,
    /// The file with the [`StartHooks`](super::StartHooks), when there are any.
    pub(crate) start_hooks: Option<PathBuf>,
    /// Where `libcontainer` sends the terminal.
    pub(crate) terminal_socket: Option<PathBuf>,
    /// For the error text: the working directory that was asked for.
    pub(crate) cwd: Option<PathBuf>,
}

impl Request {
    /// The process, for an error text.
    pub(crate) fn process_name(&self) -> String {
        match &self.exec_process {
            None => format!("{:?}", self.container_id),
            Some(_) => format!("of an exec in {:?}", self.container_id),
        }
    }
}
