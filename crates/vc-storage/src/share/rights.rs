use vc_launch::{Capability, User};

/// With whose rights a share is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Nobody's: what is not readable for everyone is refused by the host's kernel, whoever owns
    /// the guest's.
    Nothing,
    /// The same, as a user and group of this number, so that the processes of two sandboxes are
    /// strangers to each other.
    NothingAs(u32),
    /// The invoking user's.
    Invoker(User),
}

/// What reading with root's rights needs. `DAC_READ_SEARCH` would be enough for it, but also
/// opens any file of the host's file systems by its handle, which no mount namespace stops.
const READING: &[Capability] = &[Capability::DacOverride];

/// What writing for the guest's users needs: giving files their owners (`CHOWN`, and `SETUID`
/// and `SETGID` for those that are made), mode and times of files of others (`FOWNER`), set-id
/// bits as on a local file system (`FSETID`), file capabilities (`SETFCAP`). Not `MKNOD`: a
/// device node that a guest makes would be one on the host too.
const WRITING: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
];

impl Rights {
    /// The user that the share runs as.
    pub(super) fn user(&self) -> User {
        match self {
            Self::Nothing => User::NOBODY,
            Self::NothingAs(id) => User {
                uid: *id,
                gid: *id,
                groups: Vec::new(),
            },
            Self::Invoker(user) => user.clone(),
        }
    }

    /// The capabilities that it gets: none but for root, whose rights are capabilities.
    pub(super) fn capabilities(&self, writable: bool) -> &'static [Capability] {
        match self {
            Self::Invoker(User { uid: 0, .. }) if writable => WRITING,
            Self::Invoker(User { uid: 0, .. }) => READING,
            Self::Invoker(_) | Self::Nothing | Self::NothingAs(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoker(uid: u32) -> Rights {
        Rights::Invoker(User {
            uid,
            gid: uid,
            groups: Vec::new(),
        })
    }

    #[test]
    fn only_root_keeps_capabilities() {
        for writable in [true, false] {
            assert!(Rights::Nothing.capabilities(writable).is_empty());
            assert!(invoker(1000).capabilities(writable).is_empty());
        }
        assert_eq!(invoker(0).capabilities(false), [Capability::DacOverride]);
    }

    #[test]
    fn no_share_opens_files_by_handle_or_makes_devices() {
        for writable in [true, false] {
            let kept = invoker(0).capabilities(writable);
            assert!(!kept.contains(&Capability::DacReadSearch));
            assert!(!kept.contains(&Capability::Mknod));
        }
    }
}
