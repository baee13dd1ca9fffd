//! The filters of system calls that the host makes for its guests.
//!
//! An emulated processor takes more than a hundred milliseconds for the usual one, the host's own some seven,
//! which it has while a machine comes up.

use std::io;

use oci_spec::runtime::{LinuxSeccomp, Spec};
use syscall_filter::SyscallFilter;
use tokio::task::{JoinHandle, spawn_blocking};
use vc_types::ContainerId;

use crate::error::{Error, Result};

/// The filters that a guest has made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestFilters {
    /// None: it has booted, or nobody knows.
    None,
    /// That of the usual container: its template has rehearsed one.
    Usual,
}

impl GuestFilters {
    fn have(self, seccomp: &LinuxSeccomp) -> bool {
        match self {
            Self::None => false,
            Self::Usual => default_spec::usual_seccomp().is_ok_and(|usual| usual == *seccomp),
        }
    }
}

/// A filter that is being made on a thread of its own.
#[derive(Debug)]
pub(crate) struct PendingFilter(JoinHandle<syscall_filter::Result<SyscallFilter>>);

impl PendingFilter {
    /// Begins to make the filter of a container. Nothing where it has none, or where its guest has it.
    pub(crate) fn begin(spec: &Spec, guest: GuestFilters) -> Option<Self> {
        let linux = spec.linux().as_ref()?;
        let seccomp = linux.seccomp().as_ref()?;
        if guest.have(seccomp) {
            return None;
        }
        let seccomp = seccomp.clone();
        let made = spawn_blocking(move || SyscallFilter::compile(&seccomp));
        Some(Self(made))
    }

    /// Waits until it is made.
    ///
    /// # Errors
    ///
    /// [`Error::Filter`] where it cannot be.
    pub(crate) async fn made(self, container: &ContainerId) -> Result<SyscallFilter> {
        let made = self.0.await.map_err(|error| Error::System {
            attempt: format!("make the filter of system calls of container {container}"),
            source: io::Error::other(error),
        })?;
        made.map_err(|source| Error::Filter {
            container: container.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxSeccompAction;

    use super::*;

    fn spec(seccomp: Option<LinuxSeccomp>) -> Spec {
        let mut spec = Spec::default();
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_seccomp(seccomp);
        spec
    }

    fn doing(action: LinuxSeccompAction) -> LinuxSeccomp {
        let mut seccomp = LinuxSeccomp::default();
        seccomp.set_default_action(action);
        seccomp
    }

    #[tokio::test]
    async fn a_filter_is_made_where_the_guest_has_not_made_it_before() {
        let begins = |seccomp: &Option<LinuxSeccomp>, guest| {
            PendingFilter::begin(&spec(seccomp.clone()), guest).is_some()
        };
        let usual = default_spec::usual_seccomp().unwrap();
        let allowing = doing(LinuxSeccompAction::ScmpActAllow);
        for (seccomp, booted, cloned) in [
            (None, false, false),
            (Some(usual), true, false),
            (Some(allowing), true, true),
        ] {
            assert_eq!(begins(&seccomp, GuestFilters::None), booted);
            assert_eq!(begins(&seccomp, GuestFilters::Usual), cloned);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_an_error_of_its_container() {
        let asking = spec(Some(doing(LinuxSeccompAction::ScmpActNotify)));
        let filter = PendingFilter::begin(&asking, GuestFilters::None).unwrap();
        let container = ContainerId::new("c1").unwrap();
        let error = filter.made(&container).await.unwrap_err();
        assert!(error.to_string().contains("c1"), "{error}");
        assert!(matches!(error, Error::Filter { .. }));
    }
}
