use std::time::Duration;

/// How long [`Cgroup::freeze`](crate::Cgroup::freeze) and
/// [`Cgroup::thaw`](crate::Cgroup::thaw) wait for the kernel. It takes milliseconds; a process in
/// an uninterruptible wait holds it up.
pub const FREEZE_LIMIT: Duration = Duration::from_secs(2);

/// How long [`Cgroup::kill_all`](crate::Cgroup::kill_all) waits for the last process to be gone. A
/// VMM of many GiB takes about a second to give its memory back.
pub const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How long [`Cgroup::remove`](crate::Cgroup::remove) waits for processes that are just ending.
pub const REMOVE_LIMIT: Duration = Duration::from_secs(2);

/// How long `kill_all` waits before it looks for processes that came meanwhile.
pub(crate) const KILL_ROUND: Duration = Duration::from_millis(200);

/// How long `kill_all` waits for the freezer. A kill without it is only less tidy.
pub(crate) const KILL_FREEZE: Duration = Duration::from_millis(200);

/// Pidfds that `kill_all` has open at once, far below any limit of descriptors.
pub(crate) const PIDFDS_MAX: usize = 64;

/// The longest wait for one process; it may have left the cgroup without having ended.
pub(crate) const MEMBER_WAIT: Duration = Duration::from_millis(50);

/// Between two looks at what announces no change: the freezer of version 1, and a directory whose
/// last process has just ended.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Tries to make a directory whose parent somebody else removes as often.
pub(crate) const CREATE_TRIES: u32 = 16;

/// Bytes of one control file. A `cgroup.procs` of half a million processes fits.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 20;

/// Levels of cgroups below one of ours. A container in a VM has none on the host.
pub(crate) const DEPTH_MAX: usize = 32;

/// Cgroups below one of ours, in one hierarchy.
pub(crate) const DESCENDANTS_MAX: usize = 4096;

/// Bytes of a path. Kubernetes' longest have some three hundred.
pub(crate) const PATH_BYTES_MAX: usize = 2048;

/// Bytes of a directory's name, which is the file system's own limit.
pub(crate) const NAME_BYTES_MAX: usize = 255;
