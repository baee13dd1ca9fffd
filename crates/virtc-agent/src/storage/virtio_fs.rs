//! A share: the source is its tag.

use std::path::Path;

use agent_protocol::agent::Storage;
use rustix::mount::mount;

use super::options::Options;
use super::{create_dir_all, describe};
use crate::error::{Attempt as _, Result};
use crate::modules::Modules;

/// The type of its file system.
const TYPE: &str = "virtiofs";

pub(super) fn mount_share(storage: &Storage, mount_point: &Path, modules: &Modules) -> Result<()> {
    let options = Options::parse(&storage.options)?;
    modules.require(TYPE)?;
    create_dir_all(mount_point)?;
    mount(
        &storage.source,
        mount_point,
        TYPE,
        options.flags,
        Some(options.data.as_c_str()),
    )
    .attempt(|| describe(storage))
}
