use vc_types::ByteSize;

/// A writable layer in the guest's memory.
///
/// ```
/// use vc_storage::ScratchTmpfs;
/// use vc_types::ByteSize;
///
/// let tmpfs = ScratchTmpfs { size: ByteSize::from_mib(512) };
/// assert_eq!(tmpfs.mount_options(), ["size=536870912", "mode=0755"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchTmpfs {
    /// Bytes that it holds; more is `ENOSPC` for who writes.
    pub size: ByteSize,
}

impl ScratchTmpfs {
    /// The options with which the agent mounts it.
    pub fn mount_options(&self) -> Vec<String> {
        vec![
            format!("size={}", self.size.bytes()),
            "mode=0755".to_owned(),
        ]
    }
}
