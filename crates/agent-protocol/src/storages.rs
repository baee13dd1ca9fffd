//! What the host asks for and a template has already: both sides describe it by the same words, so that the
//! agent knows it again.

use vc_types::guest;

use crate::agent::Storage;

/// The driver of shares.
pub const SHARE_DRIVER: &str = "virtio-fs";

/// A share of this tag, mounted where containers' roots and volumes are found.
///
/// ```
/// let share = agent_protocol::storages::share("virtc-user");
/// assert_eq!(share.mount_point, "/run/virtc/shares/virtc-user");
/// ```
pub fn share(tag: &str) -> Storage {
    Storage {
        driver: SHARE_DRIVER.into(),
        source: tag.into(),
        fstype: "virtiofs".into(),
        options: vec!["nodev".into()],
        mount_point: format!("{}/{tag}", guest::SHARES_DIR),
        ..Storage::default()
    }
}

/// The scratch disk.
pub fn scratch_disk() -> Storage {
    Storage {
        driver: "blk".into(),
        source: format!("serial={}", guest::SCRATCH_SERIAL),
        fstype: guest::SCRATCH_FSTYPE.into(),
        options: vec!["noatime".into(), "nodev".into()],
        mount_point: guest::SCRATCH_DIR.into(),
        ..Storage::default()
    }
}
