//! The scratch disk of a template, mounted before anybody asks for it: its clones have it as it is.

use std::fs;
use std::path::Path;

use agent_protocol::agent::Storage;
use agent_protocol::guest::{SCRATCH_DIR, SCRATCH_SERIAL};
use agent_protocol::storages::scratch_disk;

use super::{CREATE_DIRS, Mounted, block};
use crate::error::{Attempt as _, Result};
use crate::modules::Modules;
use crate::sandbox::{Sandbox, blocking};

/// Where a writable layer is rehearsed.
const REHEARSAL: &str = "/run/virtc/scratch-rehearsal";

impl Sandbox {
    /// Mounts the scratch disk that the machine has, and reads what the first writable layer on it
    /// needs. What asks for the disk later finds it mounted; where it cannot be now, that is tried again.
    pub(crate) async fn mount_own_scratch(&self) {
        if !block::is_there(SCRATCH_SERIAL) {
            return;
        }
        let modules = self.modules.clone();
        let prepared = async {
            self.add_storages(vec![scratch_disk()]).await?;
            blocking(move || rehearse(&modules)).await
        };
        if let Err(error) = prepared.await {
            tracing::warn!("{}", error.chain());
        }
    }
}

/// Makes and removes a writable layer, so that the disk's tables are in memory, and none is to be
/// written to it.
fn rehearse(modules: &Modules) -> Result<()> {
    let attempt = || "rehearse a writable layer".to_owned();
    let upper = Path::new(SCRATCH_DIR).join("rehearsal");
    let (lower, root) = (format!("{REHEARSAL}/lower"), format!("{REHEARSAL}/root"));
    fs::create_dir_all(&lower).attempt(attempt)?;
    let layer = Storage {
        driver: "overlayfs".into(),
        driver_options: vec![CREATE_DIRS.into()],
        source: "overlay".into(),
        options: vec![
            format!("lowerdir={lower}"),
            format!("upperdir={}/upper", upper.display()),
            format!("workdir={}/work", upper.display()),
        ],
        mount_point: root.clone(),
        ..Storage::default()
    };
    let mounted = Mounted::mount_all(&[layer], modules)?;
    let written = fs::write(Path::new(&root).join("file"), "file");
    // Where it comes to lie is chosen only then.
    rustix::fs::sync();
    drop(mounted);
    fs::remove_dir_all(&upper).attempt(attempt)?;
    fs::remove_dir_all(REHEARSAL).attempt(attempt)?;
    rustix::fs::sync();
    written.attempt(attempt)
}
