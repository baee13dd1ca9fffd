//! What of a share gets the mounts that the host makes later.

/// Names at the top of a share begin with one of these. Nothing that a guest does makes such a name:
/// it cannot write at the top.
const READ_ONLY: &str = "slave-ro-";
const WRITABLE: &str = "slave-rw-";

/// A directory of a share below which mounts come and go with those of the host: a slave mount, see
/// mount_namespaces(7). Its name at the share's top says so, which is all that the process that
/// serves it has to know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slave {
    /// Whether it is read-only, with all that is ever mounted below it. The attribute of the mount
    /// does not come to later ones, so the process refuses writes by itself.
    pub read_only: bool,
}

impl Slave {
    /// The name at a share's top that makes it one.
    ///
    /// ```
    /// use vc_share_device::Slave;
    ///
    /// let slave = Slave { read_only: true };
    /// assert_eq!(Slave::of_name(&slave.name("data")), Some(slave));
    /// assert_eq!(Slave::of_name("data"), None);
    /// ```
    pub fn name(self, name: &str) -> String {
        let prefix = match self.read_only {
            true => READ_ONLY,
            false => WRITABLE,
        };
        format!("{prefix}{name}")
    }

    /// What a name at a share's top says.
    pub fn of_name(name: &str) -> Option<Self> {
        [(READ_ONLY, true), (WRITABLE, false)]
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map(|(_, read_only)| Self { read_only })
    }
}
