//! A directory or file of the guest at a second place.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::chown;
use std::path::Path;

use agent_protocol::agent::Storage;
use rustix::mount::{
    MountFlags, mount_bind as bind, mount_bind_recursive, mount_change, mount_remount,
};

use super::options::Options;
use super::{CREATE_DIRS, CREATE_FILE, checked_path, create_dir_all, describe, has_option};
use crate::error::{Attempt as _, Error, Result};

/// Driver options: the owner of a source that is made here.
const UID: &str = "uid=";
const GID: &str = "gid=";

pub(super) fn mount_bind(storage: &Storage, mount_point: &Path) -> Result<()> {
    let source = checked_path("bind source", &storage.source)?;
    let options = Options::parse(&storage.options)?;
    create_places(storage, source, mount_point)?;
    if options.recursive || storage.options.is_empty() {
        mount_bind_recursive(source, mount_point).attempt(|| describe(storage))?;
    } else {
        bind(source, mount_point).attempt(|| describe(storage))?;
    }
    // The kernel takes the flags of a bind only when it is mounted again.
    if !options.flags.is_empty() {
        mount_remount(mount_point, MountFlags::BIND | options.flags, c"")
            .attempt(|| describe(storage))?;
    }
    if let Some(propagation) = options.propagation {
        mount_change(mount_point, propagation).attempt(|| describe(storage))?;
    }
    Ok(())
}

fn create_places(storage: &Storage, source: &Path, mount_point: &Path) -> Result<()> {
    let create_file = has_option(storage, CREATE_FILE);
    if has_option(storage, CREATE_DIRS) && !create_file {
        create_source(storage, source)?;
        create_dir_all(mount_point)?;
    } else if create_file || fs::metadata(source).is_ok_and(|source| !source.is_dir()) {
        if let Some(parent) = mount_point.parent() {
            create_dir_all(parent)?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(mount_point)
            .attempt(|| format!("create {}", mount_point.display()))?;
    } else {
        create_dir_all(mount_point)?;
    }
    Ok(())
}

/// Makes the directory that is bound, where it is not there, and gives it its owner.
fn create_source(storage: &Storage, source: &Path) -> Result<()> {
    let (uid, gid) = (id_option(storage, UID)?, id_option(storage, GID)?);
    let is_new = !source.exists();
    create_dir_all(source)?;
    if is_new {
        chown(source, uid, gid).attempt(|| format!("give {} its owner", source.display()))?;
    }
    Ok(())
}

fn id_option(storage: &Storage, key: &str) -> Result<Option<u32>> {
    let mut options = storage.driver_options.iter();
    let Some(value) = options.find_map(|option| option.strip_prefix(key)) else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|_| Error::Invalid {
        field: "bind owner",
        value: value.to_owned(),
        reason: "is not an id",
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn storage(options: &[&str]) -> Storage {
        Storage {
            driver_options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Storage::default()
        }
    }

    #[test]
    fn a_source_that_is_made_gets_its_owner_and_one_that_was_there_keeps_its_own() {
        let root = tempfile::tempdir().unwrap();
        let owner = fs::metadata(root.path()).unwrap();
        let (uid, gid) = match owner.uid() {
            // Only root can give something away.
            0 => (1000, 100),
            uid => (uid, owner.gid()),
        };
        let owned = storage(&["create-dirs", &format!("uid={uid}"), &format!("gid={gid}")]);
        let made = root.path().join("a/made");
        create_source(&owned, &made).unwrap();
        let found = fs::metadata(&made).unwrap();
        assert_eq!((found.uid(), found.gid()), (uid, gid));

        create_source(&owned, root.path()).unwrap();
        assert_eq!(fs::metadata(root.path()).unwrap().uid(), owner.uid());
    }

    #[test]
    fn an_owner_that_is_no_number_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let made = root.path().join("made");
        assert!(create_source(&storage(&["uid=ann"]), &made).is_err());
        assert!(!made.exists());
    }
}
