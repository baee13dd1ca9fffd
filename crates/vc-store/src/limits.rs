use std::time::Duration;

/// How long calls of the store may wait; the configuration has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// For the lock of a sandbox's state.
    pub lock: Duration,
    /// For the owner of an operation that is taken over to go.
    pub take_over: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            lock: Duration::from_secs(5),
            take_over: Duration::from_secs(5),
        }
    }
}

/// Between two tries of a lock that somebody holds. A change takes about a millisecond.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(1);

/// Between two looks at an operation that somebody else does.
pub(crate) const OPERATION_RETRY: Duration = Duration::from_millis(20);

/// Removals after each other that are let end before one is taken over.
pub(crate) const REMOVALS_AWAITED_MAX: usize = 4;

/// Tries to find a hidden name that nobody has.
pub(crate) const HIDDEN_NAME_TRIES: u32 = 100;

/// Directories below a sandbox's own that are removed. Ours are two or three deep; what is deeper
/// was not made by us.
pub(crate) const REMOVE_DEPTH_MAX: usize = 32;

/// Looks through a directory that is removed: whoever opened the lock at that moment has made its file
/// anew.
pub(crate) const REMOVE_LOOKS_MAX: u32 = 3;

/// How long a directory that is being made may be without its lock, or without holding it.
pub(crate) const CREATING_WITHOUT_LOCK: Duration = Duration::from_secs(10);
