//! A container's root: a writable layer over what is shared.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use agent_protocol::agent::Storage;
use rustix::mount::mount;

use super::options::Options;
use super::{CREATE_DIRS, checked_path, create_dir_all, describe, has_option};
use crate::error::{Attempt as _, Result};
use crate::modules::Modules;

pub(super) fn mount_overlay(
    storage: &Storage,
    mount_point: &Path,
    modules: &Modules,
) -> Result<()> {
    let options = Options::parse(&storage.options)?;
    modules.require("overlay")?;
    if has_option(storage, CREATE_DIRS) {
        create_layers(&storage.options)?;
    }
    create_dir_all(mount_point)?;
    mount(
        &storage.source,
        mount_point,
        "overlay",
        options.flags,
        Some(options.data.as_c_str()),
    )
    .attempt(|| describe(storage))
}

/// Makes the writable layer. The root that it gives has its owner and mode, so it takes those of
/// the topmost layer below.
fn create_layers(options: &[String]) -> Result<()> {
    let option = |wanted: &str| {
        options
            .iter()
            .find_map(|option| option.split_once('=').filter(|(key, _)| *key == wanted))
    };
    if let Some((_, directory)) = option("workdir") {
        create_dir_all(checked_path("overlay directory", directory)?)?;
    }
    let Some((_, upper)) = option("upperdir") else {
        return Ok(());
    };
    let upper = checked_path("overlay directory", upper)?;
    let is_new = !upper.exists();
    create_dir_all(upper)?;
    let top = option("lowerdir").and_then(|(_, lower)| lower.split(':').next());
    if let Some(top) = top.filter(|_| is_new) {
        let attempt = || format!("make {} like {top}", upper.display());
        let like = fs::metadata(top).attempt(attempt)?;
        fs::set_permissions(upper, like.permissions()).attempt(attempt)?;
        chown(upper, Some(like.uid()), Some(like.gid())).attempt(attempt)?;
    }
    Ok(())
}
