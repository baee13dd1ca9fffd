//! A disk, found by its serial number.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_protocol::agent::Storage;
use agent_protocol::guest::SCRATCH_SERIAL;
use rustix::mount::mount;

use super::options::Options;
use super::{checked_path, create_dir_all, describe};
use crate::error::{Attempt as _, Error, Result};
use crate::modules::Modules;
use crate::uevents::Uevents;

/// How long a disk may take to appear: it may be plugged in while we ask.
const APPEAR_LIMIT: Duration = Duration::from_secs(20);

const BLOCK_DIR: &str = "/sys/block";

pub(super) fn mount_disk(storage: &Storage, mount_point: &Path, modules: &Modules) -> Result<()> {
    let options = Options::parse(&storage.options)?;
    modules.require("virtio_blk")?;
    modules.require(&storage.fstype)?;
    let device = match storage.source.strip_prefix("serial=") {
        Some(serial) => wait_for_serial(serial)?,
        None => checked_path("disk", &storage.source)?.to_owned(),
    };
    create_dir_all(mount_point)?;
    let data = Some(options.data.as_c_str());
    mount(
        &device,
        mount_point,
        storage.fstype.as_str(),
        options.flags,
        data,
    )
    .attempt(|| describe(storage))
}

/// Whether it is the disk whose content is worth nothing once the guest is gone.
pub(super) fn is_scratch(storage: &Storage) -> bool {
    storage.source.strip_prefix("serial=") == Some(SCRATCH_SERIAL)
}

/// Whether there is a disk with this serial number.
pub(super) fn is_there(serial: &str) -> bool {
    find_serial(Path::new(BLOCK_DIR), serial).is_some()
}

/// How many disks the machine has. To ask each for its serial number would be a request to it.
pub(super) fn count() -> std::io::Result<usize> {
    // Those that the kernel makes up have no device.
    let entries = fs::read_dir(BLOCK_DIR)?.flatten();
    let disks = entries.filter(|entry| entry.path().join("device").exists());
    Ok(disks.count())
}

/// Listens before it looks again, so that a disk that comes in between is not missed.
fn wait_for_serial(serial: &str) -> Result<PathBuf> {
    if let Some(device) = find_serial(Path::new(BLOCK_DIR), serial) {
        return Ok(device);
    }
    let events = Uevents::listen()?;
    events
        .wait_until(APPEAR_LIMIT, || find_serial(Path::new(BLOCK_DIR), serial))?
        .ok_or_else(|| Error::Timeout {
            what: format!("waiting for the disk with serial number {serial:?}"),
            limit: APPEAR_LIMIT,
        })
}

/// The device whose serial number is this one and whose node can be opened.
///
/// The kernel shows a disk some moments before it can be: it tells of it after that.
fn find_serial(block_dir: &Path, serial: &str) -> Option<PathBuf> {
    fs::read_dir(block_dir).ok()?.flatten().find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("serial")).ok()?;
        let device = Path::new("/dev").join(entry.file_name());
        (found.trim() == serial && File::open(&device).is_ok()).then_some(device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_number_is_compared_whole() {
        let directory = tempfile::tempdir().unwrap();
        for (name, serial) in [("null", "virtc-scratch\n"), ("zero", "virtc")] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("serial"), serial).unwrap();
        }
        fs::create_dir(directory.path().join("loop0")).unwrap();
        let find = |serial| find_serial(directory.path(), serial);
        assert_eq!(find("virtc-scratch"), Some("/dev/null".into()));
        assert_eq!(find("virtc"), Some("/dev/zero".into()));
        assert_eq!(find("scratch"), None);
    }
}
